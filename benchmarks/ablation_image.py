"""The alpha grid on made pictures (ablation/pictures.py): how accuracy goes with alpha, and where
overfitting begins.

    python benchmarks/ablation_image.py runs/ablation [--seeds 1 2 3] [--networks "alpha .5"] [--sizes 300]

A ResNet-8 of CIFAR's form and width 16, as many steps on each training set; other pictures for each
seed. A run that is there is not run again: for other settings it is refused. Writes
benchmarks/results/ablation_pictures.json and prints the tables.
"""

import argparse
import itertools
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from ablation.pictures import NUM_CLASSES, TEXTURES, make_pictures
from ablation.records import Run, kept, table
from ablation.training import Examples, Recipe, accuracy, scores, train
from torch import Tensor, nn

from octvideo import create_model
from octvideo.complexity import count
from octvideo.errors import exit_on_user_error
from octvideo.report.environment import environment
from octvideo.study.statistics import spread
from octvideo.study.tables import markdown, write_runs

RESULTS = Path(__file__).resolve().parent / "results"
NETWORKS: dict[str, dict[str, Any]] = {
    "alpha 0": {},
    "alpha 0, pooled": {
        "downsample": "pool"
    },  # what octave networks do at a stride, without the octave
    "alpha .125": {"alpha": 0.125},
    "alpha .25": {"alpha": 0.25},
    "alpha .5": {"alpha": 0.5},
    "alpha .75": {"alpha": 0.75},
}
SIZES = (1000, 300)
RECIPE = Recipe(steps=300, batch_size=64, lr=0.2)
LOOKS = 6
TEST = 1000


def build(network: str) -> nn.Module:
    return create_model(
        "resnet20_cifar", blocks=(1, 1, 1), num_classes=NUM_CLASSES, **NETWORKS[network]
    )


def run(network: str, size: int, seed: int) -> Run:
    """Train, looking at training and test pictures LOOKS times; nothing is chosen by what is
    seen."""
    torch.manual_seed(seed)
    model, test = build(network), make_pictures(TEST, seed=1_000_000)
    examples, curve = make_pictures(size, seed), []

    def look(step: int, loss: float) -> None:
        if step % (RECIPE.steps // LOOKS) == 0:
            curve.append(
                {
                    "step": step,
                    "epoch": round(step * RECIPE.batch_size / size, 2),
                    **looked(model, examples, test),
                }
            )

    train(model, examples, RECIPE, seed, lambda pictures, _: pictures, look)
    cost = count(model, tuple(examples.inputs.shape[1:]))
    return {
        "variant": f"{size} pictures, {network}",
        "seed": seed,
        "network": network,
        "size": size,
        "top1": curve[-1]["test_top1"],
        **halves(scores(model, test.inputs), test.targets),
        "macs": cost.macs,
        "parameters": cost.parameters,
        "curve": curve,
    }


def looked(model: nn.Module, examples: Examples, test: Examples) -> dict[str, float]:
    seen = examples.share(1, min(500, len(examples)))
    (train_top1, train_loss), (test_top1, test_loss) = (
        accuracy(model, e.inputs, e.targets) for e in (seen, test)
    )
    found = {
        "train_top1": train_top1,
        "train_loss": train_loss,
        "test_top1": test_top1,
        "test_loss": test_loss,
    }
    return {name: round(value, 4) for name, value in found.items()}


def halves(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Per cent of right shapes and of right textures, each from the sum of the probabilities over
    the other."""
    shares = logits.softmax(1).unflatten(1, (-1, len(TEXTURES)))
    shape = shares.sum(2).argmax(1) == targets // len(TEXTURES)
    texture = shares.sum(1).argmax(1) == targets % len(TEXTURES)
    found = {"shape": shape, "texture": texture}
    return {half: round(100 * right.float().mean().item(), 2) for half, right in found.items()}


def against(variant: str) -> str:
    """The vanilla network on as many pictures."""
    return f"{variant.split(',')[0]}, alpha 0"


def overfitting(runs: list[Run]) -> str:
    """Markdown: the end of training on both sets, and the epoch of the lowest test loss, by
    seed."""
    rows = []
    for variant in dict.fromkeys(run["variant"] for run in runs):
        same = [run for run in runs if run["variant"] == variant]
        last = [run["curve"][-1] for run in same]
        lowest = [min(run["curve"], key=lambda point: point["test_loss"])["epoch"] for run in same]
        cells = [variant]
        cells += [spread(list(map(itemgetter(top1), last))) for top1 in ("train_top1", "test_top1")]
        cells += [spread(list(map(itemgetter(half), same))) for half in ("shape", "texture")]
        cells += [", ".join(f"{epoch:g}" for epoch in lowest), f"{last[0]['epoch']:g}"]
        rows.append(cells)
    return markdown(
        "network | train top-1 | test top-1 | shape | texture | lowest test loss at epoch | of",
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed, size, network in itertools.product(args.seeds, args.sizes, args.networks):
        path = args.out / "pictures" / f"{size} pictures, {network}, seed {seed}.json"
        settings = {"recipe": vars(RECIPE), "network": NETWORKS[network], "test": TEST}
        runs.append(kept(path, partial(run, network, size, seed), **settings, looks=LOOKS))
        print(f"seed {seed}, {size} pictures, {network}: top-1 {runs[-1]['top1']:.1f}", flush=True)
    head = {"recipe": vars(RECIPE), "test": TEST, "environment": environment()}
    write_runs(RESULTS / "ablation_pictures.json", head, runs)
    print(table(runs, against), overfitting(runs), sep="\n\n")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
