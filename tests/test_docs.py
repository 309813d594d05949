"""The pages: links lead somewhere, Python examples run, the API page is what the docstrings say."""

import re
import runpy
from pathlib import Path

import pytest

from octvideo.data.prepare.demo import make_clip
from octvideo.data.video.encode import write_video

REPO = Path(__file__).parent.parent
FOLDERS = ("", "docs/", "docs/decisions/", "data_lists/", "configs/", "benchmarks/")
PAGES = sorted(page for folder in FOLDERS for page in (REPO / folder).glob("*.md"))
EXAMPLES = [
    pytest.param(
        code,
        id=f"{page.name}:{page.read_text()[: page.read_text().index(code)].count(chr(10)) + 1}",
    )
    for page in PAGES
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_and_named_files_exist(page):
    text = page.read_text()
    linked = re.findall(r"\]\((?!https?:)([^)#\s]+)\)", text)
    named = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|yaml|sbatch))`", text)

    below = (REPO, REPO / "octvideo", REPO / "configs")
    assert [path for path in linked if not (page.parent / path).exists()] == []
    assert [path for path in named if not any((folder / path).exists() for folder in below)] == []


@pytest.mark.parametrize("code", EXAMPLES)
def test_a_python_example_runs(code, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    run = tmp_path / "runs" / "demo" / "oct_i3d"
    run.mkdir(parents=True)
    (run / "checkpoints").symlink_to(tiny_checkpoint.parent)
    write_video(tmp_path / "video.mp4", make_clip(0, seed=0))
    monkeypatch.chdir(tmp_path)

    exec(compile(code, "example", "exec"), {})

    assert capsys.readouterr().out


def test_the_api_page_is_written_from_the_docstrings():
    page = runpy.run_path(str(REPO / "docs" / "make_api.py"))["page"]()

    assert page == (REPO / "docs" / "api.md").read_text(), "python docs/make_api.py writes it anew"


def test_no_placeholder_is_left_in_the_readme():
    text = re.sub(r"```.*?```|`[^`]+`", "", (REPO / "README.md").read_text(), flags=re.DOTALL)

    assert re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\bPICTURE\b|\bTABLE6\b", text) == []
