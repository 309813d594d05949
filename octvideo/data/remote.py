"""Data that lies elsewhere: a path with a scheme (s3://...) is fetched by the handler registered for it with iopath."""

import os
from pathlib import Path

from octvideo.errors import DataError


def local_path(path: str | Path) -> str:
    """Where the file lies on this machine; without a scheme, as it is. Raises DataError where nothing can fetch it."""
    path = str(path)
    if "://" not in path:
        return path
    from iopath.common.file_io import g_pathmgr

    try:
        found = g_pathmgr.get_local_path(path)
    except (
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:  # The last is iopath's for a handler that cannot fetch.
        raise DataError(f"{path}: cannot be fetched ({error})") from error
    if found == path:
        raise DataError(
            f"{path}: nothing can fetch this; register a handler for its scheme with iopath's g_pathmgr"
        )
    return found


def join(folder: str | Path, name: str) -> str:
    """folder/name; `name` alone where it is absolute or has a scheme."""
    # pathlib would make one slash of the two in a scheme.
    return name if "://" in name else os.path.join(str(folder), name)  # noqa: PTH118


def parent(path: str | Path) -> str:
    return os.path.dirname(str(path))  # noqa: PTH120
