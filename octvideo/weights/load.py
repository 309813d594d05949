"""Weights from a file into a model: all of them or none, and a report of what went where."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from torch import Tensor, nn

from octvideo.errors import CheckpointError
from octvideo.torch_file import read_torch_file
from octvideo.weights.layouts import OWN, find_layout

HEAD = "head.fc."
# Options that change what a network computes but none of its shapes, and the settings that make them.
ASSUMED = {
    "block": "RESNET.BLOCK",
    "downsample": "OCTCONV.DOWNSAMPLE",
    "stride_1x1": "RESNET.STRIDE_1X1",
    "stem_pool_padding": "RESNET.STEM_POOL_PADDING",
    "nonlocal_on": "OCTCONV.NONLOCAL",
    "nonlocal_pool": "NONLOCAL.POOL",
    "nonlocal_instantiation": "NONLOCAL.INSTANTIATION",
    "speed_ratio": "SLOWFAST.ALPHA",
}

logger = logging.getLogger("octvideo")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a file brought. Names are the model's; shapes are (file, model).

    skipped_head: the classifier of another number of classes, left as it was initialised.
    unused: what the file has besides, by the name that it would have here.
    """

    path: str
    layout: str
    loaded: tuple[str, ...]
    skipped_head: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: dict[str, tuple[int, ...]]
    unused: dict[str, tuple[int, ...]]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def fits(self) -> bool:
        return bool(self.loaded) and not (self.missing or self.unused or self.misshapen)

    def __str__(self) -> str:
        lines = [f"{self.path} ({self.layout} layout): {len(self.loaded)} tensors loaded"]
        lines += [
            f"  skipped head {name}: file {a}, model {b}"
            for name, (a, b) in self.skipped_head.items()
        ]
        lines += [f"  missing {name} {shape}" for name, shape in self.missing.items()]
        lines += [f"  unexpected {name} {shape}" for name, shape in self.unused.items()]
        lines += [
            f"  other shape {name}: file {a}, model {b}" for name, (a, b) in self.misshapen.items()
        ]
        return "\n".join(lines)


def load_weights(
    model: nn.Module, path: str, *, new_classes: bool = True, clear_prefixes: Sequence[str] = ()
) -> LoadReport:
    """Load a file of ours, PySlowFast's or pytorchvideo's layout into `model` and log the report.

    Image networks also from torchvision's, timm's or d-li14's (`load_official` reads the MXNet files).
    new_classes: a classifier of another number of classes is skipped; False refuses it (for testing).
    clear_prefixes: taken off the file's names, as is the "module." of a network saved inside DDP.

    Raises CheckpointError, with the model untouched, for a file that does not fit in full, that was trained with
    other settings, or that cannot be read.
    """
    content = read_torch_file(path)
    tensors = _without_prefixes(_model_state(content, path), ("module.", *clear_prefixes))
    layout = find_layout(tensors)
    ours = layout.names(tensors)
    state = {ours[name]: tensor for name, tensor in tensors.items()}
    report = _compare(model, state, path, layout.title)
    logger.log(logging.INFO if report.fits else logging.ERROR, "%s", report)

    if not report.fits:
        raise CheckpointError(_does_not_fit(model, report))
    if report.skipped_head and not new_classes:
        (shape, expected), *_ = report.skipped_head.values()
        raise CheckpointError(
            f"{path}: classifies {shape[0]} classes, the model {expected[0]}; set MODEL.NUM_CLASSES"
        )
    _check_assumptions(model, _config(content, layout is OWN), path)
    model.load_state_dict(model.state_dict() | {name: state[name] for name in report.loaded})
    return report


def _model_state(content: dict[str, Any], path: str) -> dict[str, Tensor]:
    """The weights in a file: their moving average if there is one; or the file is nothing but weights."""
    keys = ("ema_state", "model_state", "state_dict")
    state = next((content[key] for key in keys if content.get(key)), content)
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(t, Tensor) for t in state.values())
    ):
        raise CheckpointError(
            f"{path}: holds no weights; a checkpoint has them under 'model_state'"
        )
    return state


def _without_prefixes(state: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    for prefix in prefixes:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def _compare(model: nn.Module, state: Mapping[str, Tensor], path: str, layout: str) -> LoadReport:
    target = model.state_dict()
    shapes = {
        name: (tuple(state[name].shape), tuple(target[name].shape))
        for name in target
        if name in state
    }
    head = {
        name: pair
        for name, pair in shapes.items()
        if name.startswith(HEAD) and pair[0][:1] != pair[1][:1]
    }
    other = {name: pair for name, pair in shapes.items() if pair[0] != pair[1] and name not in head}
    # Files from before torch 0.4.1, and converted ones, do not count their batches; nothing depends on it.
    absent = (
        name for name in target if name not in state and not name.endswith("num_batches_tracked")
    )
    return LoadReport(
        path=path,
        layout=layout,
        loaded=tuple(name for name in shapes if name not in head and name not in other),
        skipped_head=head,
        missing={name: tuple(target[name].shape) for name in absent},
        unused={name: tuple(tensor.shape) for name, tensor in state.items() if name not in target},
        misshapen=other,
    )


def _does_not_fit(model: nn.Module, report: LoadReport) -> str:
    parts = []
    for title, names in (
        ("missing", report.missing),
        ("unexpected", report.unused),
        ("other shape", report.misshapen),
    ):
        if names:
            name, shapes = next(iter(names.items()))
            parts.append(f"{len(names)} {title} (first: {name} {shapes})")
    name = getattr(model, "config", {}).get("name", type(model).__name__)
    return f"{report.path}: does not fit {name}: {', '.join(parts)}; build the network that the file was made with"


# --- What the weights assume


def _config(content: dict[str, Any], own: bool) -> dict[str, Any]:
    """The options that a file was trained with, as far as it says."""
    if own:
        meta = content.get("meta")
        return dict(meta.get("model") or {}) if isinstance(meta, dict) else {}
    try:
        cfg = yaml.safe_load(content.get("cfg") or "")
        values = {option: _lookup(cfg, key) for option, key in ASSUMED.items()}
    except yaml.YAMLError:
        return {}
    return {
        option: value for option, value in values.items() if isinstance(value, bool | int | str)
    }


def _lookup(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, dict) else None
    return cfg


def _check_assumptions(model: nn.Module, trained: dict[str, Any], path: str) -> None:
    config: dict[str, Any] = getattr(model, "config", {})
    has_nonlocal = any(".nonlocal" in name for name, _ in model.named_modules())
    for option, setting in ASSUMED.items():
        if (
            option not in trained
            or option not in config
            or (option.startswith("nonlocal") and not has_nonlocal)
        ):
            continue
        theirs, here = trained[option], config[option]
        if option == "downsample":
            theirs, here = (
                theirs or _default_downsample(trained),
                here or _default_downsample(config),
            )
        if theirs != here:
            raise CheckpointError(
                f"{path}: was trained with {option}={theirs!r}, the model has {here!r}; set {setting} to {theirs!r}"
            )


def _default_downsample(config: dict[str, Any]) -> str:
    return "pool" if config.get("alpha") or config.get("block") == "preact" else "stride"
