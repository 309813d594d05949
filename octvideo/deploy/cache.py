"""The results of optimizations on disk, so that the second one is quick.

The folder is $OCTVIDEO_CACHE (empty: nothing is stored), else `optimized` in $OCTVIDEO_HOME, the
cache folder of the package. It may be deleted at any time.
"""

import json
import os
import platform
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TypeVar

import torch
from torch import Tensor, nn

from octvideo.counted_run import tensors_of
from octvideo.download import cache_folder
from octvideo.errors import installed_version, logger

_ENTRY = re.compile(r"[0-9a-f]{32}|making-\w+")
MAX_ENTRIES = 32
"""The oldest are deleted beyond that; a graph of I3D R50 is one of 110 MB."""

Value = TypeVar("Value")


def optimized_folder() -> Path | None:
    """The folder of the entries; None if nothing is to be stored."""
    folder = os.environ.get("OCTVIDEO_CACHE")
    if folder is None:
        return cache_folder() / "optimized"
    return Path(folder).expanduser() if folder else None


def kept(
    key: str,
    read: Callable[[Path], Value],
    compute: Callable[[], Value],
    write: Callable[..., object],
) -> Value:
    """read(folder) if an entry is stored under `key`, else compute(), stored by write(value,
    folder).

    An entry that cannot be read, or a folder that cannot be written to, costs a line in the log,
    not the result.
    """
    folder = optimized_folder()
    if folder is None:
        return compute()
    entry = folder / key
    try:
        if entry.is_dir():
            value = read(entry)
            os.utime(entry)
            return value
    except Exception as error:  # Whatever a damaged file does to a reader, or a closed folder.
        logger.warning("%s: cannot be used (%s); it is made again", entry, error)
        rmtree(entry, ignore_errors=True)
    value = compute()
    try:
        _keep(entry, lambda temporary: write(value, temporary))
    except OSError as error:
        logger.warning("%s: what was measured is not kept (%s)", folder, error.strerror or error)
    return value


def _keep(entry: Path, write: Callable[[Path], object]) -> None:
    """Write an entry atomically: another process may write it at the same time."""
    entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = Path(mkdtemp(prefix="making-", dir=entry.parent))
    try:
        write(temporary)
        if not entry.exists():
            temporary.rename(entry)
    finally:
        rmtree(temporary, ignore_errors=True)
    # A folder that also holds other files, such as downloads, loses none of them.
    entries = []
    for path in entry.parent.iterdir():
        if _ENTRY.fullmatch(path.name):
            with suppress(OSError):  # Another process removed it.
                entries.append((path.stat().st_mtime, path))
    for _, old in sorted(entries)[:-MAX_ENTRIES]:
        rmtree(old, ignore_errors=True)


def key_of(*parts: object) -> str:
    """A name by these parts, the versions of libraries, the CPU and the number of threads."""
    libraries = [installed_version(name) for name in ("octvideo", "torch", "openvino", "nncf")]
    machine = (platform.machine(), _cpu(), torch.get_num_threads())
    return sha256(json.dumps([*map(str, parts), libraries, machine]).encode()).hexdigest()[:32]


def structure_of(model: nn.Module) -> str:
    """A hash of modules, their plain attributes (without the mode) and shapes of weights."""
    digest = sha256()
    for name, module in model.named_modules():
        values = sorted(vars(module).items())
        plain = {k: v for k, v in values if isinstance(v, _PLAIN) and k != "training"}
        digest.update(repr((name, type(module).__qualname__, plain)).encode())
    for name, tensor in tensors_of(model):
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
    return digest.hexdigest()


def weights_of(model: nn.Module) -> str:
    """A hash of the values of all weights and buffers."""
    return hash_of(*(tensor for _, tensor in tensors_of(model)))


def hash_of(*tensors: Tensor) -> str:
    """A hash of the values."""
    digest = sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


_PLAIN = (bool, int, float, str, tuple, type(None))


def _cpu() -> str:
    """The model's name; what Linux calls it says more than Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = [line for line in lines if line.startswith(("model name", "flags"))]
    return "".join(facts[:2])
