"""Ranges of remote files on a local disk, up to a limit; the least recently used go first."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

_ROOM = 0.9  # share of the limit that is left when space has been made
_CHECKS = 20  # how often a limit's worth of bytes is counted while it is written


class RangeCache(NamedTuple):
    """Any number of processes share `folder`; each keeps it below `limit` bytes, except for the
    bytes that others have just written."""

    folder: str
    limit: int

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        with suppress(OSError):
            data = path.read_bytes()
            os.utime(path)
            return data
        return None

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes if there is room. A full or read-only disk raises no error."""
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{uuid4().hex[:8]}.tmp")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        written = _written.get(self.folder, self.limit) + len(data)
        if written * _CHECKS > self.limit:
            written = 0
            self._make_room()
        _written[self.folder] = written

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return Path(self.folder, digest[:2], digest[2:])

    def _make_room(self) -> None:
        files: list[tuple[float, int, str]] = []
        for folder in sorted(Path(self.folder).glob("??")):
            with suppress(OSError):
                for entry in os.scandir(folder):
                    status = entry.stat()
                    files.append((status.st_mtime, status.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        if total <= self.limit:
            return
        for _, size, path in sorted(files):
            with suppress(OSError):
                Path(path).unlink()
            total -= size
            if total <= _ROOM * self.limit:
                return


_written: dict[str, int] = {}
"""Bytes that this process has put into a folder since it last counted. The first time it counts at
once."""
