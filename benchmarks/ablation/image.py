"""The alpha grid on made pictures (pictures.py): how accuracy goes with alpha, and where overfitting begins.

    python benchmarks/ablation/image.py runs/ablation [--seeds 1 2 3] [--alphas 0 .5] [--sizes 500 4000]

A ResNet-8 of CIFAR's form and width 16, as many steps on each training set; other pictures for each seed. A run that
is there is not run again. Writes benchmarks/results/ablation_pictures.json and prints the tables.
"""

import argparse
import itertools
from functools import partial
from pathlib import Path

import torch
from pictures import NUM_CLASSES, TEXTURES, make_pictures
from records import Run, kept, spread, table, write_summary
from torch import Tensor, nn
from training import Examples, Recipe, accuracy, scores, train

from octvideo import create_model
from octvideo.complexity import count

RESULTS = Path(__file__).resolve().parent.parent / "results"
ALPHAS, SIZES = (0.0, 0.125, 0.25, 0.5, 0.75), (4000, 1000, 250)
RECIPE = Recipe(steps=200, batch_size=64, lr=0.3)
LOOKS = 5
TEST = 1000


def build(alpha: float) -> nn.Module:
    return create_model("resnet20_cifar", blocks=(1, 1, 1), alpha=alpha, num_classes=NUM_CLASSES)


def run(alpha: float, size: int, seed: int) -> Run:
    """Train, looking at training and test pictures LOOKS times; nothing is chosen by what is seen."""
    torch.manual_seed(seed)
    model, test = build(alpha), make_pictures(TEST, seed=1_000_000)
    examples, curve = make_pictures(size, seed), []

    def look(step: int, loss: float) -> None:
        if step % (RECIPE.steps // LOOKS) == 0:
            curve.append(
                {"step": step, "epoch": round(step * RECIPE.batch_size / size, 2), **looked(model, examples, test)}
            )

    train(model, examples, RECIPE, seed, lambda pictures, _: pictures, look)
    cost = count(model, tuple(examples.inputs.shape[1:]))
    return {
        "variant": f"{size} pictures, alpha {alpha:g}",
        "seed": seed,
        "alpha": alpha,
        "size": size,
        "top1": curve[-1]["test_top1"],
        **halves(scores(model, test.inputs), test.targets),
        "macs": cost.macs,
        "parameters": cost.parameters,
        "curve": curve,
    }


def looked(model: nn.Module, examples: Examples, test: Examples) -> dict[str, float]:
    seen = examples.share(1, min(500, len(examples)))
    (train_top1, train_loss), (test_top1, test_loss) = (accuracy(model, e.inputs, e.targets) for e in (seen, test))
    found = {"train_top1": train_top1, "train_loss": train_loss, "test_top1": test_top1, "test_loss": test_loss}
    return {name: round(value, 4) for name, value in found.items()}


def halves(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Per cent of right shapes and of right textures, each from the sum of the probabilities over the other."""
    shares = logits.softmax(1).unflatten(1, (-1, len(TEXTURES)))
    shape = shares.sum(2).argmax(1) == targets // len(TEXTURES)
    texture = shares.sum(1).argmax(1) == targets % len(TEXTURES)
    return {"shape": 100 * shape.float().mean().item(), "texture": 100 * texture.float().mean().item()}


def overfitting(runs: list[Run]) -> str:
    """Markdown: the end of training on both sets, and the epoch of the lowest test loss, the mean over the seeds."""
    lines = ["| pictures | alpha | train top-1 | test top-1 | shape | texture | lowest test loss at epoch | of |"]
    lines.append("|" + "---|" * 8)
    groups = itertools.groupby(sorted(runs, key=lambda r: (r["size"], r["alpha"])), lambda r: (r["size"], r["alpha"]))
    for (size, alpha), group in groups:
        same = list(group)
        last = [r["curve"][-1] for r in same]
        lowest = [min(r["curve"], key=lambda point: point["test_loss"])["epoch"] for r in same]
        cells = [
            *(str(size), f"{alpha:g}"),
            *(spread([point[f"{split}_top1"] for point in last]) for split in ("train", "test")),
            *(spread([r[half] for r in same]) for half in ("shape", "texture")),
            *(", ".join(f"{epoch:g}" for epoch in lowest), f"{last[0]['epoch']:g}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--alphas", type=float, nargs="+", default=ALPHAS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed, size, alpha in itertools.product(args.seeds, args.sizes, args.alphas):
        path = args.out / "pictures" / f"{size} pictures, alpha {alpha:g}, seed {seed}.json"
        runs.append(kept(path, partial(run, alpha, size, seed)))
        print(f"seed {seed}, {size} pictures, alpha {alpha:g}: top-1 {runs[-1]['top1']:.1f}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    write_summary(RESULTS / "ablation_pictures.json", runs, recipe=vars(RECIPE), test=TEST)
    for size in args.sizes:
        print(table([r for r in runs if r["size"] == size], f"{size} pictures, alpha 0"), end="\n\n")
    print(overfitting(runs))


if __name__ == "__main__":
    main()
