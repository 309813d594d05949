"""Files written atomically. Paths go through iopath, so handlers of object storage work."""

import csv
import fcntl
import glob
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any
from uuid import uuid4

from iopath.common.file_io import g_pathmgr

from octvideo.errors import ConfigError, OctvideoError, printable

UNFINISHED = ".tmp"
_BESIDE = ".unfinished"
MOST_KEPT = 1 << 28  # bytes of a file that is replaced where nothing can be renamed


def shipped_folder(name: str) -> Path:
    """configs/ or data_lists/: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def what_is_missing(path: str | Path, kind: str = "file") -> str:
    """ "there is no folder /a/b", the first that is missing on the way to `path`; else "there is no
    such file"."""
    if not is_local(str(path)):
        return f"there is no such {kind}"
    missing = [folder for folder in Path(path).parents if not is_there(folder)]
    return f"there is no folder {missing[-1]}" if missing else f"there is no such {kind}"


def is_there(path: str | Path) -> bool:
    """Whether a file or folder can be reached; False also where the system gives an error."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def is_local(path: str) -> bool:
    return "://" not in path


def require_another_file(output: str | Path, source: str | Path) -> None:
    """Raise ConfigError if writing `output` would replace `source`: the same file, also through
    links."""
    try:
        same = Path(output).samefile(source)
    except (OSError, ValueError):  # one of them does not exist here
        return
    if same:
        raise ConfigError(
            f"{output}: is {source} itself, which would be lost; name another file to write"
        )


def require_place(output: Path) -> None:
    """Raise ConfigError if no file can be written there: asked before long work on its content."""
    if is_there(output) and output.is_dir():
        raise ConfigError(f"{output}: is a folder; name a file to write")
    if not (is_stream(output) or os.access(output.parent, os.W_OK)):
        there = is_there(output.parent)
        reason = "its folder cannot be written to" if there else what_is_missing(output)
        raise ConfigError(f"{output}: {reason}; name a file in a folder that can be written to")


def is_stream(path: Path) -> bool:
    """A pipe, a device or what this process has open: it is written to, and not replaced."""
    return str(path.parent) in ("/dev", "/dev/fd") or (is_there(path) and path.is_fifo())


class OutputError(OctvideoError, OSError):
    """A run's output cannot be written. On this machine the file that was there before is
    unchanged."""


@contextmanager
def writing(path: str) -> Iterator[None]:
    """A context in which an OSError becomes an OutputError that names the path and the remedy."""
    try:
        yield
    except OctvideoError:
        raise
    except OSError as error:
        remedy = (
            "what was written before is whole. Make room there, and the same command continues"
            if is_local(path)
            else "the same command continues once it can"
        )
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); {remedy}"
        ) from error


def is_handled(path: str) -> bool:
    """Whether a handler for this address is registered with iopath."""
    return any(path.startswith(known) for known in g_pathmgr._path_handlers)


def require_handler(path: str) -> None:
    """Raise OctvideoError for a scheme that nothing handles: iopath would make it a folder."""
    if not is_local(path) and not is_handled(path):
        scheme = path.partition("://")[0]
        raise OctvideoError(
            f"{path}: nothing can write to {scheme}://; register a handler for it with iopath's"
            " g_pathmgr, or choose a local OUTPUT_DIR"
        )


def write_atomically(
    path: str, write: Callable[[IO[bytes]], object], *, put_back: bool = True
) -> None:
    """Call write(file); afterwards `path` is either complete, on the disk, or unchanged. Raises
    OutputError.

    A file at an address of iopath's is written in place, and removed after an error. put_back: then
    the file that was there before is written again; it is read first for that, up to 256 MB.
    """
    require_handler(path)
    with writing(path):
        if is_local(path):
            whole = nullcontext if is_stream(Path(path)) else appears_whole
            with whole(Path(path)) as place, place.open("wb") as file:
                write(file)
        else:
            before = _read_handled(path) if put_back else None
            restored = put_back_after_errors(before, partial(_write_handled, path))
            with restored, handled_file(path) as file:
                write(file)


@contextmanager
def put_back_after_errors(before: bytes | None, write: Callable[[bytes], object]) -> Iterator[None]:
    """A context that replaces a file; after an error `write` gets what was in it, where there was
    one that was not too large to keep."""
    try:
        yield
    except BaseException:
        if before is not None and len(before) <= MOST_KEPT:
            with suppress(Exception):  # whatever a storage raises that is perhaps away
                write(before)
        raise


def _read_handled(path: str) -> bytes | None:
    """The file of a handler of iopath, or the beginning of one that is too large to keep."""
    with suppress(Exception), g_pathmgr.open(path, "rb") as file:  # of no file, or one not readable
        return bytes(file.read(MOST_KEPT + 1))
    return None


def _write_handled(path: str, data: bytes) -> None:
    with handled_file(path) as file:
        file.write(data)


@contextmanager
def handled_file(path: str) -> Iterator[IO[bytes]]:
    """A file of a handler of iopath, to write to; after an error there is none of this name."""
    file = g_pathmgr.open(path, "wb")
    with removed_after_errors(file, partial(g_pathmgr.rm, path)):
        yield file


@contextmanager
def removed_after_errors(file: IO[bytes], remove: Callable[[], object]) -> Iterator[None]:
    """A context that writes into a file of a storage, and closes it; after an error before that it
    calls `remove`, as a file that was cut looks like a whole one.

    A close that fails removes nothing: most storages have then kept the file that was there before.
    """
    try:
        yield
        file.flush()
    except BaseException:
        for step in (file.close, remove):
            with suppress(Exception):  # whatever a storage raises that is perhaps away
                step()
        raise
    file.close()


@contextmanager
def appears_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`: the file written there is renamed to `path`, on the disk;
    after an error it is removed."""
    temporary = path.with_name(f"{path.name}.{uuid4().hex[:8]}{UNFINISHED}")
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(str(path.parent))


