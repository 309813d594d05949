"""What a number was measured with."""

import os
import platform
from importlib.metadata import version

import numpy as np
import torch

from octvideo.report.known_problems import cudnn_version


def environment() -> dict[str, str]:
    """Versions and hardware, for people. No host name, no path."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "octvideo": version("octvideo"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cuDNN": ".".join(map(str, cudnn_version(cudnn))) if cudnn and devices else "none",
        "GPU": ", ".join(devices) or "none",
        "CPU": f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
    }
