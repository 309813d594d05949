"""A checkpoint as a value: weights, their network, their input, and the state of a training.

The file is a dict of `torch.save`, or of safetensors if its name ends so; files of others may be
Caffe2's pickles too. The first bytes of a file tell its kind. Other programs read its keys, so
these stay:

    model_state, ema_state        weights and their moving average
    meta                          format, model, class_names, preprocessing, multi_label, head_act
    cfg                           the settings of the training, as YAML
    epoch, optimizer_state, ...   the position and state of the training
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from iopath.common.file_io import g_pathmgr

from octvideo.errors import CheckpointError, ConfigError, did_you_mean
from octvideo.numpy_pickle import read_numpy_pickle
from octvideo.safetensors_file import is_safetensors, read_safetensors, write_safetensors
from octvideo.torch_file import read_torch_file, write_torch_file
from octvideo.wrappers import AVERAGES, CONTAINERS, State, find, unwrap

FORMAT = 1
LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # how torch.save began before 1.6
PICKLE = (
    b"\x80",
    b"(",
)  # how pickles of dicts begin, in Python 3's protocols and in the oldest one


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The input that weights assume; None if the file does not say.

    mean, std: of the input in 0..1, per channel, in the order that the network sees: red, green and
    blue, or with reverse_channels blue, green and red. num_frames to target_fps: None for an image
    network.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    reverse_channels: bool = False
    num_frames: int | None = None
    sampling_rate: int | None = None
    sampling_rule: str | None = None
    target_fps: float | None = None
    crop_size: int | None = None
    short_side: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From meta["preprocessing"]; entries of another name are left out, and one number of mean
        or std is of all three channels. Raises TypeError for a wrong type."""
        known = {f.name: values[f.name] for f in fields(cls) if values.get(f.name) is not None}
        if "mean" in known:
            known["mean"] = tuple(map(_number, _plain(known["mean"], list, tuple)))
        if "std" in known:
            known["std"] = tuple(_positive(n, float) for n in _plain(known["std"], list, tuple))
        for name in {"mean", "std"} & known.keys():
            if len(known[name]) not in (1, 3):
                raise TypeError(f"{name} has {len(known[name])} numbers, not one or three")
            known[name] *= 3 // len(known[name])
        for name in {"num_frames", "sampling_rate", "crop_size", "short_side"} & known.keys():
            _positive(known[name], int)
        if "target_fps" in known:
            _positive(known["target_fps"], float)
        _plain(known.get("reverse_channels", False), bool)
        _plain(known.get("sampling_rule", ""), str)
        return cls(**known)

    def missing(self) -> list[str]:
        """The names of what is not known, of all that a network for videos needs."""
        return [f.name for f in fields(self) if getattr(self, f.name) is None]

    @classmethod
    def given(cls, values: Mapping[str, Any], what: str) -> Self:
        """From what a caller gives as `what`, as `of` has it. Raises ConfigError for an unknown
        name, or a value that cannot be."""
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise ConfigError(
                    f"{what}: there is no {name!r:.40}; {did_you_mean(str(name), names)}"
                )
        try:
            return cls.of(values)
        except TypeError as error:
            raise ConfigError(
                f"{what}: {error}; mean and std are one number or three, std and sizes positive"
            ) from error

    def with_normalization(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> Self:
        """A copy with what is given; one number stands for all three channels. Raises ConfigError
        for numbers that cannot be."""
        said = {"mean": mean and list(mean), "std": std and list(std)}
        given = self.given(said, f"mean {mean}, std {std}")
        return replace(self, mean=given.mean or self.mean, std=given.std or self.std)

    def as_dict(self) -> dict[str, Any]:
        """The known fields, as plain values."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in said.items()
        }


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of a file of weights; most fields of a file from elsewhere are empty.

    path: for messages. state, average: the weights, and their moving average if there is one.
    network: the arguments of `create_model`. head_act: the function from logits to probabilities.
    recipe: the settings of the training, as YAML. python_recipe: mmaction2's, a text that is never
    run.
    training: all other entries, which a resumed run needs.
    format: of `meta`; 0 in a file that this package has not written.
    removed: the containers around the weights, and the prefixes that were removed from their names.
    sha256: of the file, if it was hashed.
    """

    path: str = ""
    state: State = field(default_factory=dict)
    average: State | None = None
    network: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    input: InputSpec = InputSpec()
    multi_label: bool = False
    head_act: str | None = None
    recipe: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT
    removed: tuple[str, ...] = ()
    python_recipe: str = ""
    sha256: str = ""

    @classmethod
    def read(cls, path: str) -> Self:
        """Raises CheckpointError for a file that is missing, damaged or hostile, and for one of a
        newer format."""
        return cls.of(_read_content(path), path)

    @classmethod
    def of(cls, content: Mapping[str, Any], path: str) -> Self:
        """The checkpoint in the dict of a file."""
        meta = content.get("meta")
        own = isinstance(meta, Mapping) and "model" in meta
        # mmaction2 keeps its config there, as "cfg" since its version 1 and as "config" before.
        theirs = meta if isinstance(meta, Mapping) and not own else {}
        texts = [text for key in ("cfg", "config") if isinstance(text := theirs.get(key), str)]
        meta = meta if isinstance(meta, Mapping) and own else {}
        number = meta.get("format", 1) if own else 0
        if not isinstance(number, int) or number > FORMAT:
            raise CheckpointError(
                f"{path}: of format {number}; this octvideo reads formats up to {FORMAT}: install a"
                " newer one"
            )
        key, average_key = find(content, CONTAINERS), find(content, AVERAGES)
        state: State = {}
        average: State | None = None
        removed: list[str] = []
        if key or not average_key:
            state, removed = unwrap({key: content[key]} if key else content, own=own)
        if average_key:
            average, removed = unwrap({average_key: content[average_key]}, own=own)
        rest = {key, average_key, "meta", "cfg", "ema_state"}
        try:
            names = _plain(meta.get("class_names"), list, tuple, type(None)) or ()
            return cls(
                path,
                state,
                average,
                dict(_plain(meta.get("model"), dict, type(None)) or {}),
                tuple(_plain(name, str) for name in names),
                InputSpec.of(_plain(meta.get("preprocessing"), dict, type(None)) or {}),
                bool(_plain(meta.get("multi_label"), bool, int, type(None))),
                _plain(meta.get("head_act"), str, type(None)),
                cfg if isinstance(cfg := content.get("cfg"), str) else "",
                {} if not key else {k: v for k, v in content.items() if k not in rest},
                number,
                tuple(removed),
                texts[0] if texts else "",
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: its description of the network is damaged ({error})"
            ) from error

    @property
    def weights(self) -> State:
        """The moving average, else the weights: what a network should be used with."""
        return self.average or self.state

    def require_whole_input(self) -> None:
        """Raises CheckpointError unless all that a network for videos needs is said of its
        input."""
        if missing := self.input.missing():
            raise CheckpointError(
                f"{self.path}: does not say {', '.join(missing)} of its input; write it into"
                " meta['preprocessing'] of the file, as training does"
            )

    def contents(self) -> dict[str, Any]:
        """The dict that the file holds."""
        meta = {
            "format": self.format,
            "model": self.network,
            "class_names": list(self.class_names),
            "preprocessing": self.input.as_dict(),
            "multi_label": self.multi_label,
            "head_act": self.head_act,
        }
        weights = {"model_state": self.state, "ema_state": self.average}
        return {**weights, **self.training, "meta": meta, "cfg": self.recipe}

    def write(self, path: str) -> None:
        """Write atomically. Raises CheckpointError if there is no room, or no permission."""
        write = write_safetensors if path.endswith(".safetensors") else write_torch_file
        write(path, self.contents())


def _read_content(path: str) -> dict[str, Any]:
    try:
        with g_pathmgr.open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        start = b""  # The reader of torch's files says why.
    if is_safetensors(start):
        return read_safetensors(path)
    if start.startswith(PICKLE) and not start.startswith(LEGACY_TORCH):
        return _tensors_for_arrays(read_numpy_pickle(path))
    return read_torch_file(path)


def _tensors_for_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tensors_for_arrays(item) for name, item in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _plain(value: Any, *kinds: type) -> Any:
    """The value, which is of one of these types. Raises TypeError."""
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{type(value).__name__} {str(value)[:40]!r} where {wanted} is expected")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(_plain(value, float, int)):
        raise TypeError(f"the number {value!r:.40} is out of range")
    return float(value)


def _positive(value: Any, kind: type) -> Any:
    """A positive number of this type, small enough for any size that exists."""
    _plain(value, *dict.fromkeys((kind, int)))
    if isinstance(value, bool) or not 0 < value < 2**31:
        raise TypeError(f"the number {value!r:.40} is out of range")
    return kind(value)
