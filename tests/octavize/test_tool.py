"""`tools/complexity.py --octavize`: a row of the table in docs/octavize.md."""

import runpy
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from octvideo.cli import complexity, main
from octvideo.cli.complexity import network_of
from octvideo.errors import OctvideoError


def test_a_row_per_network(repo, monkeypatch, capsys):
    arguments = "--octavize resnet20_cifar --alpha 0.5 --input 32 32 --layers"
    monkeypatch.setattr(sys, "argv", ["complexity.py", *arguments.split()])

    runpy.run_path(str(repo / "tools" / "complexity.py"), run_name="__main__")

    header, _, row, *layers = capsys.readouterr().out.splitlines()
    assert "octave at 0.5" in header
    assert row.startswith("| resnet20_cifar | 14 of 21 | 0.04 -> 0.03 | 0.27 -> 0.27 | ")
    assert any("stem.conv: 3 -> 16 (it reads the network's input)" in line for line in layers)


def test_alpha_zero_divides_nothing(capsys):
    main(["complexity", "--octavize", "resnet20_cifar", "--alpha", "0", "--input", "32", "32"])

    header, _, row = capsys.readouterr().out.splitlines()
    assert "octave at 0 |" in header
    assert row.startswith("| resnet20_cifar | 0 of 21 | 0.04 -> 0.04 | ")


def test_both_networks_are_timed_in_2d_and_channels_last(monkeypatch, capsys):
    timed = []

    def times_of(calls, repeats):
        timed.extend(call.func for call in calls.values())
        return {name: [1.0] for name in calls}

    vanilla = nn.Sequential(
        *(nn.Conv3d(3, 32, 1), nn.Conv3d(32, 32, (1, 3, 3), padding=(0, 1, 1))),
        nn.Conv3d(32, 3, (3, 1, 1), padding=(1, 0, 0)),
    )
    monkeypatch.setattr(complexity, "interleaved", times_of)
    monkeypatch.setattr(complexity, "network_of", lambda name: (vanilla.eval(), (3, 4, 16, 16)))

    main(["complexity", "--octavize", "torchvision:r3d_18", "--alpha", "0.5"])

    assert "| torchvision:r3d_18 | 2 of 3 |" in capsys.readouterr().out
    for network in timed:
        layers = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
        assert len(layers) >= 3
        assert {layer.in_2d for layer in layers} == {"auto"}
        kernels = [layer.weight for layer in layers]
        assert all(k.is_contiguous(memory_format=torch.channels_last_3d) for k in kernels)
    assert len(timed) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet7", "torchvision:resnet7: torchvision says: Unknown model"),
        ("timm:resnet18", "timm:resnet18: timm is missing; pip install timm"),
    ],
)
def test_networks_of_other_libraries_are_taken_where_they_are_installed(name, message, monkeypatch):
    """torchvision is a stand-in here, timm is absent."""

    def get_model(name):
        if name == "resnet18":
            return nn.Conv2d(3, 3, 1)
        raise ValueError(f"Unknown model {name}\nand more")

    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    models = ModuleType("torchvision.models")
    models.get_model = get_model
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setitem(sys.modules, "timm", None)

    assert network_of("torchvision:resnet18")[1] == (3, 224, 224)
    with pytest.raises(OctvideoError, match=message):
        network_of(name)
