"""The memory that torch would allocate for a file of `torch.save`, computed before torch reads it.

`torch.load(weights_only=True)` runs no code, but it believes sizes: 300 bytes of pickle may ask for
gigabytes. Here the pickle is run with inert stand-ins for everything that it may build. Records
that are compressed or shorter than their tensors, tensors with more numbers than their storage, and
values that are repeated without bound are refused. torch then allocates at most a small multiple of
the file's size.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from octvideo.errors import CheckpointError, first_line
from octvideo.expansion import GROWTH, BoundedUnpickler, ExpansionError, expanded_size

SLACK = 2**20

# Bytes per number of what a pickle calls torch.FloatStorage, ...
_STORAGES = {
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Char", "Byte", "Bool", "Untyped"), 1),
    "ComplexDouble": 16,
}
_DTYPES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32", "complex32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"), 1),
    "complex128": 16,
}


class _TooLargeError(Exception):
    """The file asks for more memory than its size explains; the message says for what."""


class _NotPlainError(Exception):
    """The file holds something other than tensors and plain values."""


class _Size(int):
    """Stands for a storage's class or a dtype: bytes per number."""


@dataclass(frozen=True, slots=True)
class _Storage:
    """Stands for a storage: its bytes, and the bytes per number of its class."""

    num_bytes: int
    item: int


class _Tensor(int):
    """Stands for a tensor: its bytes."""


def check_bounds(file: IO[bytes], path: str) -> None:
    """Raise CheckpointError for more memory than the file's size explains. Rewinds `file`."""
    num_bytes = file.seek(0, 2)
    file.seek(0)
    is_zip = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    try:
        (_check_zip if is_zip else _check_legacy)(file, num_bytes)
    except (_TooLargeError, ExpansionError) as error:
        raise CheckpointError(
            f"{path}: refused, {error}; no file that torch.save writes does that"
        ) from None
    except _NotPlainError as error:
        raise CheckpointError(
            f"{path}: refused, it is no checkpoint of tensors and plain values ({error}); "
            "loading anything else could run code"
        ) from None
    # What a torn or forged file makes a parser raise has no end.
    except Exception as error:
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint ({first_line(error)})"
        ) from error
    file.seek(0)


def _check_zip(file: IO[bytes], num_bytes: int) -> None:
    """The format since torch 1.6: a zip of `data.pkl` and a record of plain bytes per storage."""
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        if len(records) != len(archive.infolist()):
            raise _TooLargeError("two records have one name")
        if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
            raise _TooLargeError("its records are compressed")
        if sum(info.file_size for info in records.values()) > num_bytes:
            raise _TooLargeError("its records overlap")
        name, *others = [name for name in records if name.endswith("data.pkl")] or [""]
        if others:
            raise _TooLargeError("it holds two pickles")
        folder, content = name.removesuffix("data.pkl"), archive.read(name)
        run = _DryRun(io.BytesIO(content), len(content))
        run.finish(run.load(), num_bytes)
        for key, size in run.storages.items():
            record = records.get(f"{folder}data/{key}")
            if record is None or record.file_size < size:
                raise _TooLargeError(f"storage {key[:40]!r} is larger than its record")


def _check_legacy(file: IO[bytes], num_bytes: int) -> None:
    """The format before: five pickles behind each other, then the storages."""
    source = _Limited(file, num_bytes)
    if file.read(1) == b"":
        raise EOFError("it is empty")
    file.seek(0)
    try:
        for _ in range(3):  # magic number, protocol, machine
            _DryRun(source, num_bytes).load()
    except Exception as error:
        raise _NotPlainError("torch.save has not written it") from error
    run = _DryRun(source, num_bytes)
    run.finish(run.load(), num_bytes)
    if sum(run.storages.values()) > num_bytes:
        raise _TooLargeError(f"it describes {sum(run.storages.values()):,} bytes of storages")


class _Limited:
    """A file whose reads allocate no more than it has left."""

    def __init__(self, file: IO[bytes], num_bytes: int) -> None:
        self._file, self._num_bytes, self.readline = file, num_bytes, file.readline

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, max(self._num_bytes - self._file.tell(), 0)))


