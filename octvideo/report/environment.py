"""The software and hardware of a measurement."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import torch

from octvideo.errors import installed_version
from octvideo.report.known_problems import cudnn_version


@cache
def versions() -> dict[str, str]:
    """Versions of software that affects results, by package; the commit of a git checkout."""
    packages = ("octvideo", "torch", "numpy", "av", "decord", "pytorchvideo")
    found = {name: installed_version(name) for name in packages}
    found |= {"python": platform.python_version(), "commit": commit()}
    return {name: number for name, number in found.items() if number}


def commit() -> str:
    """The git commit of the checkout that octvideo runs from, with "+changes" where files differ;
    "" elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # Installed: a repository around it is somebody else's.
        return ""
    head, changes = (
        _git(root, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
    )
    return head + "+changes" * bool(head and changes)


def _git(root: Path, *words: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def environment() -> dict[str, str]:
    """Versions and hardware as a line of text, without host name or path."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "octvideo": installed_version("octvideo"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cuDNN": ".".join(map(str, cudnn_version(cudnn))) if cudnn and devices else "none",
        "GPU": ", ".join(devices) or "none",
        "CPU": f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
    }
