"""Sustained rates of GPUs, by name: bytes per second of memory, FLOP per second by precision."""

import re
from dataclasses import dataclass

from octvideo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Gpu:
    """The sustained rates of a card: bytes per second of a large copy, FLOP per second of a large
    product by precision."""

    name: str
    bandwidth: float
    rates: dict[str, float]


def _card(
    name: str,
    terabytes: float,
    teraflops: dict[str, float],
    bandwidth_share: float = 0.9,
    rate_share: float = 0.8,
) -> Gpu:
    """A card from its data sheet (dense products) and the sustained shares of it."""
    rates = {precision: 1e12 * rate_share * rate for precision, rate in teraflops.items()}
    return Gpu(name, 1e12 * bandwidth_share * terabytes, rates)


# TB/s and dense TFLOP/s of NVIDIA's data sheets. H100 and H200 are assumed to sustain 3.0 and 4.3
# TB/s in a large copy and 790 TFLOP/s in a large bf16 product; the other cards are assumed to
# sustain shares of the same size.
_HOPPER = {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}
_AMPERE = {"bf16": 312.0, "fp16": 312.0, "tf32": 156.0, "fp32": 19.5}
_L4 = {"bf16": 121.0, "fp16": 121.0, "tf32": 60.0, "fp32": 30.3}
_ADA = {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6}
GPUS = {
    "h100": _card("H100 SXM 80 GB", 3.35, _HOPPER, 3.0 / 3.35, 790 / 989.4),
    "h200": _card("H200 SXM 141 GB", 4.8, _HOPPER, 4.3 / 4.8, 790 / 989.4),
    "a100": _card("A100 SXM 80 GB", 2.039, _AMPERE),
    "l4": _card("L4 24 GB", 0.3, _L4),
    "t4": _card("T4 16 GB", 0.32, {"fp16": 65.0, "fp32": 8.1}),
    "rtx4090": _card("RTX 4090 24 GB", 1.008, _ADA),
}


# Their memory or clock differs from that of the card of the same name in the table.
_VARIANTS = {"pcie", "nvl", "40gb", "laptop", "mig", "d"}


def find_gpu(name: str) -> Gpu:
    """A card by its key in `GPUS` or by torch's name of the device. Raises ConfigError for any
    other."""
    words = set(re.split(r"[ -]", name.lower().replace("rtx ", "rtx")))
    found = words & GPUS.keys()
    if len(found) != 1 or words & _VARIANTS:
        raise ConfigError(
            f"there is no GPU {name!r} in the table; known are {', '.join(GPUS)}, or give a Gpu"
            " with rates of your own"
        )
    return GPUS[found.pop()]
