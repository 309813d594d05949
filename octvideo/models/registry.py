"""`create_model`: every network by its name."""

import difflib
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from torch import nn

from octvideo.errors import ConfigError
from octvideo.models.slowfast import SlowFast
from octvideo.models.video_options import BLOCKS, VideoOptions
from octvideo.models.video_resnet import C2D, I3D, SLOW, VideoResNet

# res3 blocks 1, 3 and res4 blocks 1, 3, 5: where the stage has them.
NONLOCAL_5 = {26: ((), (1,), (1,), ()), 50: ((), (1, 3), (1, 3, 5), ()), 101: ((), (1, 3), (1, 3, 5), ())}

# name -> (builder, what the name itself decides)
VIDEO_MODELS: dict[str, tuple[Callable[[VideoOptions], nn.Module], dict[str, Any]]] = {}
for _depth in BLOCKS:
    for _family, _spec in (("c2d", C2D), ("i3d", I3D), ("slow", SLOW)):
        VIDEO_MODELS[f"{_family}_r{_depth}"] = (partial(VideoResNet, _spec, _depth), {})
    for _family, _spec in (("c2d_nln", C2D), ("i3d_nln", I3D)):
        _nonlocal = {"nonlocal_location": NONLOCAL_5[_depth]}
        VIDEO_MODELS[f"{_family}_r{_depth}"] = (partial(VideoResNet, _spec, _depth), _nonlocal)
    VIDEO_MODELS[f"slowfast_r{_depth}"] = (partial(SlowFast, _depth), {})


def list_models() -> list[str]:
    """The names that `create_model` knows, sorted."""
    return sorted(VIDEO_MODELS)


def create_model(name: str, *, alpha: float = 0.0, num_classes: int = 400, **options: Any) -> nn.Module:
    """Build a network: `create_model("i3d_r50", alpha=0.1)`.

    name: one of `list_models()`: c2d, i3d, slow, slowfast with _r26, _r50 or _r101; c2d_nln, i3d_nln with five
        non-local blocks (Wang et al. 2018).
    alpha: share of low-frequency channels, in [0, 1); 0 is the vanilla network.
    options: the fields of `octvideo.models.VideoOptions`.

    The network takes float (N, 3, T, H, W) and returns logits (N, num_classes); SlowFast takes the frames of its fast
    pathway. `model.config` holds plain values with which `create_model(**model.config)` builds it again.

    Raises ConfigError (a ValueError) for an unknown name or option and for values out of range.
    """
    if name not in VIDEO_MODELS:
        raise ConfigError(f"there is no model {name!r}{_suggest(name, VIDEO_MODELS)}")
    builder, fixed = VIDEO_MODELS[name]
    known = [f.name for f in fields(VideoOptions)]
    for option in options:
        if option not in known:
            raise ConfigError(f"create_model has no option {option!r}{_suggest(option, known)}")
    chosen = VideoOptions(alpha=alpha, num_classes=num_classes, **{**fixed, **options})
    model = builder(chosen)
    model.config = {"name": name, **_plain(asdict(chosen))}  # type: ignore[assignment]
    return model


def _plain(value: Any) -> Any:
    """Tuples and sets as lists, so that a config survives YAML, JSON and a weights-only checkpoint."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple | set | frozenset) else value


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
