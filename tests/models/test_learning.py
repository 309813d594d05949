"""Every family learns: eight clips by heart, and a loss curve that refactorings must not change."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo import create_model

GOLDEN = Path(__file__).parents[1] / "golden" / "network_loss_curves.json"
FAMILIES = ["c2d_r26", "i3d_r26", "i3d_nln_r26", "slowfast_r26"]


def make(name: str, alpha: float) -> nn.Module:
    options = {"num_classes": 4, "width_per_group": 16, "width_rule": "int", "dropout_rate": 0.0}
    return create_model(name, alpha=alpha, **options)


def train(
    model: nn.Module, steps: int, lr: float, frames: int = 8
) -> Iterator[tuple[float, float]]:
    """The loss and the top-1 before each step of SGD on the same eight clips."""
    clips, labels = torch.randn(8, 3, frames, 32, 32), torch.arange(8) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    for _ in range(steps):
        scores = model(clips)
        loss = F.cross_entropy(scores, labels)
        yield loss.item(), (scores.argmax(1) == labels).float().mean().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_eight_clips_by_heart(name, alpha):
    frames = 8 if name == "slowfast_r26" else 4

    *_, (loss, top1) = train(make(name, alpha), 9, lr=0.02, frames=frames)

    assert top1 == 1.0
    assert loss < 0.05


@pytest.mark.parametrize("name", FAMILIES)
def test_twenty_steps_go_as_they_went(name):
    """The curves in tests/golden come from this code (`python tests/models/test_learning.py` writes
    them anew)."""
    torch.manual_seed(7)

    losses = [loss for loss, _ in train(make(name, 0.25), 20, lr=0.01)]

    assert losses == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=2e-3, abs=2e-3)


def write_golden() -> None:
    torch.set_num_threads(1)
    curves = {}
    for name in FAMILIES:
        torch.manual_seed(7)
        curves[name] = [round(loss, 5) for loss, _ in train(make(name, 0.25), 20, lr=0.01)]
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
