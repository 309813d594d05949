"""The studies of cifar_studies.py on a GPU, for the networks that take a CPU days; within minutes.

    python benchmarks/cifar10_gpu.py PACK.npz --out DIR --minutes 8 deep small

Needs PyTorch, numpy and Pillow beside this repository alone, and moves as one copy: PACK.npz holds
encoded pictures: `cifar10.py pack` writes one. All pictures lie on the GPU, where they are cropped
and flipped. --jobs runs train beside each other, in the order of the seeds; DIR/epochs.jsonl gets a
line per epoch. Runs that are whole in it are not run again; one that was cut short starts anew. `cifar10.py take DIR/epochs.jsonl` puts them into the records and tables.
"""

import argparse
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_studies import PRINTED, SOUND, STUDIES, Study
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from octvideo import create_model  # noqa: E402
from octvideo.engine.training.optim import Schedule, make_optimizer, set_lr  # noqa: E402

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
PADDING = 4
OPTIONS = {"RESNET.STEM": "stem", "RESNET.STEM_POOL": "stem_pool"}


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
    """images: uint8 (N, 3, 32, 32); of training with a black border. labels: int64 (N,)."""

    images: Tensor
    labels: Tensor

    @classmethod
    def read(cls, pack: Path, split: str, device: torch.device, padding: int) -> "Pictures":
        """ "train" or "val" of a pack: encoded pictures end to end, where each ends, and labels."""
        arrays = np.load(pack, allow_pickle=False)
        data, ends = arrays[f"{split}_bytes"].tobytes(), arrays[f"{split}_ends"].tolist()
        files = (data[a:b] for a, b in zip([0, *ends], ends, strict=False))
        pixels = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(device)
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64)).to(device)
        return cls(F.pad(images, (padding,) * 4), labels)

    def crops(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Crops anywhere in the padded pictures, every second one mirrored: uint8 (N, 3, S, S)."""
        n, side = len(index), self.images.shape[-1] - 2 * PADDING
        top, left = torch.randint(2 * PADDING + 1, (2, n, 1), generator=generator)
        flip = torch.randint(2, (n, 1), generator=generator).bool()
        line = torch.arange(side)
        rows, columns = top + line, left + torch.where(flip, side - 1 - line, line)
        at = [part.to(index.device) for part in (rows, columns)]
        channels = torch.arange(3, device=index.device)
        return self.images[
            index[:, None, None, None],
            channels[None, :, None, None],
            at[0][:, None, :, None],
            at[1][:, None, None, :],
        ]


def normalized(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    scaled = (images.float() / 255 - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


def build(words: tuple[str, ...], device: torch.device) -> nn.Module:
    settings = dict(word.split("=", 1) for word in words)
    options = {OPTIONS[key]: settings[key] for key in OPTIONS if key in settings}
    model = create_model(
        settings["MODEL.ARCH"],
        alpha=float(settings["OCTCONV.ALPHA"]),
        num_classes=10,
        zero_init_final_bn=True,
        **options,
    )
    return model.to(device).to(memory_format=torch.channels_last)


def train(
    model: nn.Module, recipe: Recipe, data: Pictures, test: Pictures, seed: int
) -> Iterator[dict[str, Any]]:
    """Yields the losses and top-1 of each epoch, of the training and of the test pictures."""
    device = data.labels.device
    optimizer = make_optimizer(model, lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = len(data.labels) // recipe.batch
    warm = {"warmup": recipe.warmup, "warmup_start_lr": 0.01}
    schedule = Schedule("cosine", recipe.lr, recipe.epochs, **warm)
    for epoch in range(recipe.epochs):
        start = time.time()
        generator = torch.Generator().manual_seed((seed << 32) + epoch)
        order = torch.randperm(len(data.labels), generator=generator).to(device)
        sums = torch.zeros(2, device=device)
        model.train()
        for step in range(steps):
            index = order[step * recipe.batch : (step + 1) * recipe.batch]
            set_lr(optimizer, schedule.lr(epoch + step / steps))
            optimizer.zero_grad(set_to_none=True)
            logits = forward(model, data.crops(index, generator))
            loss = F.cross_entropy(logits, data.labels[index])
            loss.backward()
            optimizer.step()
            sums += hits_and_loss(logits.detach(), data.labels[index])
        hits, loss_sum = (sums / (steps * recipe.batch)).tolist()
        seconds = time.time() - start
        yield {
            "epoch": epoch + 1,
            "train": [round(loss_sum, 4), round(100 * hits, 2)],
            "test": evaluate(model, test),
            "seconds": round(seconds, 2),
        }


def forward(model: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast(images.device.type, torch.bfloat16):
        return model(normalized(images)).float()


def hits_and_loss(logits: Tensor, labels: Tensor) -> Tensor:
    hits = (logits.argmax(1) == labels).sum()
    return torch.stack([hits, F.cross_entropy(logits, labels, reduction="sum")])


@torch.inference_mode()
def evaluate(model: nn.Module, test: Pictures) -> list[float]:
    """Mean loss and top-1 in per cent."""
    model.eval()
    sums = torch.zeros(2, device=test.labels.device)
    for images, labels in zip(test.images.split(500), test.labels.split(500), strict=True):
        sums += hits_and_loss(forward(model, images), labels)
    hits, loss = (sums / len(test.labels)).tolist()
    return [round(loss, 4), round(100 * hits, 2)]


def run(name: str, row: str, seed: int, pack: Path, out: Path) -> None:
    """One run in this process; a line per epoch."""
    study = STUDIES[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    data = Pictures.read(pack, "train", device, PADDING)
    test = Pictures.read(pack, "val", device, 0)
    torch.manual_seed(seed)
    recipe = RECIPES[study.recipe].changed(study.settings)
    about = {"study": name, "row": row, "seed": seed, "epochs": recipe.epochs, "machine": machine}
    for line in train(build(study.rows[row], device), recipe, data, test, seed):
        with (out / "epochs.jsonl").open("a") as file:
            # The newline comes first: it also ends a line that a kill cut short.
            file.write("\n" + json.dumps(about | line))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Without lines that a kill cut short. (octvideo.files does this too, but needs iopath.)"""
    for line in path.read_text().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            yield json.loads(line)


def missing(studies: list[Study], lines: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Study, row and seed of the runs that are not whole: first seeds first."""
    done = {
        (line["study"], line["row"], line["seed"])
        for line in lines
        if line["epoch"] == line["epochs"]
    }
    for study in studies:
        for seed, row in product(study.seeds, study.rows):
            if (study.name, row, seed) not in done:
                yield [study.name, row, str(seed)]


def run_all(names: list[str], pack: Path, out: Path, jobs: int, minutes: float) -> None:
    deadline = time.time() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    lines = list(read_lines(out / "epochs.jsonl"))
    waiting = list(missing([STUDIES[name] for name in names], lines))
    total, under_way = len(waiting), dict[str, subprocess.Popen[bytes]]()
    while (waiting or under_way) and time.time() < deadline:
        for title in [title for title, child in under_way.items() if child.poll() is not None]:
            code = under_way.pop(title).returncode
            print(f"{title}: {'done' if not code else f'ended with status {code}'}", flush=True)
        while waiting and len(under_way) < jobs:
            words = waiting.pop(0)
            command = [sys.executable, __file__, str(pack), "--out", str(out), "--run", *words]
            under_way[", ".join(words)] = subprocess.Popen(command)
        time.sleep(0.2)
    for child in under_way.values():
        child.kill()
    left = len(waiting) + len(under_way)
    print(f"{total - left} of {total} runs ended; the same command does the rest", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8, help="no longer than this")
    parser.add_argument("--jobs", type=int, default=6, help="runs beside each other (6)")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.run:
        study, row, seed = args.run
        run(study, row, int(seed), args.pack, args.out)
        return
    unknown = sorted(set(args.studies) - STUDIES.keys())
    if unknown or not args.studies:
        parser.error(f"{', '.join(unknown) or 'no study'}: give some of {', '.join(STUDIES)}")
    run_all(args.studies, args.pack, args.out, args.jobs, args.minutes)


if __name__ == "__main__":
    main()
