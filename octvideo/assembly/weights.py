"""Initial weights, by TRAIN.CHECKPOINT_* and the DATA settings that they must agree with."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from torch import Tensor, nn

from octvideo.assembly.data import preparation
from octvideo.assembly.trained_with import check_input, check_said_input, tell_other_clips
from octvideo.checkpoint import Checkpoint
from octvideo.data.images.dataset import ImageDataset, ImageFolder
from octvideo.data.images.transforms import CenterCrop
from octvideo.data.loading.loader import Dataset, Loader
from octvideo.engine.distributed import ALONE, Processes
from octvideo.engine.training.precise_bn import measure_bn_statistics
from octvideo.errors import ConfigError, logger
from octvideo.models.network import config_of
from octvideo.weights import LoadReport, load_weights
from octvideo.weights.class_order import in_order_of
from octvideo.weights.image_weights import ImageWeights, read_image_weights, read_video_weights
from octvideo.weights.inflation_report import InflationReport
from octvideo.weights.pretrained import read_weights
from octvideo.weights.sort_channels import smoothest_last
from octvideo.weights.split_effect import measure_recovery, stage_errors
from octvideo.weights.start import (
    fill_from,
    is_to_be_divided,
    is_to_be_inflated,
    is_to_be_octavized,
    made_octave_with,
    octavize_into,
)

INFLATED = "image weights ({}) are inflated into {}"
STAGES = {1: "stem", 2: "res2", 3: "res3", 4: "res4", 5: "res5"}
MAX_LINES = 30  # of what training would do with a file

Clips = tuple[Tensor, Tensor]  # float (N, 3, T, H, W) and labels (N,)


def load_initial_weights(
    cfg: Any,
    model: nn.Module,
    dataset: Dataset,
    procs: Processes,
    names: Sequence[str] = (),
) -> Checkpoint:
    """Fill `model` from TRAIN.CHECKPOINT_FILE_PATH; if that is empty, training starts from scratch.
    Returns what the file says beside its weights, nothing from scratch.

    dataset: the training set; a few of its clips decide which channels of vanilla weights become
    low. names: of the classes that `model` names.
    """
    path = cfg.TRAIN.CHECKPOINT_FILE_PATH
    if not path:
        if cfg.TRAIN.CHECKPOINT_INFLATE:
            logger.warning(
                "training from scratch: TRAIN.CHECKPOINT_FILE_PATH names no image weights to"
                " inflate"
            )
        return Checkpoint()
    checkpoint = in_order_of(names, _read_for(cfg, model, path))
    clips = partial(_some_clips, cfg, dataset, procs)
    if is_to_be_octavized(checkpoint, model):
        check_said_input(cfg, checkpoint)
        _octavize(cfg, model, checkpoint, clips)
    elif (given := weights_to_change(cfg, checkpoint, model)) is not None:
        _inflate(cfg, model, given, clips)
    else:
        _load(cfg, model, checkpoint)
    return replace(checkpoint, state={}, average=None)


def _read_for(cfg: Any, model: nn.Module, source: str) -> Checkpoint:
    """`read_weights`; logs where the weights were trained on other clips than `cfg` takes."""
    checkpoint = read_weights(source)
    if not is_to_be_inflated(checkpoint, model):  # image weights say nothing of clips
        tell_other_clips(cfg, checkpoint, logging.INFO)
    return checkpoint


def _inflate(cfg: Any, model: nn.Module, given: ImageWeights, clips: Callable[[], Tensor]) -> None:
    """Fill `model` from image weights, or from vanilla video weights to divide."""
    path = cfg.TRAIN.CHECKPOINT_FILE_PATH
    weights = order_channels(cfg, given, model, clips)
    report = inflate_from(cfg, weights, model, path)
    verb = "divided" if report.is_video else "inflated"
    logger.info("%s %s (%s): %s", verb, path, weights.layout, "; ".join(report.lines()))
    _check_frozen(cfg, report)


def _octavize(
    cfg: Any, model: nn.Module, checkpoint: Checkpoint, clips: Callable[[], Tensor]
) -> None:
    """Split vanilla weights for a network that octavize made, sorted if it stores an order."""
    arguments = made_octave_with(model)
    sorts = arguments is not None and arguments["weights"] == "sorted"
    prefixes = cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN
    report = octavize_into(model, checkpoint, clips() if sorts else None, prefixes)
    low = "that lose least" if sorts else "of the last numbers"
    logger.info("divided %s, the channels %s low: %s", checkpoint.path, low, report.lines()[0])
    if cfg.OCTCONV.SMOOTHEST_LOW and not sorts:
        logger.info('MODEL.OPTIONS ["low_channels=smoothest"] makes those low that lose least')


def weights_to_change(cfg: Any, checkpoint: Checkpoint, model: nn.Module) -> ImageWeights | None:
    """Image weights to inflate, or vanilla video weights to split; None for weights that fit."""
    if is_to_be_divided(checkpoint, model):
        return read_video_weights(checkpoint, cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN)
    if cfg.TRAIN.CHECKPOINT_INFLATE or is_to_be_inflated(checkpoint, model):
        return image_weights(cfg, checkpoint)
    return None


def _load(cfg: Any, model: nn.Module, checkpoint: Checkpoint) -> LoadReport:
    """Raises CheckpointError if the weights contradict the model or the input."""
    check_said_input(cfg, checkpoint)
    clear = cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN
    return load_weights(model, checkpoint, clear_prefixes=clear)


def start_lines(cfg: Any, model: nn.Module, source: str) -> list[str]:
    """A description, in at most `MAX_LINES` lines, of how training would use a file or a public
    network; fills `model` with it.

    Raises CheckpointError and ConfigError as training would.
    """
    checkpoint = _read_for(cfg, model, source)
    if is_to_be_octavized(checkpoint, model):
        check_said_input(cfg, checkpoint)
        prefixes = cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN
        octave_report = octavize_into(model, checkpoint, prefixes=prefixes)
        return [f"vanilla weights are divided: {octave_report.lines()[0]}"]
    weights = weights_to_change(cfg, checkpoint, model)
    if weights is None:
        return str(_load(cfg, model, checkpoint)).splitlines()[:MAX_LINES]
    report = inflate_from(cfg, weights, model, source)
    _check_frozen(cfg, report)
    what = "vanilla video weights ({}) are divided for {}" if report.is_video else INFLATED
    lines = [what.format(weights.layout, model.config["name"])]  # type: ignore[index]
    if is_to_be_sorted(cfg, weights, model):
        lines.append(
            "channels are sorted by clips of the training data first (OCTCONV.SMOOTHEST_LOW)"
        )
    lines += report.lines()
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"and {len(lines) - MAX_LINES + 1} lines more"]
    return lines


def image_weights(cfg: Any, checkpoint: Checkpoint) -> ImageWeights:
    """Image weights: this package's, a ResNet in torchvision's layout, an official OctConv file."""
    return read_image_weights(checkpoint, cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN)


def frozen_stages(cfg: Any) -> set[str]:
    """The modules that MODEL.FREEZE_STAGES freezes, by their names in every pathway."""
    return {STAGES[stage] for stage in cfg.MODEL.FREEZE_STAGES}


def frozen_parts(cfg: Any, model: nn.Module) -> list[str]:
    """The names in `model` of all that MODEL.FREEZE_STAGES freezes. Raises ConfigError for a stage
    that `model` does not have."""
    parts = {name: name.rpartition(".")[2] for name, _ in model.named_modules()}
    stages = frozen_stages(cfg)
    if missing := sorted(stages.difference(parts.values())):
        there = [number for number, stage in STAGES.items() if stage in parts.values()]
        advice = f"freeze some of {there}" if there else "leave it out"
        raise ConfigError(
            f"MODEL.FREEZE_STAGES is {cfg.MODEL.FREEZE_STAGES}; {cfg.MODEL.ARCH} has no part"
            f" {missing[0]!r}: {advice}"
        )
    return [name for name, stage in parts.items() if stage in stages]


def _check_frozen(cfg: Any, report: InflationReport) -> None:
    """Raises ConfigError if freshly initialized modules would be frozen; warns of frozen statistics
    that do not fit."""
    stages = frozen_stages(cfg)

    def is_stopped(layer: str) -> bool:
        return cfg.MODEL.FROZEN_BN or layer.partition(".")[0] in stages

    pathways = {"fast", "laterals"} if stages else set()
    if fresh := [
        layer
        for layer in report.fresh
        if layer != "head.fc" and (is_stopped(layer) or layer in pathways)
    ]:
        setting = "MODEL.FROZEN_BN False" if cfg.MODEL.FROZEN_BN else "MODEL.FREEZE_STAGES []"
        raise ConfigError(f"{fresh[0]} starts fresh, and frozen it would not learn; set {setting}")
    if any(map(is_stopped, report.split | report.merged)) and not cfg.BN.PRECISE_STATS_AT_START:
        logger.warning(
            "frozen batch norms keep the statistics of undivided kernels; "
            "BN.PRECISE_STATS_AT_START True measures those of the divided ones before training"
        )


def order_channels(
    cfg: Any, weights: ImageWeights, model: nn.Module, clips: Callable[[], Tensor]
) -> ImageWeights:
    """With OCTCONV.SMOOTHEST_LOW: vanilla weights for an octave `model`, permuted so that the
    channels that lose least are last.

    clips: called for float (N, 3, T, H, W) if measurements are needed.
    """
    if not is_to_be_sorted(cfg, weights, model):
        return weights
    check_input(cfg, weights.assumes)
    state = smoothest_last(weights.state, model, clips(), weights.assumes)
    return replace(
        weights,
        state=state,
        layout=f"{weights.layout}, channels that lose least at half the size low",
    )


def is_to_be_sorted(cfg: Any, weights: ImageWeights, model: nn.Module) -> bool:
    return bool(
        cfg.OCTCONV.SMOOTHEST_LOW and config_of(model).get("alpha") and not weights.is_octave
    )


def inflate_from(
    cfg: Any, weights: ImageWeights, model: nn.Module, path: str = "the weights"
) -> InflationReport:
    """Raises CheckpointError if the weights contradict the model or the input."""
    trusted = check_input(cfg, weights.assumes)
    report = fill_from(weights, model, path)
    report.notes += trusted
    return report


def split_effect(
    cfg: Any,
    weights: ImageWeights,
    model: nn.Module,
    report: InflationReport,
    images: str,
    num_batches: int,
    class_names: Sequence[str],
) -> list[str]:
    """Lines on the effect of splitting the kernels, measured on still clips of the images in a
    folder per class.

    If the classifier was loaded too, the batch norm statistics of `model` are measured anew on
    `num_batches` of 8, and top-1 on as many others is reported from before and after; the folders
    are then those of class_names, as `ImageFolder` numbers them. Raises DataError where they are
    not.
    """
    is_scored = "head.fc" in report.copied
    names = class_names if is_scored else ()
    clips = list(islice(_still_clips(cfg, images, names), 2 * num_batches))
    measuring, testing = clips[: len(clips) // 2] or clips, clips[len(clips) // 2 :]
    lines: list[str] = []
    if report.split and not weights.is_octave:
        lines += map(
            str, stage_errors(weights.state, model, (testing or measuring)[0][0], weights.assumes)
        )
    if is_scored:
        lines.append(str(measure_recovery(model, testing, partial(_measure_anew, clips=measuring))))
    return lines


def first_pictures(cfg: Any, images: str) -> Tensor:
    """A batch of images from a folder per class, as still clips."""
    return next(_still_clips(cfg, images))[0]


def _some_clips(cfg: Any, dataset: Dataset, procs: Processes) -> Tensor:
    """Training clips of rank 0 on every rank; every rank raises OctvideoError if it fails."""

    def read() -> Tensor:
        workers = cfg.DATA_LOADER
        loader = Loader(
            dataset,
            batch_size=min(8, len(dataset)),
            num_workers=min(workers.NUM_WORKERS, 1),
            seed=cfg.RNG_SEED,
            timeout_seconds=workers.TIMEOUT,
            max_bad_ratio=cfg.DATA.MAX_BAD_RATIO,
        )
        with closing(loader):
            return next(loader.epoch(0)).inputs

    return preparation(cfg)(procs.made_by_main(read))


def _still_clips(cfg: Any, images: str, class_names: Sequence[str] = ()) -> Iterator[Clips]:
    size, prepare = cfg.DATA.TRAIN_CROP_SIZE, preparation(cfg)
    dataset = ImageDataset(
        ImageFolder(images, class_names),
        CenterCrop(size, round(size / 0.875)),
        seed=cfg.RNG_SEED,
    )
    loader = Loader(dataset, batch_size=min(8, len(dataset)), seed=cfg.RNG_SEED)
    for batch in loader.epoch(0):
        yield (
            prepare(batch.inputs).unsqueeze(2).expand(-1, -1, cfg.DATA.NUM_FRAMES, -1, -1),
            batch.targets,
        )


def _measure_anew(model: nn.Module, clips: list[Clips]) -> None:
    measure_bn_statistics(model.train(), (inputs for inputs, _ in clips), len(clips), ALONE)
