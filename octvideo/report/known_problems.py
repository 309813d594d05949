"""Combinations of versions and hardware that are known to be wrong or slow for video networks."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Installation:
    """The facts that decide: torch and cuDNN as (2, 9, 1) and (9, 10, 2), cuDNN None without a GPU;
    the CPU's flags, None if unknown."""

    torch: tuple[int, ...]
    cudnn: tuple[int, ...] | None
    cpu_flags: frozenset[str] | None

    @classmethod
    def here(cls) -> "Installation":
        """This machine's installation."""
        number = torch.backends.cudnn.version() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
        release = re.match(r"[\d.]*\d", torch.__version__)
        assert release is not None
        return cls(
            tuple(int(part) for part in release[0].split(".")),
            None if number is None else cudnn_version(number),
            cpu_flags(),
        )


def cudnn_version(number: int) -> tuple[int, ...]:
    """91002 is 9.10.2, and before version 9 8902 was 8.9.2."""
    major = 10_000 if number >= 90_000 else 1_000
    return number // major, number % major // 100, number % 100


def cpu_flags(path: Path = CPU_INFO) -> frozenset[str] | None:
    """The flags (x86) or features (ARM) of the first core on Linux; None elsewhere."""
    try:
        text = path.read_text()
    except OSError:
        return None
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else None


def wrong_half_precision(here: Installation) -> bool:
    """Since torch 2.9 these versions of cuDNN are passed by."""
    return here.cudnn is not None and (9, 8) <= here.cudnn < (9, 11) and here.torch < (2, 9)


def slow_half_precision(here: Installation) -> bool:
    if here.cudnn is None or here.torch < (2, 9):
        return False
    return here.torch < (2, 9, 1) or (9, 8) <= here.cudnn < (9, 15)


def slow_on_a_cpu(here: Installation) -> bool:
    fast = {"avx512_bf16", "amx_bf16", "avx10_2", "bf16"}
    return here.cpu_flags is not None and not here.cpu_flags & fast


# Whether it applies, the device that it is of, and the line.
PROBLEMS: tuple[tuple[Callable[[Installation], bool], str, str], ...] = (
    (
        wrong_half_precision,
        "cuda",
        (
            "wrong: cuDNN 9.8-9.10 computes bf16 conv3d of large inputs wrongly (pytorch issue"
            " 163539); set MODEL.COMPUTE_IN_2D=true, or install cuDNN 9.15 and torch 2.10"
        ),
    ),
    (
        slow_half_precision,
        "cuda",
        (
            "slow: torch 2.9, and later ones with cuDNN below 9.15, leave cuDNN out of fp16 and"
            " bf16 conv3d: three times the memory, 10-20 x the time (pytorch issues 166643,"
            " 174051); set MODEL.COMPUTE_IN_2D=true, or install torch 2.10 with its cuDNN"
        ),
    ),
    (
        slow_on_a_cpu,
        "cpu",
        (
            "slow: this CPU has neither AMX nor AVX512-BF16, without which convolutions in bf16"
            " or fp16 take about 10 times as long as in fp32, depthwise ones up to 50 times"
            " (pytorch issue 183815); leave TRAIN.MIXED_PRECISION false on it"
        ),
    ),
)


def known_problems(here: Installation | None = None, device: str = "") -> list[str]:
    """A line per problem of this installation, or the given one: what is wrong, the remedy.

    device: "cuda" or "cpu" for the problems of it alone; "": of both.
    """
    here = here or Installation.here()
    return [line for applies, of, line in PROBLEMS if device in ("", of) and applies(here)]
