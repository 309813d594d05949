"""A note of the file that is being read, which another process can see, and the list of files known
to be bad.

A decoder may hang or crash inside native code, where neither an exception nor a thread nor a signal
handler helps. The worker therefore notes the file before it reads; the loader, in another process,
checks the note and the clock, ends the worker, and knows which file to blame. From then on
`reading` refuses that file in every worker.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import Structure, c_char, c_double

from octvideo.errors import DataError

known_bad: dict[str, str] = {}
"""Path -> cause, of files that ended a worker. Belongs to this process; the loader fills it in its
workers."""


class DecodeError(DataError):
    """A video cannot be read, or not at the requested frames. Attributes: `path`, `cause`."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"


def cause_of(error: Exception) -> str:
    """One short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().splitlines()[-1][:200]


class Note(Structure):
    """The file that one worker reads, and since when, in seconds of the monotonic clock; 0 between
    files."""

    _fields_ = [("since", c_double), ("path", c_char * 4096)]
    since: float
    path: bytes

    def stuck_on(self, timeout_seconds: float) -> str:
        """The file that has been read for too long, "" when there is none."""
        since, path = self.since, self.path
        # The same start after the path was copied: the two belong together.
        overdue = 0 < since == self.since and time.monotonic() - since > timeout_seconds
        return path.decode(errors="surrogateescape") if overdue else ""


_note, _shared = Note(), False


def share_note(note: Note) -> None:
    """From now on, `reading` writes to this note, which the loader sees."""
    global _note, _shared
    _note, _shared = note, True


def is_worker() -> bool:
    """Whether another process sees this one's note, and replaces it if it crashes."""
    return _shared


def stuck_here(timeout_seconds: float) -> str:
    """A message if this process has read one file for too long, else ""; no loader watches it."""
    path = _note.stuck_on(timeout_seconds)
    if not path:
        return ""
    return (
        f"{path}: reading it did not end within {timeout_seconds:g} seconds (DATA_LOADER.TIMEOUT);"
        " set DATA_LOADER.NUM_WORKERS above 0, which survives such files, or take it off the list"
    )


def still_reading() -> None:
    """Start the clock anew: the file gave another packet or frame. A long video is not a stuck
    one."""
    if _note.since:
        _note.since = time.monotonic()


def refuse_known_bad(path: str) -> None:
    """Raise DecodeError for a file that has ended a worker."""
    if path in known_bad:
        raise DecodeError(path, known_bad[path])


@contextmanager
def reading(path: str) -> Iterator[None]:
    """A context for everything that touches a file of the dataset on this machine; raises
    DecodeError for a file known to be bad.

    A download comes before it: a server that is slow says nothing of the file.
    """
    refuse_known_bad(path)
    _note.path = path.encode(errors="surrogateescape")[:4095]
    _note.since = time.monotonic()
    try:
        yield
    finally:
        _note.since = 0.0
