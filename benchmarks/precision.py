"""fp32, bf16 and int8 on this CPU: times in one interleaved run, and what a test list scores beside
them.

    python benchmarks/precision.py times --clips ../shared/data/egogestar
    python benchmarks/precision.py accuracy ../shared/data/egogestar --weights resnet50.pth --alpha 0 .5
    python benchmarks/precision.py optimize [--alpha .1]     CPU seconds of a first optimize

times: I3D R50, 8 x 224 x 224, one clip, one thread, beside pytorchvideo's in eager fp32. The clock
is the CPU time of this process, since other programs may share the machine; the table has the
fastest of the rounds, their median, and the middle half. Graphs stay in --keep, so a second run
measures at once.

accuracy: a linear classifier is fitted to the pooled features of train.csv's middle clips (image
weights, inflated), and test.csv is scored in each precision by `Recognizer.optimize`. int8 is
calibrated on 16 training clips, and checked on 16 that were left out of the fit: on clips that were
fitted it looks better than it is.

--finetune EPOCHS instead: all batch norms get the statistics of the training clips, then res5 and a
new classifier are trained, with the maps of res4 (of each clip and of its mirror image) computed
once. The layers before res5 keep the image weights.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from untrained import preprocessing

from octvideo import create_model
from octvideo.complexity import align
from octvideo.data.lists.video_list import read_list
from octvideo.deploy.engines import optimize
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.openvino import OpenVINO, convert, convert_low_precision
from octvideo.deploy.precision import quantized
from octvideo.deploy.pytorchvideo import hub_model
from octvideo.engine.distributed import Processes
from octvideo.engine.training.precise_bn import measure_bn_statistics
from octvideo.errors import OctvideoError
from octvideo.layers import OctTensor
from octvideo.layers.resize import merge
from octvideo.recognizer import Recognizer

Call = Callable[[torch.Tensor], torch.Tensor]
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    times = commands.add_parser("times")
    times.add_argument("--clips", type=Path, help="a folder with train.csv, to calibrate int8 on")
    times.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.1, 0.5])
    times.add_argument("--precision", nargs="+", default=["fp32", "bf16", "int8"])
    times.add_argument("--rounds", type=int, default=11)
    times.add_argument("--keep", type=Path, help="a folder for the graphs")
    times.set_defaults(run=measure_times)
    accuracy = commands.add_parser("accuracy")
    accuracy.add_argument("data", type=Path, help="a folder with train.csv, test.csv")
    accuracy.add_argument("--weights", required=True, help="of an ImageNet ResNet-50")
    accuracy.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.5])
    accuracy.add_argument("--size", type=int, default=112)
    accuracy.add_argument("--finetune", type=int, default=0, metavar="EPOCHS")
    accuracy.set_defaults(run=measure_accuracy)
    first = commands.add_parser("optimize")
    first.add_argument("--alpha", type=float, nargs="+", default=[0.1])
    first.set_defaults(run=measure_optimize)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


def measure_optimize(args: argparse.Namespace) -> None:
    os.environ["OCTVIDEO_CACHE"] = ""
    for alpha in args.alpha:
        model, x = create_model("i3d_r50", alpha=alpha).eval(), torch.randn(1, 3, 8, SIZE, SIZE)
        started = time.process_time()
        optimize(model, x, engine="openvino")
        print(f"alpha {alpha:g}: {time.process_time() - started:.1f} CPU s")


def measure_times(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, SIZE, SIZE)
    calls: dict[str, Call] = {"pytorchvideo, eager fp32": hub_model("i3d_r50").eval()}
    for alpha in args.alpha:
        for precision in args.precision:
            name = f"alpha {alpha:g}, {precision}"
            calls[name] = graph(alpha, precision, x, args)
            print(f"{name}: made, load {os.getloadavg()[0]:.1f}", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for turn in range(1 + args.rounds):
            for name, call in calls.items():
                started = time.process_time()
                call(x)
                if turn:
                    seconds[name].append(time.process_time() - started)
    baseline = min(next(iter(seconds.values())))
    rows = [("", "fastest ms", "median", "middle half", "x")]
    rows += [row(name, times, baseline) for name, times in seconds.items()]
    print(align(rows, numbers=range(1, 5)))
    print(f"{torch.get_num_threads()} thread, load {os.getloadavg()}")


def row(name: str, times: list[float], baseline: float) -> tuple[str, ...]:
    low, _, high = quantiles(times, n=4)
    fastest = min(times)
    return (
        name,
        f"{1e3 * fastest:.0f}",
        f"{1e3 * median(times):.0f}",
        f"{1e3 * low:.0f}-{1e3 * high:.0f}",
        f"{baseline / fastest:.1f}",
    )


def graph(alpha: float, precision: str, x: torch.Tensor, args: argparse.Namespace) -> OpenVINO:
    path = args.keep / f"{alpha:g}_{precision}.xml" if args.keep else None
    if path and path.exists():
        return OpenVINO.read(path, x.shape[-2:])
    torch.manual_seed(0)
    model = fold_batch_norm(create_model("i3d_r50", alpha=alpha).eval())
    if precision == "fp32":
        fast = convert(model, x)
    elif precision == "bf16":
        fast = convert_low_precision(model, x, precision)
    else:
        clips = real_clips(args.clips)
        fast = convert_low_precision(model, x, precision, lambda network: quantized(network, clips))
    if path:
        args.keep.mkdir(parents=True, exist_ok=True)
        fast.save(path)
    return fast


def real_clips(folder: Path | None, count: int = 8) -> torch.Tensor:
    if folder is None:
        return torch.randn(count, 3, 8, SIZE, SIZE)
    model = create_model("i3d_r26", num_classes=2, width_per_group=8)
    reader = Recognizer(model, ["a", "b"], input_of(SIZE), torch.device("cpu"))
    videos = list(read_list(folder / "train.csv", path_prefix=folder))
    return torch.cat([reader.clip(v.path)[1] for v in videos[:: len(videos) // count][:count]])


def input_of(size: int) -> dict[str, object]:
    return preprocessing(size, size, sampling_rate=8)


def measure_accuracy(args: argparse.Namespace) -> None:
    paths: dict[str, list[str]] = {}
    labels: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        videos = list(read_list(args.data / f"{split}.csv", path_prefix=args.data))
        paths[split] = [video.path for video in videos]
        labels[split] = np.array([video.label for video in videos])
    unseen = np.arange(len(paths["train"])) % 5 == 0
    seen = [path for path, skip in zip(paths["train"], unseen, strict=True) if not skip]
    checks = [path for path, skip in zip(paths["train"], unseen, strict=True) if skip][:16]
    # Every second clip checks int8: those that nothing was fitted to.
    calibration = [
        path for pair in zip(seen[:: len(seen) // 16], checks, strict=False) for path in pair
    ]
    rows = [("alpha", "precision", "top-1", "same class as fp32", "mean change of a probability")]
    for alpha in args.alpha:
        expected = None
        for precision in ("fp32", "bf16", "int8"):
            if precision == "fp32":
                recognizer = fitted(alpha, args, seen, labels["train"][~unseen])
            else:
                try:
                    recognizer.optimize(precision=precision, calibration=calibration)
                except OctvideoError as refusal:
                    rows.append((f"{alpha:g}", precision, str(refusal)))
                    continue
            scores = np.stack([recognizer.scores(path, views="1x1") for path in paths["test"]])
            expected = scores if expected is None else expected
            rows.append(scored(alpha, precision, scores, expected, labels["test"]))
            print(rows[-1], flush=True)
    print(align([r + ("",) * (5 - len(r)) for r in rows], numbers=[2, 3, 4]))


def scored(
    alpha: float, precision: str, scores: np.ndarray, expected: np.ndarray, labels: np.ndarray
) -> tuple[str, ...]:
    found = scores.argmax(1)
    return (
        f"{alpha:g}",
        precision,
        f"{100 * (found == labels).mean():.1f} of {len(labels)}",
        f"{100 * (found == expected.argmax(1)).mean():.1f} %",
        f"{np.abs(scores - expected).mean():.4f}",
    )


def fitted(
    alpha: float, args: argparse.Namespace, paths: list[str], labels: np.ndarray
) -> Recognizer:
    """Image weights with a linear classifier for these classes."""
    classes = int(labels.max()) + 1
    options = {"stride_1x1": True, "downsample": "stride"} if alpha else {"stride_1x1": True}
    model = create_model(
        "i3d_r50",
        alpha=alpha,
        num_classes=classes,
        crop_size=args.size,
        weights=args.weights,
        **options,
    )
    names = [str(i) for i in range(classes)]
    recognizer = Recognizer(model, names, input_of(args.size), torch.device("cpu"))
    if args.finetune:
        finetune(recognizer, paths, torch.from_numpy(labels), args.finetune)
    else:
        features = torch.from_numpy(np.stack([recognizer.features(path) for path in paths]))
        fit(model.head.fc, features, torch.from_numpy(labels))
    return recognizer


def finetune(
    recognizer: Recognizer, paths: list[str], labels: torch.Tensor, epochs: int, batch: int = 8
) -> None:
    """Train res5 and a new classifier on the maps of res4; batch norms keep their statistics."""
    model: Any = recognizer.model
    clips = [recognizer.clip(path)[1] for path in paths]
    batches = [torch.cat(clips[i : i + batch]) for i in range(0, len(clips), batch)]
    measure_bn_statistics(model.train(), batches, len(batches), Processes())
    model.eval()
    maps = [map_of_res4(model, x) for clip in clips for x in (clip, clip.flip(-1))]
    model.head.dropout.train()
    trained = [*model.res5.parameters(), *model.head.parameters()]
    solver = torch.optim.AdamW(trained, lr=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, epochs)
    for epoch in range(epochs):
        losses = []
        for chosen in torch.randperm(len(maps)).split(batch):
            x = side_by_side([maps[i] for i in chosen])
            logits = model.head([merge(model.res5(x))])
            loss = torch.nn.functional.cross_entropy(logits, labels[chosen // 2])
            solver.zero_grad()
            loss.backward()
            solver.step()
            losses.append(float(loss.detach()))
        schedule.step()
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}", flush=True)
    model.eval()


@torch.no_grad()
def map_of_res4(model: Any, clip: torch.Tensor) -> OctTensor:
    seen: list[OctTensor] = []
    hook = model.res5.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(clip)
    hook.remove()
    return seen[0]


def side_by_side(maps: list[OctTensor]) -> OctTensor:
    low = [each.low for each in maps if each.low is not None]
    return OctTensor(torch.cat([each.high for each in maps]), torch.cat(low) if low else None)


def fit(classifier: torch.nn.Linear, features: torch.Tensor, labels: torch.Tensor) -> None:
    """Logistic regression with weight decay, on standardized features, folded into the
    classifier."""
    mean, scale = features.mean(0), features.std(0) + 1e-6
    weight = torch.zeros(classifier.out_features, features.shape[1], requires_grad=True)
    bias = torch.zeros(classifier.out_features, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=100)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        logits = ((features - mean) / scale) @ weight.T + bias
        value = torch.nn.functional.cross_entropy(logits, labels) + 1e-3 * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    with torch.no_grad():
        flat = (weight / scale).to(classifier.weight.dtype)
        classifier.weight.copy_(flat.view_as(classifier.weight))
        classifier.bias.copy_(bias - flat @ mean)


if __name__ == "__main__":
    main()
