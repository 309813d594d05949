"""The site that `make docs` builds."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

REPO = Path(__file__).parent.parent


class Links(HTMLParser):
    """Where a page leads, what it shows, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors = {""}
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        self.targets += [found[key] for key in ("href", "src") if found.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=REPO,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_link_of_the_site_leads_to_a_page_and_a_place_of_it(site):
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    wrong = []
    for page, links in pages.items():
        for target in map(urlsplit, links.targets):
            if target.scheme or target.netloc:
                continue
            to = (page.parent / unquote(target.path)).resolve() if target.path else page
            anchors = pages[to].anchors if to in pages else {target.fragment}
            if not to.exists() or unquote(target.fragment) not in anchors:
                wrong.append(f"{page.relative_to(site)} -> {target.geturl()}")

    assert len(pages) > 20
    assert wrong == []


def test_a_page_asks_no_other_host_for_anything(site):
    for page in site.rglob("*.html"):
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.https?:", page.read_text())


def test_every_page_of_the_docs_is_in_the_navigation():
    named = re.findall(r": ([\w./]+\.md)$", (REPO / "mkdocs.yml").read_text(), re.MULTILINE)

    assert {page.name for page in (REPO / "docs").glob("*.md")} <= set(named)
