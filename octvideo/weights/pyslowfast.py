"""What PySlowFast's settings in a file say of the input and the output of its weights."""

from typing import Any, get_args

from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.errors import CheckpointError
from octvideo.models.network import HeadAct
from octvideo.weights.assumptions import lookup, settings_in

# Data sets whose frames PySlowFast has as BGR (OpenCV reads them; pytorchvideo's are turned), so
# that DATA.REVERSE_INPUT_CHANNEL makes them RGB. Those of other data sets are RGB.
BGR = ("charades", "ssv2", "ptvcharades", "ptvssv2")
SEGMENTS = ("ssv2", "ptvssv2")  # data sets whose clips have a frame from each part of the video


def said_of_input(checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of `InputSpec`. Raises CheckpointError for numbers that cannot be.

    PySlowFast normalizes before it reverses the channels, a network of this package is normalized
    in the order that it sees: mean and std are reversed too.
    """
    cfg = settings_in(checkpoint.recipe)
    reverse, data_set = lookup(cfg, "DATA.REVERSE_INPUT_CHANNEL"), _data_set(cfg)
    said: dict[str, Any] = {
        "mean": lookup(cfg, "DATA.MEAN"),
        "std": lookup(cfg, "DATA.STD"),
        "sampling_rule": "segment" if data_set in SEGMENTS else None,
    }
    clip = [lookup(cfg, "DATA.NUM_FRAMES"), lookup(cfg, "DATA.SAMPLING_RATE")]
    if data_set not in SEGMENTS and all(type(n) is int and 0 < n < 1000 for n in clip):
        said |= {"num_frames": clip[0], "sampling_rate": clip[1]}
    if data_set not in BGR:  # whose frames have no rate there
        said["target_fps"] = lookup(cfg, "DATA.TARGET_FPS")
    said |= _crops(cfg)
    if isinstance(reverse, bool):
        said["reverse_channels"] = (data_set in BGR) != reverse
    try:
        seen = InputSpec.of(said)
    except TypeError as error:
        raise CheckpointError(
            f"{checkpoint.path}: its settings name an input that cannot be ({error}); remove its"
            " cfg, and say mean and std"
        ) from error
    found = {name: getattr(seen, name) for name, value in said.items() if value is not None}
    for name in {"mean", "std"} & found.keys():
        found[name] = found[name][::-1] if reverse is True else found[name]
    return found


def said_of_output(checkpoint: Checkpoint) -> tuple[str, bool | None]:
    """The function from logits to probabilities, and whether a video has several classes; "" and
    None if the file does not say. Raises CheckpointError for a function that is not here."""
    cfg = settings_in(checkpoint.recipe)
    act, several = lookup(cfg, "MODEL.HEAD_ACT"), lookup(cfg, "DATA.MULTI_LABEL")
    if act and act not in get_args(HeadAct):
        raise CheckpointError(
            f"{checkpoint.path}: its settings make scores by MODEL.HEAD_ACT {act!s:.40}; here it is"
            " softmax or sigmoid: set it in its cfg"
        )
    several = several if isinstance(several, bool) else None
    return act or ("sigmoid" if several else ""), several


def _crops(cfg: Any) -> dict[str, Any]:
    """Those of its test: of several crops, the short side is the crop's."""
    crop, jitter = lookup(cfg, "DATA.TEST_CROP_SIZE"), lookup(cfg, "DATA.TRAIN_JITTER_SCALES")
    is_one = lookup(cfg, "TEST.NUM_SPATIAL_CROPS") == 1 and isinstance(jitter, list) and jitter
    return {"crop_size": crop, "short_side": jitter[0] if is_one else crop}


def _data_set(cfg: Any) -> str:
    name = lookup(cfg, "TRAIN.DATASET") or lookup(cfg, "TEST.DATASET")
    return name.lower() if isinstance(name, str) else ""
