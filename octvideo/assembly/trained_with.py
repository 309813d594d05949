"""What weights were trained with, beside the settings of a run that uses them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.errors import logger
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.describe import input_of

# Field of `InputSpec` -> setting of DATA, of the frames of a clip and of a test's crop.
IN_DATA = {
    "num_frames": "NUM_FRAMES",
    "sampling_rate": "SAMPLING_RATE",
    "sampling_rule": "SAMPLING_RULE",
    "target_fps": "TARGET_FPS",
}
CROP = {"crop_size": "TEST_CROP_SIZE"}


def check_said_input(cfg: Any, checkpoint: Checkpoint) -> None:
    """Log what of the input a file does not say. Raises CheckpointError if the weights were trained
    on another input than that of DATA."""
    seen = _said_of(cfg, checkpoint)
    for line in check_input(cfg, Assumptions.of_checkpoint(replace(checkpoint, input=seen))):
        logger.info("%s: %s", checkpoint.path, line)


def check_input(cfg: Any, assumes: Assumptions) -> list[str]:
    """`Assumptions.check_input` with the settings of DATA."""
    return assumes.check_input(cfg.DATA.MEAN, cfg.DATA.STD, cfg.DATA.REVERSE_INPUT_CHANNEL)


def tell_other_clips(cfg: Any, checkpoint: Checkpoint, level: int) -> None:
    """Log at `level` if DATA takes other clips than the weights were trained on, and as information
    if its test takes another crop; what the file does not say is not compared."""
    if cfg.TRAIN.DATASET != "video":
        return
    seen = _said_of(cfg, checkpoint)
    if clips := _differences(cfg, seen, IN_DATA):
        logger.log(
            level,
            "%s: was trained on other clips than these settings take (%s); set them as it was"
            " trained, unless that is meant",
            *(checkpoint.path, clips),
        )
    if crop := _differences(cfg, seen, CROP):
        logger.info("%s: says another crop of a test (%s)", checkpoint.path, crop)


def _said_of(cfg: Any, checkpoint: Checkpoint) -> InputSpec:
    return input_of(checkpoint, cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN)


def _differences(cfg: Any, seen: InputSpec, settings: Mapping[str, str]) -> str:
    """ "DATA.SAMPLING_RULE pyslowfast instead of stride, ..."; "" where nothing differs."""
    said = {setting: getattr(seen, name) for name, setting in settings.items()}
    return ", ".join(
        change(f"DATA.{setting}", cfg.DATA[setting], then)
        for setting, then in said.items()
        if then not in (None, cfg.DATA[setting])
    )


def change(key: str, now: Any, then: Any) -> str:
    return f"{key} {short(now)} instead of {short(then)}"


def short(value: Any) -> str:
    """A value as text, cut in its middle where it is long."""
    text = str(value) if value != "" else "''"
    return text if len(text) <= 60 else f"{text[:30]}...{text[-27:]}"
