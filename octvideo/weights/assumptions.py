"""The assumptions that weights make about the network and its input; a network or an input that
contradicts them is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from torch import nn

from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.errors import CheckpointError, logger
from octvideo.layers import OctConv3d
from octvideo.layers.octave import Downsample
from octvideo.models.network import config_of

# Options that change what a network computes but none of its shapes, and the settings that make
# them; those without a setting of their own stand in MODEL.OPTIONS.
OPTIONS = {
    "block": "RESNET.BLOCK",
    "downsample": "OCTCONV.DOWNSAMPLE",
    "stride_1x1": "RESNET.STRIDE_1X1",
    "stem_pool_padding": "RESNET.STEM_POOL_PADDING",
    "stem_strides_t": "",
    "nonlocal_on": "OCTCONV.NONLOCAL",
    "nonlocal_pool": "NONLOCAL.POOL",
    "nonlocal_pool_after": "",
    "nonlocal_instantiation": "NONLOCAL.INSTANTIATION",
    "speed_ratio": "SLOWFAST.ALPHA",
    "fusion_norm": "",
    "slow_frames": "",
}

# What a file that says other options has, where it does not say these: only mmaction2's networks
# have others.
USUAL = {
    "stem_strides_t": (1, 1),
    "nonlocal_pool_after": False,
    "fusion_norm": True,
    "slow_frames": "spread",
}


@dataclass(frozen=True, slots=True)
class Assumptions:
    """None: the file does not say. mean, std: of the input in 0..1, per channel.

    options: those of `OPTIONS` with which the network was trained, for weights that are loaded into
    a network of the kind that they were trained in.
    archs: the networks, without their depth, that compute what was trained; (): names and shapes
    tell.
    reverse_channels: whether the channels of RGB are reversed, before they are normalized.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bn_eps: float | None = None
    stride_1x1: bool | None = None
    downsample: Downsample | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    archs: tuple[str, ...] = ()
    reverse_channels: bool | None = None

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, *, own: bool = True) -> "Assumptions":
        """Those of a checkpoint. own: this package wrote it; else its recipe is PySlowFast's."""
        said = checkpoint.network if own else {}
        options = said or _options_in(checkpoint.recipe)
        seen = checkpoint.input
        return cls(seen.mean, seen.std, options=options, reverse_channels=_order_of(seen))

    @classmethod
    def of(cls, model_2d: nn.Module, seen: InputSpec | None = None) -> "Assumptions":
        """Read them from an image network of this package. seen: the input of its training."""
        seen = seen or InputSpec()
        options: Mapping[str, Any] = model_2d.config  # type: ignore[assignment]
        eps = {module.eps for module in model_2d.modules() if isinstance(module, nn.BatchNorm2d)}
        if options.get("stride_last"):
            raise CheckpointError(
                f"{options['name']} has its strides at the last 1x1, where no video network has"
                " them; inflate a network whose stride is at the 3x3 or the first 1x1"
            )
        return cls(
            mean=seen.mean,
            std=seen.std,
            bn_eps=eps.pop() if len(eps) == 1 else None,
            stride_1x1=bool(options.get("stride_1x1")),
            downsample=options.get("downsample") or ("pool" if options.get("alpha") else "stride"),
            reverse_channels=_order_of(seen),
        )

    def check_model(self, model_3d: nn.Module, is_octave: bool) -> list[str]:
        """The assumptions that cannot be checked, one line each. Raises CheckpointError for a
        contradiction.

        is_octave: the weights are an octave network's. Vanilla weights may be loaded into an octave
        network that pools: pooling is a part of the approximation that splitting them is, and is
        measured with it.
        """
        strided = {
            name: m
            for name, m in model_3d.named_modules()
            if isinstance(m, OctConv3d) and m.stride[-1] == 2
        }
        at_1x1 = any(name.endswith("reduce.conv") for name in strided)
        downsample = next(iter(strided.values())).downsample
        becomes_octave = not is_octave and any(
            m.in_channels.low or m.out_channels.low for m in strided.values()
        )
        trusted = []
        if self.stride_1x1 is None:
            trusted.append(
                f"the weights do not say where their strides sit; RESNET.STRIDE_1X1 {at_1x1} is"
                " taken as right"
            )
        elif self.stride_1x1 != at_1x1:
            place = "first 1x1" if self.stride_1x1 else "3x3"
            raise CheckpointError(
                f"the weights have their strides at the {place}; set RESNET.STRIDE_1X1"
                f" {self.stride_1x1}"
            )
        if self.downsample and self.downsample != downsample and not becomes_octave:
            raise CheckpointError(
                f"the weights downsample by {self.downsample}, the network by {downsample}; "
                f"set OCTCONV.DOWNSAMPLE {self.downsample}"
            )
        return trusted

    def check_options(self, model: nn.Module, path: str) -> None:
        """Raises CheckpointError if an option of `model` differs from that of the training."""
        config = config_of(model)
        arch = str(config.get("name", "")).rpartition("_r")[0].removesuffix("_nln")
        if self.archs and arch not in self.archs:
            raise CheckpointError(
                f"{path}: was trained as {' or '.join(self.archs)}, the model is"
                f" {config.get('name')}; set MODEL.ARCH {self.archs[0]}"
            )
        has_nonlocal = any(".nonlocal" in name for name, _ in model.named_modules())
        known = {**USUAL, **self.options} if self.options else {}
        for option in OPTIONS.keys() & known.keys() & config.keys():
            if option.startswith("nonlocal") and not has_nonlocal:
                continue
            theirs, here = known[option], config[option]
            if option == "downsample":
                theirs = theirs or _default_downsample(self.options)
                here = here or _default_downsample(config)
            theirs, here = _plain(theirs), _plain(here)
            if theirs != here:
                setting, in_options = OPTIONS[option], f'add "{option}={theirs}" to MODEL.OPTIONS'
                remedy = f"set {setting} to {theirs!r}" if setting else in_options
                raise CheckpointError(
                    f"{path}: was trained with {option}={theirs!r}, the model has {here!r};"
                    f" {remedy}"
                )

    def check_input(
        self, mean: Sequence[float], std: Sequence[float], reverse_channels: bool
    ) -> list[str]:
        """The assumptions that cannot be checked, one line each.

        Raises CheckpointError if DATA.MEAN or DATA.STD differs, by more than half a gray level of
        255, from the normalization in training, or DATA.REVERSE_INPUT_CHANNEL from its order.
        """
        trusted = []
        if self.reverse_channels is None and reverse_channels:
            trusted.append(
                "the weights do not say the order of their input's channels;"
                " DATA.REVERSE_INPUT_CHANNEL True is taken as right"
            )
        elif self.reverse_channels not in (None, reverse_channels):
            raise CheckpointError(
                "the weights were trained with another input; set DATA.REVERSE_INPUT_CHANNEL"
                f" {self.reverse_channels}"
            )
        for key, wanted, got in (("MEAN", self.mean, mean), ("STD", self.std, std)):
            if wanted is None:
                trusted.append(
                    f"the weights do not say their input's {key.lower()}; DATA.{key} {list(got)} is"
                    " taken as right"
                )
            elif not _is_equal(wanted, tuple(got)):
                raise CheckpointError(
                    f"the weights were trained with another input; set DATA.{key} {_short(wanted)}"
                )
        return trusted


