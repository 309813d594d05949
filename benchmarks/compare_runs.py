"""Are the output folders of two runs the same, to the bit?"""

from pathlib import Path

import torch

RESULTS = ("results.json", "predictions.csv", "scores.npz")


def same(a: object, b: object) -> bool:
    """Equality of nested plain values and tensors, tensors to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished output folders; the configs name different folders and are
    left out."""
    newest = [
        sorted((folder / "checkpoints").glob("checkpoint_epoch_*.pyth"))[-1]
        for folder in (one, other)
    ]
    best = [folder / "checkpoints" / "best.pyth" for folder in (one, other)]
    found = []
    for name, paths in (("last checkpoint", newest), ("best.pyth", best)):
        states = [torch.load(path, weights_only=True) for path in paths if path.exists()]
        if len(states) == 1:
            found.append(f"{name} exists once only")
        if len(states) == 2:
            found += [
                f"{name}: {key}"
                for key in states[0]
                if key != "cfg" and not same(states[0][key], states[1][key])
            ]
    if (one / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes():
        found.append("metrics.jsonl")
    return found


def different_results(one: Path, other: Path) -> list[str]:
    """Which files of a test's results differ."""
    return [name for name in RESULTS if (one / name).read_bytes() != (other / name).read_bytes()]
