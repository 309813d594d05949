"""What mkdocs is told beside mkdocs.yml: pages that stand outside docs/, and links as the site
needs them.

Pages are written to be read in the repository, where a link may lead to any file. On the site
README.md is the first page, a link to another page becomes one between pages, and a link to a file
that is no page becomes its path.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPO = Path(__file__).parent.parent
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "*/README.md", "benchmarks/*.md")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def place(path: str) -> str:
    """Where a file of the repository stands on the site: "docs/api.md" -> "api.md"."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def origin(page: str) -> str:
    """The file of the repository that a page of the site is made from."""
    if page == "index.md":
        return "README.md"
    return page if (REPO / page).is_file() else f"docs/{page}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside docs/."""
    for pattern in OUTSIDE:
        for file in sorted(REPO.glob(pattern)):
            path = file.relative_to(REPO).as_posix()
            if not path.startswith(("docs/", ".")):
                files.append(File.generated(config, place(path), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links that lead to pages and pictures of the site."""
    here = posixpath.dirname(origin(page.file.src_uri))

    def mended(link: re.Match[str]) -> str:
        mark, text, target, anchor = link.groups()
        if "://" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(here, target))
        if (REPO / path / "README.md").is_file():
            path = f"{path}/README.md"
        file = files.get_file_from_path(place(path))
        if file is None or not file.inclusion.is_included():
            return text if text.startswith("`") else f"{text} (`{path}`)"
        relative = posixpath.relpath(place(path), posixpath.dirname(page.file.src_uri) or ".")
        return f"{mark}[{text}]({relative}{anchor or ''})"

    return LINK.sub(mended, markdown)
