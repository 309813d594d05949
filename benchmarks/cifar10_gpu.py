"""The studies of cifar_studies.py on a GPU, for the networks that take a CPU days; within minutes.

    python benchmarks/cifar10_gpu.py PACK.npz --out DIR --minutes 8 deep small

Needs PyTorch, numpy and Pillow beside this repository alone, and moves as one copy: PACK.npz holds
encoded pictures: `cifar10.py pack` writes one. All pictures lie on the GPU, where they are cropped
and flipped, and a step is one CUDA graph (graph_training.py). --jobs runs train beside each other,
in the order of the seeds: where the multi-process service runs (nvidia-cuda-mps-control -d), really
at the same time. DIR/epochs.jsonl gets a line per epoch. Runs that are whole in it are not run
again; one that was cut short goes on from its file in DIR, if that is still there. `cifar10.py take
DIR/epochs.jsonl` puts them into the records and tables.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_studies import MEAN, PRINTED, SOUND, STD, STUDIES, Study
from graph_training import Trainee, Work
from packs import decoded
from side_by_side import (
    Key,
    machine,
    read_lines,
    run_all,
    save,
    state_file,
    train,
    weights_file,
)
from torch import Tensor, nn
from torch.nn import functional as F

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from octvideo import create_model  # noqa: E402
from octvideo.engine.training.optim import Schedule, make_optimizer  # noqa: E402

PADDING = 4
TEST_BATCH = 2000
OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "RESNET.STEM": ("stem", str),
    "RESNET.STEM_POOL": ("stem_pool", str),
    "RESNET.WIDTH_PER_GROUP": ("width_per_group", int),
    "OCTCONV.DOWNSAMPLE": ("downsample", str),
    "OCTCONV.STAGES": ("stages", json.loads),
}


@dataclass(frozen=True)
class Recipe:
    """What the file in configs/recipes says (a test compares them)."""

    batch: int
    lr: float
    epochs: int
    warmup: float
    weight_decay: float

    def changed(self, settings: tuple[str, ...]) -> "Recipe":
        words = dict(word.split("=", 1) for word in settings)
        epochs = int(words.get("SOLVER.MAX_EPOCH", self.epochs))
        warmup = float(words.get("SOLVER.WARMUP_EPOCHS", self.warmup))
        return Recipe(self.batch, self.lr, epochs, warmup, self.weight_decay)


RECIPES = {SOUND: Recipe(128, 0.1, 30, 1.0, 5e-4), PRINTED: Recipe(64, 0.001, 90, 0.0, 1e-4)}


@dataclass(frozen=True)
class Pictures:
    """images: uint8 (N, 3, 32, 32); of training with a black border. labels: int64 (N,). mean and
    std: (3, 1, 1), of pixels from 0 to 255. upscale: a network sees each pixel so many times, in
    between interpolated."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    upscale: int = 1

    @classmethod
    def read(
        cls, pixels: Path, split: str, device: torch.device, padding: int, upscale: int = 1
    ) -> "Pictures":
        """ "train" or "val" of what `unpack` wrote."""
        arrays = np.load(pixels, allow_pickle=False)
        images = torch.from_numpy(arrays[split]).to(device).permute(0, 3, 1, 2)
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64)).to(device)
        mean, std = (255 * torch.tensor(x, device=device).view(3, 1, 1) for x in (MEAN, STD))
        return cls(F.pad(images, (padding,) * 4), labels, mean, std, upscale)

    def normalized(self, images: Tensor) -> Tensor:
        scaled = (images.float() - self.mean) / self.std
        if self.upscale > 1:
            scaled = F.interpolate(scaled, scale_factor=self.upscale, mode="bilinear")
        return scaled.contiguous(memory_format=torch.channels_last)

    def draw(self, batch: int, epoch: int) -> Tensor:
        """Which pictures a step takes, where they are cropped and whether mirrored: int64 (steps,
        batch, 4). All seeds draw the same, and differ in their initial weights."""
        generator = torch.Generator().manual_seed(epoch)
        steps = len(self.labels) // batch
        order = torch.randperm(len(self.labels), generator=generator)[: steps * batch]
        corner = torch.randint(2 * PADDING + 1, (2, steps * batch), generator=generator)
        flip = torch.randint(2, (steps * batch,), generator=generator)
        return torch.stack([order, *corner, flip], 1).view(steps, batch, 4)

    def crops(self, choices: Tensor) -> Tensor:
        """The crops in the padded pictures that choices (N, 4) name: uint8 (N, 3, S, S)."""
        index, top, left, flip = choices.unbind(1)
        side = self.images.shape[-1] - 2 * PADDING
        line = torch.arange(side, device=choices.device)
        columns = left[:, None] + torch.where(flip[:, None] > 0, side - 1 - line, line)
        channels = torch.arange(3, device=choices.device)
        return self.images[
            index[:, None, None, None],
            channels[None, :, None, None],
            (top[:, None] + line)[:, None, :, None],
            columns[:, None, None, :],
        ]


