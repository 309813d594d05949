"""What a number was measured with."""

import os
import platform

import numpy as np
import torch

from octvideo import __version__


def environment() -> dict[str, str]:
    """Versions and hardware, for people. No host name, no path."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "octvideo": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "GPU": ", ".join(devices) or "none",
        "CPU": f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
    }
