"""The notebooks: their scripts run, and they are what docs/make_notebooks.py writes of them."""

import json
import re
from pathlib import Path

import pytest
from forked import Forked, python

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
MARK = re.compile(r"^# %%(?: \[markdown\])?\n", re.MULTILINE)


def test_every_script_is_a_notebook():
    assert {path.stem for path in SCRIPTS} == {path.stem for path in FOLDER.glob("*.ipynb")}
    assert len(SCRIPTS) == 3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_holds_its_script_and_what_that_printed(script):
    cells = json.loads(script.with_suffix(".ipynb").read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    parts = [part.strip() for part in MARK.split(script.read_text())[1:]]

    assert [part.replace("# ", "").replace("#", "") for part in parts] == [
        text.replace("# ", "").replace("#", "") for text in texts
    ]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert any(cell["outputs"] for cell in code)
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    # As a notebook: workers have no file to import.
    run = Forked(python, "-c", script.read_text(), output=tmp_path / "said")

    said = run.communicate(timeout=500)
    assert run.returncode == 0, said
    assert said