class _DryRun(BoundedUnpickler):
    """Runs a pickle without building anything of torch's. storages: key -> bytes."""

    def __init__(self, file: Any, num_bytes: int) -> None:
        super().__init__(file, num_bytes)
        self.storages: dict[str, int] = {}
        self._tensor_bytes = 0

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): self._copying(OrderedDict),
            ("collections", "Counter"): self._copying(dict),
            ("builtins", "set"): self._copying(set),
            ("__builtin__", "set"): self._copying(set),
            ("builtins", "complex"): complex,
            ("__builtin__", "complex"): complex,
            ("_codecs", "encode"): self._encoded,
            ("torch", "Size"): self._copying(tuple),
            ("torch", "device"): _plain,
            ("torch.serialization", "_get_layout"): _plain,
            ("torch.nn.parameter", "Parameter"): _first,
            ("torch._utils", "_rebuild_parameter"): _first,
            ("torch._utils", "_rebuild_parameter_with_state"): _first,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self._tensor_v3,
            # A tensor with attributes of its own.
            ("torch._tensor", "_rebuild_from_type_v2"): lambda build, _type, args, _: build(*args),
        }
        if (module, name) in known:
            return known[module, name]
        kind = name.removesuffix("Storage")
        if module in ("torch", "torch.cuda", "torch.storage") and name != kind in _STORAGES:
            return _Size(_STORAGES[kind])
        if module == "torch" and name in _DTYPES:
            return _Size(_DTYPES[name])
        raise _NotPlainError(f"{module}.{name}"[:100])

    def persistent_load(self, pid: Any) -> _Storage:
        kind, size, key, _location, count = pid[:5]
        if kind != "storage" or not isinstance(size, _Size) or type(count) is not int or count < 0:
            raise _NotPlainError("a reference to something outside the file")
        num_bytes = count * size
        self.storages[str(key)] = max(num_bytes, self.storages.get(str(key), 0))
        return _Storage(num_bytes, size)

    def build(self) -> None:
        """BUILD sets attributes of what is on the stack: of ordered dicts and tensors alone."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        if not isinstance(self.stack[-1], OrderedDict | _Tensor):  # type: ignore[attr-defined]
            raise _NotPlainError("an object with a state")
        self.charge(state if isinstance(state, dict) else ())

    dispatch = BoundedUnpickler.dispatch | {pickle.BUILD[0]: build}  # type: ignore[assignment]

    def finish(self, value: Any, num_bytes: int) -> None:
        """Refuse values that are nested without end, or repeat more than the file is long."""
        if self._tensor_bytes > GROWTH * num_bytes + SLACK:
            raise _TooLargeError(f"it describes {self._tensor_bytes:,} bytes of tensors")
        if expanded_size(value) > GROWTH * num_bytes + 1000:
            raise ExpansionError

    def _copying(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """`make`, which copies what it is given: pickle could do that a million times."""

        def charged(*values: Any) -> Any:
            for value in values:
                self.charge(value)
            return make(*values)

        return charged

    def _encoded(self, text: str, encoding: str = "utf-8") -> bytes:
        self.charge(text)
        if encoding not in ("latin1", "latin-1"):
            raise _NotPlainError("_codecs.encode")
        return text.encode(encoding)

    def _tensor(self, storage: Any, _offset: Any, shape: Any, *_: Any) -> _Tensor:
        return self._checked(storage, shape, storage.item)

    def _tensor_v3(self, storage: Any, _offset: Any, shape: Any, *rest: Any) -> _Tensor:
        """rest: stride, requires_grad, hooks, dtype, ..."""
        return self._checked(storage, shape, rest[3])

    def _checked(self, storage: Any, shape: Any, item: int) -> _Tensor:
        if not isinstance(storage, _Storage) or any(type(size) is not int for size in shape):
            raise _NotPlainError("a tensor without a storage")
        num_bytes = math.prod(shape) * item
        if num_bytes > storage.num_bytes:
            raise _TooLargeError(f"a tensor of {list(shape[:6])} is larger than its storage")
        self._tensor_bytes += num_bytes
        return _Tensor(num_bytes)


def _plain(*_: Any) -> str:
    """Stands for a small value of torch's: a device, a layout."""
    return "plain"


def _first(value: Any, *_: Any) -> Any:
    return value
