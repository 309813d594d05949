"""The notebooks: their scripts run, and they are what docs/make_notebooks.py writes of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
def test_a_script_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", script.read_text()],  # as a notebook: workers have no file to import
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout
