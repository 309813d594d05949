"""Files of safetensors: tensors and text, no code. A checkpoint's other values stand in the
metadata as JSON.

model_state  the tensors of the file, by name
meta, cfg    under the metadata's key "octvideo", as they stand in a .pyth; so do data (which list
             the weights were trained on) and epoch
"""

import json
import posixpath
import struct
from collections.abc import Mapping
from typing import Any

from iopath.common.file_io import g_pathmgr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from octvideo.errors import CheckpointError, first_line
from octvideo.files import write_atomically

KEY = "octvideo"
CARRIED = ("meta", "cfg", "data", "epoch")
MAX_HEADER = 100_000_000  # the library's own limit


def is_safetensors(start: bytes) -> bool:
    """Whether these first 9 bytes or more begin a safetensors file: the length of a header, and its
    brace."""
    if len(start) < 9 or start[8:9] != b"{":
        return False
    return struct.unpack("<Q", start[:8])[0] <= MAX_HEADER


def read_safetensors(path: str) -> dict[str, Any]:
    """{"model_state": tensors by name}, and what else a checkpoint of this package carried
    (`CARRIED`).

    Raises CheckpointError for a file that is missing or damaged.
    """
    try:
        with safe_open(g_pathmgr.get_local_path(path), framework="pt", device="cpu") as file:
            # A tensor of the library reads the file whenever it is used: what replaces the file in
            # its place would change a network that is running.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            carried = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: damaged or no file of safetensors ({first_line(error)})"
        ) from error
    if not isinstance(carried, dict):
        raise CheckpointError(f"{path}: its metadata {KEY!r} is {str(carried)[:40]}, not an object")
    return {name: carried[name] for name in CARRIED if name in carried} | {"model_state": tensors}


def write_safetensors(path: str, checkpoint: Mapping[str, Any]) -> None:
    """The weights of a checkpoint, or of their moving average, and what it says of them."""
    weights: Mapping[str, Tensor] = checkpoint.get("ema_state") or checkpoint["model_state"]
    # Two names of one tensor, and memory formats, do not exist in such a file.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    carried = {name: checkpoint[name] for name in CARRIED if name in checkpoint}
    data = save(tensors, metadata={"format": "pt", KEY: json.dumps(carried)})
    try:
        g_pathmgr.mkdirs(posixpath.dirname(path) or ".")
        write_atomically(path, lambda file: file.write(data), put_back=False)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error}); make room and try again"
        ) from error