def warn_of_another_input(said: Mapping[str, Any], given: Mapping[str, Any], path: str) -> None:
    """Warn where a caller says another input than the file does: the caller's is taken."""
    if differences := [
        f"{name} {_short(given[name])} instead of {_short(said[name])}"
        for name in said
        if name in given and not _is_equal(given[name], said[name])
    ]:
        logger.warning(
            "%s: says another input than the one that is given, which is taken: %s; scores may be"
            " worse on another input than the training's",
            *(path, ", ".join(differences)),
        )


def _is_equal(one: Any, other: Any) -> bool:
    """Of mean and std, to half a gray level."""
    if isinstance(one, tuple):
        return all(abs(a - b) <= 0.5 / 255 for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _short(value: Any) -> str:
    """(0.4850, ...) as [0.485, ...]."""
    if isinstance(value, tuple):
        return f"[{', '.join(f'{number:.4g}' for number in value)}]"
    return str(value)


def _order_of(seen: InputSpec) -> bool | None:
    """A description without a mean says nothing of the channels either."""
    return None if seen.mean is None else seen.reverse_channels


def _options_in(recipe: str) -> dict[str, Any]:
    """The options that the settings of PySlowFast name, as far as they can be read."""
    cfg = settings_in(recipe)
    values = {option: lookup(cfg, key) for option, key in OPTIONS.items() if key}
    return {
        option: value for option, value in values.items() if isinstance(value, bool | int | str)
    }


def settings_in(recipe: str) -> Any:
    """The settings in a text, for `lookup`; none of a text that is no YAML."""
    try:
        return yaml.safe_load(recipe)
    # Of dates and numbers that cannot be, and of brackets without end.
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError):
        return {}


def lookup(cfg: Any, key: str) -> Any:
    """The setting `key`, as DATA.MEAN; None if it is not there."""
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, dict) else None
    return cfg


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _default_downsample(config: Mapping[str, Any]) -> str:
    return "pool" if config.get("alpha") or config.get("block") == "preact" else "stride"
