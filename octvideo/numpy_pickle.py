"""Reader of pickles of dicts of numpy arrays, as in Caffe2's model zoos; nothing in them is
executed.

The pickle is run with stand-ins of this module: no numpy function is called with values from the
file, an array is made of bytes that were read, and every opcode that could build anything else is
refused. Memory stays within a small multiple of the file's size.
"""

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from iopath.common.file_io import g_pathmgr
from numpy.typing import NDArray

from octvideo.errors import CheckpointError, first_line
from octvideo.expansion import GROWTH, BoundedUnpickler, ExpansionError, expanded_size

Array = NDArray[Any]

# Kind and bytes per number of the arrays that are read: bool, signed, unsigned, float.
DTYPES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
# They would build objects, reach outside the file, or allocate what they claim before it is read.
REFUSED = (
    pickle.INST,
    pickle.OBJ,
    pickle.NEWOBJ,
    pickle.NEWOBJ_EX,
    pickle.PERSID,
    pickle.BINPERSID,
    pickle.EXT1,
    pickle.EXT2,
    pickle.EXT4,
    pickle.NEXT_BUFFER,
    pickle.READONLY_BUFFER,
)


class _RefusedError(Exception):
    """The pickle holds something other than arrays and plain values."""


def read_numpy_pickle(path: str) -> dict[str, Any]:
    """The dict that the file holds: arrays, nested dicts and lists, text and numbers.

    Raises CheckpointError for a file that is missing, damaged, or holds anything else.
    """
    try:
        with g_pathmgr.open(path, "rb") as file:
            data = file.read()
        content = _Unpickler(data).load()
        if expanded_size(content) > GROWTH * len(data) + 1000:
            raise ExpansionError
        content = _finished(content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (_RefusedError, ExpansionError) as error:
        raise CheckpointError(
            f"{path}: refused, it is no pickle of arrays and plain values ({error}); "
            "loading anything else could run code"
        ) from None
    # What a torn or forged file makes a parser raise has no end.
    except Exception as error:
        raise CheckpointError(
            f"{path}: damaged, or no pickle of arrays ({first_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dict of arrays")
    return content


class _Dtype:
    """Stands for numpy.dtype: a kind with bytes per number, the byte order that BUILD gives it."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if str(kind) not in DTYPES:
            raise _RefusedError(f"numbers of type {str(kind)[:20]!r}")
        self.dtype = np.dtype(str(kind))

    def build(self, state: Any) -> None:
        if state[1] in (">", "<"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray until BUILD brings its shape, type and bytes."""

    def __init__(self, value: Array | None = None) -> None:
        self.value = value

    def build(self, state: Any) -> None:
        _version, shape, dtype, by_column, raw = state
        self.value = _array(dtype, raw, tuple(shape), by_column)


def _array(dtype: Any, raw: Any, shape: tuple[Any, ...], by_column: bool = False) -> Array:
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not (isinstance(dtype, _Dtype) and isinstance(data, bytes)):
        raise _RefusedError("an array of objects")
    if any(type(side) is not int or side < 0 for side in shape):
        raise _RefusedError("an array of no shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise _RefusedError(f"an array of {list(shape[:6])} with {len(data)} bytes")
    values = np.frombuffer(data, dtype.dtype).astype(dtype.dtype.newbyteorder("="))
    return values.reshape(shape, order="F" if by_column else "C")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    """An array that numpy 2 pickled with protocol 5. axes: their order in memory, for order "K"."""
    array = _array(dtype, raw, shape, order == "F")
    return _Array(array.transpose(axes) if order == "K" and axes is not None else array)


class _Unpickler(BoundedUnpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), len(data))

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): _name_only,
            ("numpy", "dtype"): _Dtype,
            ("collections", "OrderedDict"): self._ordered,
            ("_codecs", "encode"): self._encoded,
        }
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            known[core, "_reconstruct"] = lambda *_: _Array()
            known[core, "scalar"] = lambda dtype, raw: _array(dtype, raw, ()).item()
        for core in ("numpy.core.numeric", "numpy._core.numeric"):
            known[core, "_frombuffer"] = _from_buffer
        if (module, name) not in known:
            raise _RefusedError(f"{module}.{name}"[:100])
        return known[module, name]

    def build(self) -> None:
        state = self.stack.pop()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(target, _Dtype | _Array):
            raise _RefusedError("an object with a state")
        target.build(state)

    def refuse(self) -> None:
        raise _RefusedError("an object")

    dispatch: ClassVar[dict[int, Any]] = {
        **BoundedUnpickler.dispatch,
        pickle.BUILD[0]: build,
        **dict.fromkeys((opcode[0] for opcode in REFUSED), refuse),
    }

    def _ordered(self, items: Any = ()) -> Any:
        self.charge(items)
        return OrderedDict(items)

    def _encoded(self, text: Any, encoding: str) -> bytes:
        """Decode bytes as Python 2 and 3 exchange them; other codecs are refused, since they could
        decompress."""
        self.charge(text)
        if encoding not in ("latin1", "latin-1"):
            raise _RefusedError("_codecs.encode")
        return str(text).encode("latin1")


def _name_only(*_: Any) -> Any:
    raise _RefusedError("an array made by its class")


def _text(key: Any) -> str:
    """Python 2 wrote its keys as bytes."""
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _finished(value: Any, depth: int = 0) -> Any:
    """Arrays for the stand-ins, in dicts, lists and tuples as deep as weights files nest them."""
    if depth > 8:
        raise _RefusedError("values nested more than 8 deep")
    if isinstance(value, dict):
        return {_text(key): _finished(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finished(item, depth + 1) for item in value]
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, str | bytes | int | float | bool | None):
        return value
    raise _RefusedError(f"a {type(value).__name__.strip('_')}")