def unpack(pack: Path, path: Path) -> None:
    """Decode a pack (encoded pictures end to end, where each ends, and labels), once for all
    runs."""
    arrays, pixels = np.load(pack, allow_pickle=False), {}
    for split in ("train", "val"):
        images = list(decoded(arrays[f"{split}_bytes"], arrays[f"{split}_ends"]))
        pixels |= {split: np.stack(images), f"{split}_labels": arrays[f"{split}_labels"]}
    np.savez(path, **pixels)


def build(words: tuple[str, ...], device: torch.device) -> nn.Module:
    settings = dict(word.split("=", 1) for word in words)
    options = {
        name: read(settings[key]) for key, (name, read) in OPTIONS.items() if key in settings
    }
    model = create_model(
        settings["MODEL.ARCH"],
        alpha=float(settings["OCTCONV.ALPHA"]),
        num_classes=10,
        zero_init_final_bn=True,
        **options,
    )
    return model.to(device).to(memory_format=torch.channels_last)


def work(recipe: Recipe, data: Pictures, test: Pictures, seed: int) -> Work:
    schedule = Schedule(
        "cosine", recipe.lr, recipe.epochs, warmup=recipe.warmup, warmup_start_lr=0.01
    )
    parts = zip(test.images.split(TEST_BATCH), test.labels.split(TEST_BATCH), strict=True)
    return Work(
        recipe.epochs,
        partial(data.draw, recipe.batch),
        lambda choices: (data.normalized(data.crops(choices)), data.labels[choices[:, 0]]),
        [(partial(test.normalized, images), labels) for images, labels in parts],
        schedule.lr,
    )


def trainee(
    words: tuple[str, ...],
    recipe: Recipe,
    data: Pictures,
    test: Pictures,
    seed: int,
    compiled: bool = False,
) -> Trainee:
    torch.manual_seed(seed)
    model = build(words, data.labels.device)
    optimizer = make_optimizer(model, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return Trainee(model, optimizer, work(recipe, data, test, seed), compiled)


def run(name: str, row: str, seed: int, pixels: Path, out: Path, compiled: bool = False) -> None:
    """One run in this process; a line per epoch."""
    study = STUDIES[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = Pictures.read(pixels, "train", device, PADDING, study.upscale)
    test = Pictures.read(pixels, "val", device, 0, study.upscale)
    recipe = RECIPES[study.recipe].changed(study.settings)
    about = {"study": name, "row": row, "seed": seed, "epochs": recipe.epochs}
    learner = trainee(study.rows[row], recipe, data, test, seed, compiled)
    key = (name, row, str(seed))
    train(learner, key, about | {"machine": machine()}, out)
    if study.keep:
        save(learner.model.state_dict(), weights_file(out, key))
    state_file(out, key).unlink()


def missing(studies: list[Study], lines: list[dict[str, Any]]) -> Iterator[Key]:
    """Study, row and seed of the runs that are not whole: first seeds first."""
    done = {
        (line["study"], line["row"], line["seed"])
        for line in lines
        if line["epoch"] == line["epochs"]
    }
    for study in studies:
        for seed, row in product(study.seeds, study.rows):
            if (study.name, row, seed) not in done:
                yield study.name, row, str(seed)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8, help="no longer than this")
    parser.add_argument("--jobs", type=int, default=12, help="runs beside each other (12)")
    parser.add_argument("--compile", action="store_true", help="by torch.compile: pays with AMX")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.run:
        study, row, seed = args.run
        run(study, row, int(seed), args.pack, args.out, args.compile)
        return 0
    unknown = sorted(set(args.studies) - STUDIES.keys())
    if unknown or not args.studies:
        parser.error(f"{', '.join(unknown) or 'no study'}: give some of {', '.join(STUDIES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    pixels = args.out / "pixels.npz"
    unpack(args.pack, pixels)
    left = missing(
        [STUDIES[name] for name in args.studies], list(read_lines(args.out / "epochs.jsonl"))
    )
    options = ["--compile"] if args.compile else []
    command = [sys.executable, __file__, str(pixels), "--out", str(args.out), *options]
    return run_all(list(left), command, args.jobs, args.minutes)


if __name__ == "__main__":
    sys.exit(main())
