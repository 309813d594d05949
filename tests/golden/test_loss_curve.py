"""Twenty training steps with a fixed seed give the losses that they always gave: a refactoring
changed nothing.

`python tests/golden/test_loss_curve.py` writes the curve anew; do so only when training is meant to
change.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))
import tiny

# Written by this program on the CPU with torch 2.13, one thread: mean loss and gradient norm of
# each step.
CURVE = Path(__file__).with_name("tiny_loss_curve.json")


def train_twenty_steps(folder):
    tiny.make_trainer(
        folder, max_epoch=99, max_iter=20, log_period=1, ema_decay=0.9, clip_grad_norm=0.7
    ).train()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[r["loss"], r["grad_norm"]] for r in records if r["_type"] == "train_iter"]


def test_the_loss_curve_is_the_golden_one(tmp_path):
    curve = train_twenty_steps(tmp_path)

    golden = json.loads(CURVE.read_text())
    assert len(curve) == len(golden) == 20
    for step, (values, expected) in enumerate(zip(curve, golden, strict=True)):
        assert values == pytest.approx(expected, rel=1e-4), f"step {step}"


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    CURVE.write_text(json.dumps(train_twenty_steps(Path(tempfile.mkdtemp())), indent=1) + "\n")
