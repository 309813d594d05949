"""`tools/complexity.py --octavize`: a row of the table in docs/octavize.md."""

import runpy
import sys


def test_a_row_per_network(repo, monkeypatch, capsys):
    arguments = "--octavize resnet20_cifar --alpha 0.5 --input 32 32 --layers"
    monkeypatch.setattr(sys, "argv", ["complexity.py", *arguments.split()])

    runpy.run_path(str(repo / "tools" / "complexity.py"), run_name="__main__")

    header, _, row, *layers = capsys.readouterr().out.splitlines()
    assert "octave at 0.5" in header
    assert row.startswith("| resnet20_cifar | 14 of 21 | 0.04 -> 0.03 | 0.27 -> 0.27 | ")
    assert any("stem.conv: 3 -> 16 (it reads the network's input)" in line for line in layers)
