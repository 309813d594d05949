"""tools/make_demo_data.py as a user calls it."""

import subprocess
import sys


def test_it_writes_lists_into_the_folder(repo, tmp_path):
    command = [sys.executable, repo / "tools" / "make_demo_data.py", tmp_path / "demo", "--clips", "8", "0", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "10 clips" in result.stdout
    assert len((tmp_path / "demo" / "train.csv").read_text().splitlines()) == 8
    assert len(list((tmp_path / "demo" / "test").iterdir())) == 2
