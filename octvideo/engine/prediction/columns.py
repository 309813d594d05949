"""Tables of columns as .npz or .parquet, written atomically."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from octvideo.errors import ConfigError, DataError, import_optional
from octvideo.files import write_atomically, writing

Columns = Mapping[str, Iterable[Any]]


def check_suffix(path: Path, kinds: Sequence[str]) -> str:
    """A path's suffix. Raises ConfigError for one outside `kinds`, OctvideoError without its
    library."""
    suffix = path.suffix.lower()
    if suffix not in kinds:
        raise ConfigError(f"{path}: this is written as {', '.join(kinds)}; choose one of these")
    if suffix == ".parquet":
        _arrow()
    return suffix


def write_columns(path: Path, columns: Columns) -> None:
    """All columns are equally long; a parquet column of vectors holds lists."""
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if check_suffix(path, (".npz", ".parquet")) == ".npz":
        arrays: dict[str, Any] = {name: np.array(list(values)) for name, values in columns.items()}
        write_atomically(str(path), lambda file: np.savez(file, allow_pickle=False, **arrays))
        return
    arrow, parquet = _arrow()
    table = arrow.table({name: arrow.array(list(values)) for name, values in columns.items()})
    write_atomically(str(path), lambda file: parquet.write_table(table, file))


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Raises DataError for a file that is damaged or of another kind."""
    try:
        if path.suffix.lower() == ".parquet":
            return _arrow()[1].read_table(str(path)).to_pydict()
        with np.load(path, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        return {n: list(a) if a.ndim > 1 else a.tolist() for n, a in columns.items()}
    except (OSError, ValueError, EOFError, TypeError, BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error}); write to another file") from error


def _arrow() -> tuple[Any, Any]:
    purpose, remedy = "a .parquet", "pip install pyarrow, or write another kind of file"
    arrow = import_optional("pyarrow", purpose, remedy)
    return arrow, import_optional("pyarrow.parquet", purpose, remedy)
