"""The octave's own questions on small clips: every variant of ablation/variants.py, trained alike.

    python benchmarks/ablation_video.py runs/ablation [--seeds 1 2 3] [--variants octave "max pool"]
    python benchmarks/ablation_video.py runs/ablation --clips ../shared/data/hand_gesture --train 0 \
        --steps 600 --crop 64 88 --variants "alpha 0" octave "without both"

Without --clips on the demo's clips (octvideo.data.prepare.demo), whose classes only motion tells
apart and whose test has textures of other kinds. Made for one CPU core: I3D-26 of width 16, 8
frames, 160 clips to train on, other ones for each seed. A run that is there is not run again: for
other settings it is refused. Writes benchmarks/results/ablation_<name of the clips>.json and prints
the table.
"""

import argparse
import itertools
from functools import partial
from pathlib import Path

import torch
from ablation.clips import load_clips, middle, vary
from ablation.records import Run, kept, table
from ablation.training import Examples, Recipe, accuracy, train
from ablation.variants import SHARED, VARIANTS, build

from octvideo.complexity import count
from octvideo.errors import exit_on_user_error
from octvideo.report.environment import environment
from octvideo.study.tables import write_runs

RESULTS = Path(__file__).resolve().parent / "results"


def run(
    variant: str,
    seed: int,
    data: dict[str, Examples],
    size: tuple[int, int],
    recipe: Recipe,
    weights: Path,
) -> Run:
    """Train, and look at the test clips once, at the end."""
    torch.manual_seed(seed)
    model = build(variant, 1 + int(data["test"].targets.max()))
    losses: list[float] = []
    train(
        model,
        data["train"],
        recipe,
        seed,
        partial(vary, size=size),
        lambda _, loss: losses.append(loss),
    )
    top1, loss = accuracy(model, middle(data["test"].inputs, size), data["test"].targets)
    torch.save(model.state_dict(), weights)
    cost = count(model, (3, 8, *size))
    return {
        "variant": variant,
        "seed": seed,
        "top1": round(top1, 2),
        "test_loss": round(loss, 4),
        "train_loss": round(sum(losses[-20:]) / len(losses[-20:]), 4),
        "macs": cost.macs,
        "parameters": cost.parameters,
    }


def against(variant: str) -> str:
    return VARIANTS[variant].against


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the runs and the decoded clips")
    parser.add_argument(
        "--clips", type=Path, help="a folder with train.csv and test.csv; default: made ones"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--train", type=int, default=160, help="how many clips to train on; 0: all")
    parser.add_argument("--steps", type=int, default=100, help="of 16 clips")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--crop", type=int, nargs=2, default=(64, 64), metavar=("HEIGHT", "WIDTH"))
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    name = args.clips.resolve().name if args.clips else "demo"
    folder, size = args.out / name, tuple(args.crop)
    data = load_clips(args.clips, folder / "clips.npz")
    recipe = Recipe(args.steps, 16, args.lr)
    runs = []
    for seed, variant in itertools.product(args.seeds, args.variants):
        path = folder / f"{variant}, seed {seed}.json"
        part = data | {"train": data["train"].share(seed, args.train)} if args.train else data
        begin = partial(run, variant, seed, part, size, recipe, path.with_suffix(".pth"))
        of_variant = {"name": VARIANTS[variant].name, **SHARED, **VARIANTS[variant].options}
        settings = {"train": args.train, "crop": size, "network": of_variant}
        runs.append(kept(path, begin, recipe=vars(recipe), **settings))
        print(f"seed {seed}, {variant}: top-1 {runs[-1]['top1']:.1f}", flush=True)
    clips = {"train": args.train or len(data["train"]), "test": len(data["test"])}
    head = {"clips": clips, "crop": size, "recipe": vars(recipe), "environment": environment()}
    write_runs(RESULTS / f"ablation_{name}.json", head, runs)
    print(table(runs, against))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
