"""The studies of clip_studies.py, on a GPU or a CPU.

    python benchmarks/clips_gpu.py PACKS --images CIFAR --imagenet resnet50.pth --out DIR --minutes 8 gestures

PACKS is a folder of what `clips.py pack` writes, CIFAR the --out of cifar10_gpu.py, where the study
"miniature" leaves the weights that rows start from; a run waits for its own. All clips lie on the
device, and a step is one CUDA graph (graph_training.py). DIR/epochs.jsonl gets a line per epoch, one
before them with what a linear classifier makes of the features that a run starts with, and one
behind them with the test clips in other orders of their frames. Runs that are whole in it are not run
again; one that was cut short goes on. Needs PyTorch, numpy, Pillow, PyYAML, iopath and safetensors.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clip_studies import NETWORKS, ORDERS, STUDIES, Row, Study, build
from graph_training import Trainee, Work, hits_and_loss, loss_and_top1
from numpy.typing import NDArray
from packs import decoded
from side_by_side import (
    Key,
    machine,
    read_lines,
    run_all,
    state_file,
    train,
    weights_file,
    write_line,
)
from torch import Tensor, nn

from octvideo import create_model
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.engine.linear import fit_linear
from octvideo.engine.training.optim import Schedule, make_optimizer
from octvideo.models.network import pooled_features
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.image_weights import read_image_weights
from octvideo.weights.inflate import inflate
from octvideo.weights.sort_channels import smoothest_last

TEST_BATCH, SORTED_BY = 16, 32


def unpack(pack: Path, path: Path) -> None:
    """Decode a pack (JPEG files end to end, where each ends, labels and parts), once for all runs."""
    arrays = np.load(pack, allow_pickle=False)
    frames = np.stack(list(decoded(arrays["bytes"], arrays["ends"])))
    videos = frames.reshape(len(arrays["labels"]), -1, *frames.shape[1:])
    np.savez(path, frames=videos, labels=arrays["labels"], parts=arrays["parts"])


@dataclass(frozen=True)
class Clips:
    """videos: uint8 (N, F, H, W, 3), frames evenly spaced over each. labels, parts: int64 (N,).
    crop: side of what a network sees; frames: how many of the F it sees, evenly spaced.
    mean, std: by color, of pixels from 0 to 255."""

    videos: Tensor
    labels: Tensor
    parts: Tensor
    crop: int
    frames: int
    mean: Tensor
    std: Tensor

    @classmethod
    def read(cls, path: Path, device: torch.device, crop: int, row: Row) -> "Clips":
        """What the network of a row sees."""
        arrays = np.load(path, allow_pickle=False)
        found = (torch.from_numpy(arrays[name]) for name in ("frames", "labels", "parts"))
        videos, labels, parts = (array.to(device) for array in found)
        frames = NETWORKS[row.network].frames
        mean, std = (255 * torch.tensor(x, device=device) for x in row.normalization)
        return cls(videos, labels.long(), parts.long(), crop, frames, mean, std)

    def numbers(self, part: int) -> tuple[Tensor, Tensor]:
        """Of the videos to train on, and to test on."""
        tested = self.parts == part
        return tested.logical_not().nonzero()[:, 0], tested.nonzero()[:, 0]

    @property
    def rooms(self) -> tuple[int, int, int]:
        """How many places a clip has in a video: first frames, rows and columns."""
        _, frames, height, width, _ = self.videos.shape
        return frames // self.frames, height - self.crop + 1, width - self.crop + 1

    def draw(self, numbers: Tensor, batch: int, epoch: int) -> Tensor:
        """Which videos a step takes, and where: int64 (steps, batch, 4). All seeds draw the same, and
        differ in their initial weights."""
        generator = torch.Generator().manual_seed(epoch)
        steps = len(numbers) // batch
        order = numbers[torch.randperm(len(numbers), generator=generator)[: steps * batch]]
        places = [torch.randint(room, order.shape, generator=generator) for room in self.rooms]
        return torch.stack([order, *places], 1).view(steps, batch, 4)

    def middle(self, numbers: Tensor) -> Tensor:
        """The place in the middle of each of these videos: (N, 4)."""
        places = [torch.full_like(numbers, room // 2) for room in self.rooms]
        return torch.stack([numbers, *places], 1)

    def at(self, choices: Tensor, order: Tensor | None = None) -> Tensor:
        """The clips that choices (N, 4) name, normalized: float (N, 3, T, S, S). order: of frames."""
        video, first, top, left = choices[..., None].unbind(1)
        line = torch.arange(self.crop, device=choices.device)
        frame = torch.arange(self.frames, device=choices.device)
        if order is not None:
            frame = frame[order]
        found = self.videos[
            video[:, :, None, None],
            (first + frame * self.rooms[0])[:, :, None, None],
            (top + line)[:, None, :, None],
            (left + line)[:, None, None, :],
        ]
        return ((found.float() - self.mean) / self.std).permute(0, 4, 1, 2, 3)

    def order(self, name: str) -> Tensor:
        """Of ORDERS: the frames that are shown, one after the other."""
        frames = torch.arange(self.frames, device=self.labels.device)
        if name == "reversed":
            return frames.flip(0)
        if name == "one frame":
            return torch.full_like(frames, self.frames // 2)
        generator = torch.Generator().manual_seed(0)
        return torch.randperm(self.frames, generator=generator).to(frames.device)


def image_weights(row: Row, path: Path) -> tuple[dict[str, Tensor], Assumptions]:
    """What a row starts from, and what it assumes."""
    if row.start == "imagenet":
        found = read_image_weights(Checkpoint.read(str(path)))
        return found.state, found.assumes
    alpha = row.alpha if row.start == "image" else 0.0
    own = NETWORKS[row.network].options
    options = {key: own[key] for key in ("width_per_group", "stages", "downsample") if key in own}
    if row.start == "pooled_divided":
        options["downsample"] = "pool"
    with torch.device("meta"):
        image = create_model("resnet26", alpha=alpha, num_classes=10, **options)
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state, Assumptions.of(image, InputSpec(*row.normalization))


def fill(model: nn.Module, row: Row, path: Path, clips: Tensor) -> list[str]:
    """Start from image weights; the lines say what was inflated and split. clips: that sort the
    channels of weights that are divided."""
    state, assumes = image_weights(row, path)
    if row.is_divided:
        state = smoothest_last(state, model, clips, assumes)
    return inflate(state, model, assumes).lines()


def trainee(
    study: Study, row: Row, part: int, seed: int, clips: Clips, weights: Path | None
) -> Trainee:
    torch.manual_seed(seed)
    train_ids, test_ids = clips.numbers(part)
    device = clips.labels.device
    model = build(row, int(clips.labels.max()) + 1, torch.device("cpu"))
    if weights:
        some = clips.middle(train_ids[:: max(len(train_ids) // SORTED_BY, 1)])
        fill(model, row, weights, clips.at(some).cpu())
    model = model.to(device, memory_format=torch.channels_last_3d)
    optimizer = make_optimizer(
        model,
        method="adamw",
        lr=study.lr,
        weight_decay=study.weight_decay,
        zero_decay_1d=True,
    )
    for group in optimizer.param_groups:
        group["capturable"], group["fused"] = device.type == "cuda", True
    schedule = Schedule("cosine", study.lr, study.epochs, warmup=1.0)
    work = Work(
        study.epochs,
        partial(clips.draw, train_ids.cpu(), study.batch),
        lambda choices: (clips.at(choices), clips.labels[choices[:, 0]]),
        [
            (partial(clips.at, clips.middle(ids)), clips.labels[ids])
            for ids in test_ids.split(TEST_BATCH)
        ],
        schedule.lr,
    )
    return Trainee(model, optimizer, work)


@torch.no_grad()
def pooled(model: nn.Module, clips: Clips, ids: Tensor) -> NDArray[np.float32]:
    """(N, D): what the classifier sees of the middle clip of these videos."""
    places = clips.middle(ids).split(TEST_BATCH)
    return torch.cat([pooled_features(model.eval(), clips.at(x)) for x in places]).cpu().numpy()


def probe(model: nn.Module, clips: Clips, part: int) -> float:
    """Top-1 in per cent of a linear classifier on the features as they are; every fifth video to
    train on chooses its penalty."""
    train_ids, test_ids = clips.numbers(part)
    fifth = torch.arange(len(train_ids), device=train_ids.device) % 5 == 0
    groups = (train_ids[~fifth], train_ids[fifth], test_ids)
    fitted, chosen, test = (pooled(model, clips, ids) for ids in groups)
    labels = [clips.labels[ids].cpu().numpy() for ids in groups]
    classes = int(clips.labels.max()) + 1
    linear = fit_linear(fitted, labels[0], chosen, labels[1], num_classes=classes)
    hits = (test @ linear.weight.T + linear.bias).argmax(1) == labels[2]
    return round(100 * float(hits.mean()), 2)


@torch.no_grad()
def tested_in(order: Tensor, learner: Trainee, clips: Clips, part: int) -> list[float]:
    """Loss and top-1 of the test clips, their frames in this order."""
    _, ids = clips.numbers(part)
    learner.model.eval()
    sums = torch.zeros(2, device=clips.labels.device)
    for some in ids.split(TEST_BATCH):
        with learner.autocast():
            logits = learner.model(clips.at(clips.middle(some), order))
        sums += hits_and_loss(logits.float(), clips.labels[some])
    return loss_and_top1(sums.cpu() / len(ids))


def run(key: Key, out: Path, weights: Path | None) -> None:
    """One run in this process: a line with the probe, one per epoch, and one with the orders."""
    study, row = STUDIES[key[0]], row_of(key)
    part, seed = int(key[2]), int(key[3])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clips = Clips.read(out / f"{study.videos}.npz", device, study.crop, row)
    about = {"study": study.name, "row": row.name, "part": part, "seed": seed}
    about |= {"epochs": study.epochs, "machine": machine()}
    learner = trainee(study, row, part, seed, clips, weights)
    if weights and not state_file(out, key).is_file():
        write_line(out / "epochs.jsonl", about | {"probe": probe(learner.model, clips, part)})
    train(learner, key, about, out)
    orders = {name: tested_in(clips.order(name), learner, clips, part) for name in ORDERS}
    write_line(out / "epochs.jsonl", about | {"videos": int((clips.parts == part).sum()), **orders})
    state_file(out, key).unlink()


def row_of(key: Key) -> Row:
    return next(row for row in STUDIES[key[0]].rows if row.name == key[1])


def needs(key: Key, images: Path | None, imagenet: Path | None) -> Path | None:
    """The weights that a run starts from. A run of each seed has an image network of its own."""
    row = row_of(key)
    if row.start == "imagenet":
        if imagenet is None:
            sys.exit(f"error: {row.name}: say with --imagenet where the ResNet-50 is")
        return imagenet
    if row.image_row and images is None:
        sys.exit(f"error: {row.name}: say with --images where its weights are")
    if row.image_row and images:
        return weights_file(images, ("miniature", row.image_row, key[3]))
    return None


def key_of(line: Mapping[str, Any]) -> Key:
    return line["study"], line["row"], str(line["part"]), str(line["seed"])


def missing(studies: list[Study], lines: list[dict[str, Any]]) -> Iterator[Key]:
    """Study, row, part and seed of the runs that have no last line: first seeds first, and a row
    with all its parts."""
    done = {key_of(line) for line in lines if ORDERS[0] in line}
    for study in studies:
        for seed, row, part in product(study.seeds, study.rows, study.parts):
            key = (study.name, row.name, str(part), str(seed))
            if key not in done:
                yield key


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packs", type=Path)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--images", type=Path, help="--out of cifar10_gpu.py")
    parser.add_argument("--imagenet", type=Path, help="the weights of a ResNet-50")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8, help="no longer than this")
    parser.add_argument("--jobs", type=int, default=12, help="runs beside each other (12)")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.run:
        key = tuple(args.run)
        run(key, args.out, needs(key, args.images, args.imagenet))
        return 0
    unknown = sorted(set(args.studies) - STUDIES.keys())
    if unknown or not args.studies:
        parser.error(f"{', '.join(unknown) or 'no study'}: give some of {', '.join(STUDIES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    studies = [STUDIES[name] for name in args.studies]
    for videos in {study.videos for study in studies}:
        unpack(args.packs / f"{videos}.npz", args.out / f"{videos}.npz")
    left = list(missing(studies, list(read_lines(args.out / "epochs.jsonl"))))
    waits = {key: path for key in left if (path := needs(key, args.images, args.imagenet))}
    command = [sys.executable, __file__, str(args.packs), "--out", str(args.out)]
    command += ["--images", str(args.images)] if args.images else []
    command += ["--imagenet", str(args.imagenet)] if args.imagenet else []
    return run_all(left, command, args.jobs, args.minutes, waits)


if __name__ == "__main__":
    sys.exit(main())
