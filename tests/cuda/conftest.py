"""For a GPU machine that may have torch and little else: clips are tensors here, and files are
local.

Needs torch, numpy, pytest, tqdm and tensorboard; `pytest tests/cuda` takes less than a minute.
"""

import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))


def _local_files_only():
    """What the engine asks of iopath, for local paths."""
    files = SimpleNamespace(
        open=open,
        isfile=os.path.isfile,
        isdir=os.path.isdir,
        ls=os.listdir,
        rm=os.remove,
        mkdirs=partial(os.makedirs, exist_ok=True),
    )
    for name in ("iopath", "iopath.common", "iopath.common.file_io"):
        sys.modules[name] = ModuleType(name)
    sys.modules["iopath.common.file_io"].g_pathmgr = files


try:
    import iopath  # noqa: F401
except ModuleNotFoundError:
    _local_files_only()


def pytest_collection_modifyitems(items):
    """Warnings are shown and fail nothing: a GPU machine brings its own versions of torch and its
    libraries."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def device():
    return torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _float32_products_are_exact():
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])
