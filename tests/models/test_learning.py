"""Every family learns: eight clips by heart, and a loss curve that refactorings must not change."""

import json
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


def train(model: nn.Module, steps: int, lr: float) -> tuple[list[float], float]:
    """The loss before each step of SGD on the same eight clips, and the top-1 that is reached on
    them."""
    clips, labels = torch.randn(8, 3, 8, 32, 32), torch.arange(8) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return losses, (model(clips).argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_eight_clips_by_heart(name, alpha):
    _, top1 = train(make(name, alpha), 25, lr=0.02)

    assert top1 == 1.0


@pytest.mark.parametrize("name", FAMILIES)
def test_twenty_steps_go_as_they_went(name):
    """The curves in tests/golden come from this code (`python tests/models/test_learning.py` writes
    them anew)."""
    torch.manual_seed(7)

    losses, _ = train(make(name, 0.25), 20, lr=0.01)

    assert losses == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=2e-3, abs=2e-3)


def write_golden() -> None:
    torch.set_num_threads(1)
    curves = {}
    for name in FAMILIES:
        torch.manual_seed(7)
        curves[name] = [round(loss, 5) for loss in train(make(name, 0.25), 20, lr=0.01)[0]]
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
