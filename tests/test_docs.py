"""The pages: links lead somewhere, Python examples run, the API page is what the docstrings say."""

import re
import runpy
from pathlib import Path

import pytest

from octvideo.data.prepare.demo import make_clip
from octvideo.data.video.encode import write_video
from octvideo.runs.machine import SIZES

REPO = Path(__file__).parent.parent
FOLDERS = ("", "docs/", "docs/decisions/", "data_lists/", "configs/", "benchmarks/")
PAGES = sorted(page for folder in FOLDERS for page in (REPO / folder).glob("*.md"))
EXAMPLES = [
    pytest.param(
        code,
        id=f"{page.name}:{page.read_text()[: page.read_text().index(code)].count(chr(10)) + 1}",
        marks=[pytest.mark.slow] if "octvideo.fit" in code else [],
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
    for i in range(8):
        write_video(tmp_path / "my_videos" / ("ab"[i % 2]) / f"{i}.mp4", make_clip(i, seed=i))
    monkeypatch.chdir(tmp_path)
    _be_small(monkeypatch)

    exec(compile(code, "example", "exec"), {"__name__": "__main__"})

    assert capsys.readouterr().out


def _be_small(monkeypatch):
    """A run of `octvideo.fit` takes seconds, and asks nobody for weights."""
    small = {"TRAIN_CROP_SIZE": 32, "TRAIN_JITTER_SCALES": [32, 40], "TEST_CROP_SIZE": 32}
    monkeypatch.setitem(SIZES, "medium", small)
    monkeypatch.setenv("OCTVIDEO_OFFLINE", "1")
    for module in ("octvideo.runs.machine", "octvideo.engine.threads"):
        monkeypatch.setattr(f"{module}.available_cores", lambda: 1)


def test_the_api_page_is_written_from_the_docstrings():
    page = runpy.run_path(str(REPO / "docs" / "make_api.py"))["page"]()

    assert page == (REPO / "docs" / "api.md").read_text(), "python docs/make_api.py writes it anew"


def test_no_placeholder_is_left_in_the_readme():
    text = re.sub(r"```.*?```|`[^`]+`", "", (REPO / "README.md").read_text(), flags=re.DOTALL)

    assert re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\bPICTURE\b|\bTABLE6\b", text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_no_page_holds_both_sides_of_a_merge(page):
    assert not re.findall("^(?:<<<<<<<|>>>>>>>) .*", page.read_text(), re.MULTILINE)


def test_a_record_of_a_decision_is_short():
    records = (REPO / "docs/decisions").glob("*.md")

    assert [page.name for page in records if len(page.read_text().splitlines()) > 25] == []
