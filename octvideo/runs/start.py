"""The start of training: the best weights that are available, and the settings that they need."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from octvideo.assembly.identity import settings_in
from octvideo.assembly.trained_with import IN_DATA
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.config.defaults import Tree
from octvideo.download import cache_folder, is_offline, is_reachable
from octvideo.models.registry import MODELS, input_shape_of
from octvideo.weights.convert import TORCHVISION_MEAN, TORCHVISION_STD
from octvideo.weights.describe import input_of
from octvideo.weights.pretrained import Pretrained, pretrained_networks, read_weights
from octvideo.weights.start import is_image

IMAGE_WEIGHTS = {50: "resnet50_in1k", 101: "resnet101_in1k"}  # by depth
TORCHVISION_INPUT: Tree = {
    "MEAN": list(TORCHVISION_MEAN),
    "STD": list(TORCHVISION_STD),
    "REVERSE_INPUT_CHANNEL": False,
}
# Settings that say which network it is, without the sizes of its input and its classifier.
OF_NETWORK = ("MODEL.ARCH", "MODEL.MODEL_NAME", "MODEL.OPTIONS")
SECTIONS_OF_NETWORK = ("RESNET", "OCTCONV", "NONLOCAL", "SLOWFAST")
DEPTH = re.compile(r"(?:c2d|i3d|slow|slowfast)\w*_r(\d+)")
# SGD at rates that suit trained weights had learned nothing after 100 steps (docs/results.md, hand
# gestures).
FROM_SCRATCH: Tree = {
    "TRAIN": {"CHECKPOINT_FILE_PATH": "", "CHECKPOINT_INFLATE": False},
    "SOLVER": {"OPTIMIZING_METHOD": "adamw", "BASE_LR": 0.001, "BASE_BATCH_SIZE": 0},
    "MODEL": {"DROPOUT_RATE": 0.0},
}


@dataclass(frozen=True, slots=True)
class Start:
    """line: a description for the log. is_trained: False if training starts from scratch.

    model, network: the video network of a file that was trained here, and its settings; "" and {}
    where the file does not say.
    """

    line: str
    settings: Tree
    model: str = ""
    network: Tree = field(default_factory=dict)

    @property
    def is_trained(self) -> bool:
        return bool(self.settings["TRAIN"]["CHECKPOINT_FILE_PATH"])


def choose_start(model: str, alpha: float, weights: str = "auto") -> Start:
    """weights: "auto", "none", a file, or the name of a public network.

    auto: Kinetics weights of a vanilla network of this name, else image weights of its depth: those
    in the cache folder first, then what can be fetched; else scratch. Raises CheckpointError for
    weights that are named and cannot be had.
    """
    if weights == "none":
        return Start("from scratch", FROM_SCRATCH)
    if weights != "auto":
        return _given(weights, alpha)
    candidates = _candidates(model, alpha)
    for entry in candidates:
        is_here = (cache_folder() / entry.file_name).exists()
        if is_here or (not is_offline() and is_reachable(entry.url)):
            return _of_entry(entry, alpha)
    return Start(_why_from_scratch(candidates), FROM_SCRATCH)


def _candidates(model: str, alpha: float) -> list[Pretrained]:
    """Public networks that fit, the best first."""
    networks = pretrained_networks()
    videos = [
        entry
        for entry in networks.values()
        if entry.model == model and entry.data == "kinetics400" and not alpha
    ]
    # Published in two layouts: the first row is the newer one. Longer clips were trained for longer
    # inputs.
    frames = str(input_shape_of(model)[1])
    videos.sort(key=lambda entry: entry.num_frames != frames)
    depth = DEPTH.fullmatch(model)
    image = IMAGE_WEIGHTS.get(int(depth[1])) if depth else None
    return videos[:1] + ([networks[image]] if image else [])


def _why_from_scratch(candidates: list[Pretrained]) -> str:
    if not candidates:
        return "from scratch: no public weights fit this network"
    names = " nor ".join(entry.file_name for entry in candidates)
    reason = "OCTVIDEO_OFFLINE is set" if is_offline() else "their servers cannot be reached"
    return (
        f"from scratch: {'neither ' if len(candidates) > 1 else 'no '}{names} in {cache_folder()},"
        f" and {reason}. Training from scratch needs many more videos; --weights FILE takes"
        " weights that you have"
    )


def _of_entry(entry: Pretrained, alpha: float) -> Start:
    if not entry.is_video:
        settings = _image_settings(entry.name, alpha)
        settings["DATA"] = dict(TORCHVISION_INPUT)
        return Start(
            f"from image weights, {entry.name} (top-1 {entry.top1} % on ImageNet)", settings
        )
    settings = _video_settings(entry.name)
    settings["DATA"] |= {
        "NUM_FRAMES": int(entry.num_frames),
        "SAMPLING_RATE": int(entry.sampling_rate),
        "SAMPLING_RULE": entry.sampling_rule,
    }
    if ratio := re.search(r"speed_ratio=(\d+)", entry.options):
        settings["SLOWFAST"] = {"ALPHA": int(ratio[1])}
    return Start(f"from {entry.name} (top-1 {entry.top1} % on {entry.data})", settings)


def _given(weights: str, alpha: float) -> Start:
    if weights in pretrained_networks() and not Path(weights).exists():
        return _of_entry(pretrained_networks()[weights], alpha)
    checkpoint = read_weights(weights)
    seen = input_of(checkpoint)
    if is_image(checkpoint):
        settings = _image_settings(weights, alpha)
        settings["DATA"] = _colors_of(seen) or dict(TORCHVISION_INPUT)
        return Start(f"from image weights, {weights}", settings)
    settings = _video_settings(weights)
    settings["DATA"] |= _colors_of(seen) | _clips_of(seen)
    return Start(f"from {weights}", settings, *_network_of(checkpoint))


def _network_of(checkpoint: Checkpoint) -> tuple[str, Tree]:
    """`model` and `network` of a `Start`."""
    recipe, name = settings_in(checkpoint), str(checkpoint.network.get("name", ""))
    if not recipe or name not in MODELS:
        return "", {}
    network: Tree = {}
    for key, value in recipe.items():
        section, _, setting = key.rpartition(".")
        if key in OF_NETWORK or section in SECTIONS_OF_NETWORK:
            network.setdefault(section, {})[setting] = value
    return name, network


def _clips_of(seen: InputSpec) -> Tree:
    """What the file says of the frames of a clip."""
    said = {setting: getattr(seen, name) for name, setting in IN_DATA.items()}
    return {setting: value for setting, value in said.items() if value is not None}


def _colors_of(seen: InputSpec) -> Tree:
    """MEAN, STD and the order of channels, if the file says them."""
    if not (seen.mean and seen.std):
        return {}
    return {
        "MEAN": list(seen.mean),
        "STD": list(seen.std),
        "REVERSE_INPUT_CHANNEL": seen.reverse_channels,
    }


def _image_settings(weights: str, alpha: float) -> Tree:
    settings: Tree = {"TRAIN": {"CHECKPOINT_FILE_PATH": weights, "CHECKPOINT_INFLATE": True}}
    if alpha:  # strides where the image network has them: docs/decisions/041-inflation.md
        settings["OCTCONV"] = {"DOWNSAMPLE": "stride"}
    return settings


def _video_settings(weights: str) -> Tree:
    return {
        "TRAIN": {"CHECKPOINT_FILE_PATH": weights, "CHECKPOINT_INFLATE": False},
        "DATA": {"MEAN": [0.45] * 3, "STD": [0.225] * 3, "REVERSE_INPUT_CHANNEL": False},
    }
