"""Lower precision on a CPU, with OpenVINO: bfloat16, or 8-bit integers with a check on held-out
clips."""

import logging
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from octvideo.deploy import int8_graph
from octvideo.deploy.openvino import core
from octvideo.errors import ConfigError, OctvideoError, import_optional, logger
from octvideo.layers import OctConv2d, OctConv3d

Precision = Literal["auto", "fp32", "bf16", "int8"]

TOLERANCE = {"fp32": 1e-4, "bf16": 0.03, "int8": 0.1}
"""Largest relative difference of the output: on the example, in int8 the mean over held-out
clips."""

MIN_CLIPS = 8
MAX_OTHER_CLASS = 0.01
CLOSE = 0.05


def resolve(precision: str, engine: str) -> str:
    """Replace "auto" by bf16 or fp32 and return other precisions unchanged. Raises ConfigError for
    a precision that this machine does not support."""
    if precision not in get_args(Precision):
        raise ConfigError(
            f"there is no precision {precision!r}; there are {', '.join(get_args(Precision))}"
        )
    if precision == "auto":
        return "bf16" if engine == "openvino" and computes_bf16() else "fp32"
    if precision != "fp32" and engine != "openvino":
        raise ConfigError(
            f"precision {precision}: only engine openvino has it, on a CPU; pip install openvino"
            " and name no other engine, or take precision fp32"
        )
    if precision == "bf16" and not computes_bf16():
        raise ConfigError(
            "precision bf16: this CPU has neither AMX nor AVX512-BF16; take precision fp32"
        )
    return precision


def computes_bf16() -> bool:
    """Whether this CPU has AMX or AVX512-BF16, according to OpenVINO; False without OpenVINO."""
    if not find_spec("openvino"):
        return False
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def split_clips(calibration: Tensor | None) -> tuple[Tensor, Tensor]:
    """Clips that calibrate int8, and as many that check it. Raises ConfigError for fewer than 8."""
    count = 0 if calibration is None else len(calibration)
    if calibration is None or count < MIN_CLIPS:
        raise ConfigError(
            f"precision int8 got {count} clips to calibrate on; give at least {MIN_CLIPS} real"
            " ones, better 32"
        )
    return calibration[::2], calibration[1::2]


def quantized(network: Any, clips: Tensor) -> Any:
    """An OpenVINO graph in int8, calibrated on the clips."""
    nncf = import_optional("nncf", "precision int8", "pip install nncf")
    nncf.set_log_level(logging.ERROR)
    int8_graph.prepare(network)
    data = nncf.Dataset([clip[None].numpy() for clip in clips.cpu().contiguous()])
    with redirect_stdout(sys.stderr):  # Its bars; stdout is for what a program prints.
        found = nncf.quantize(network, data, subset_size=len(clips))
    int8_graph.drop_ranges_behind_upsampling(found)
    return found


@torch.inference_mode()
def check_int8(fast: nn.Module, model: nn.Module, held_out: Tensor) -> None:
    """Raise OctvideoError if int8 changes the first class or the output by more than the limits.

    A class that led in fp32 by less than 5 % of the largest value counts as undecided, and may
    change.
    """
    found = torch.cat([fast(clip[None]) for clip in held_out])
    expected = torch.cat([model(clip[None]) for clip in held_out])
    change = float(((found - expected).norm(dim=1) / expected.norm(dim=1)).mean())
    # A network of one class, as a detector, has no other, and nothing is decided.
    first, second = expected.topk(min(2, expected.shape[1])).values[:, [0, -1]].unbind(1)
    decided = first - second > CLOSE * expected.abs().amax(1)
    other = int((decided & (found.argmax(1) != expected.argmax(1))).sum())
    if other > MAX_OTHER_CLASS * len(held_out) or not change <= TOLERANCE["int8"]:
        raise OctvideoError(
            f"precision int8 is refused: of {len(held_out)} held-out clips {other} get another"
            f" class (at most 1 %), and the output changes by {change:.1%} (at most"
            f" {TOLERANCE['int8']:.0%}); take bf16, or calibrate on more clips"
        )
    logger.info(
        "int8: %d of %d held-out clips change class, the output by %.1f %%",
        other,
        len(held_out),
        100 * change,
    )


def warn_of_slow_octave(model: nn.Module, precision: str) -> None:
    """Warn if the octave network was measured to be slower than the vanilla one in `precision`."""
    widths = [m.out_channels for m in model.modules() if isinstance(m, OctConv2d | OctConv3d)]
    share = max((width.low / width.total for width in widths), default=0.0)
    if share and (precision == "int8" or (precision == "bf16" and share < 0.4)):
        logger.warning(
            "in %s this octave network takes about as long as the vanilla one, or longer"
            " (docs/deploy.md has times): the work between its convolutions costs what they save",
            precision,
        )