@contextmanager
def appear_together(path: Path) -> Iterator[Path]:
    """`path`, but in a temporary folder beside it: the files written there are renamed to their
    names beside `path`, on the disk; after an error they are removed.

    A file that was there is replaced and never written into, so who has mapped it into memory keeps
    what it was. A kill between two renames leaves new files beside old ones: one of them should
    hold a digest of the others. Raises OutputError.
    """
    with writing(str(path)), folder_beside(path) as folder:
        yield folder / path.name
        files = sorted(folder.iterdir())
        for file in files:
            fsync(file)
        for file in files:
            file.replace(path.with_name(file.name))
        fsync_folder(str(path.parent))


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, for what shall be `path`. Those that killed processes left
    there are removed, where the file system has locks. Raises OutputError where it cannot be made.
    """
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone_in(path.parent):
            _remove_left_beside(path)
            # Not UNFINISHED, for a folder is not removed as a file is.
            waiting = TemporaryDirectory(_BESIDE, f"{path.name}.", path.parent)
            lock = os.open(waiting.name, os.O_RDONLY)
            _is_locked(lock)
    try:
        with waiting as folder:
            yield Path(folder)
    finally:
        os.close(lock)


def _remove_left_beside(path: Path) -> None:
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{_BESIDE}"):
        with suppress(OSError):
            lock = os.open(left, os.O_RDONLY)
            try:
                if _is_locked(lock):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _is_locked(descriptor: int) -> bool:
    """Lock an open folder for this process, unless another has: whether it is locked by it."""
    with suppress(OSError):  # also of a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One process at a time; on a file system without locks no one waits."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def fsync_folder(folder: str) -> None:
    """Make a rename in this folder survive a power cut."""
    fsync(Path(folder))


def fsync(path: Path) -> None:
    """Make what is in this file, or the names in this folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_unfinished(name: str) -> bool:
    """Whether a killed write left this file behind. (0.1.0 wrote NAME.pyth.tmp.)"""
    return re.search(rf"(\.[0-9a-f]{{8}}|\.pyth){re.escape(UNFINISHED)}$", name) is not None


def append_json_line(path: Path, record: Any) -> None:
    """Append a line. It has reached the operating system when this returns, and so outlives this
    process, but not a power cut."""
    # The newline comes first: it also ends a line that a kill cut short.
    with path.open("ab", buffering=0) as file:
        file.write(b"\n" + json.dumps(record).encode())


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, in order, without lines that a kill cut short; none without a file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def make_output_folder(folder: str, remedy: str = "name another folder") -> None:
    """Create the folder and prove that it can be written to. Raises OctvideoError."""
    require_handler(folder)
    # of this process alone: all ranks probe one folder at a time
    probe = f"{folder}/.write_test_{uuid4().hex}"
    try:
        g_pathmgr.mkdirs(folder)
        with g_pathmgr.open(probe, "wb") as file:
            file.write(b"")
        g_pathmgr.rm(probe)
    # A handler may raise any exception when it cannot write.
    except (OSError, ValueError, AssertionError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OctvideoError(f"{folder}: cannot be written to ({reason}); {remedy}") from error


def bad_csv(causes: Iterable[tuple[str, str]]) -> bytes:
    """A csv of the paths that cannot be read, and why."""
    text = io.StringIO()
    rows = [(csv_text(path), csv_text(cause)) for path, cause in causes]
    csv.writer(text).writerows([("path", "reason"), *rows])
    return text.getvalue().encode(errors="surrogateescape")


def csv_text(text: str) -> str:
    """Outside text as a cell: control characters escaped, a quote before what a sheet would run."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@")) else shown
