"""Remote data: http(s) through the cache folder, other schemes by iopath's handlers."""

import hashlib
import os
import pickle
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from iopath.common.file_io import g_pathmgr

from octvideo.download import cached
from octvideo.errors import CheckpointError, DataError
from octvideo.files import is_handled, is_local


def local_path(path: str | Path) -> str:
    """The path of the file on this machine, downloaded if needed; a path without a scheme is
    returned unchanged. Raises DataError if nothing can fetch it."""
    path = str(path)
    if is_local(path):
        return path
    if is_http(path) and not is_handled(path):
        return _downloaded(path)
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
            f"{path}: nothing can fetch this; register a handler for its scheme with iopath's"
            " g_pathmgr"
        )
    return found


def is_http(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _downloaded(url: str) -> str:
    """The file of the cache folder, fetched at first use; two addresses never share one."""
    last = re.sub(r"[^\w.-]", "_", PurePosixPath(urlsplit(url).path).name)[-80:]
    try:
        return str(cached(url, f"files/{hashlib.sha256(url.encode()).hexdigest()[:12]}-{last}"))
    except (CheckpointError, ValueError) as error:
        reason = str(error).removeprefix(f"{url}: ")
        raise DataError(f"{url}: cannot be fetched ({reason})") from error


def handlers() -> bytes:
    """iopath's registered handlers that can be sent to another process, for `register` there."""
    sent = []
    for handler in g_pathmgr._path_handlers.values():
        with suppress(Exception):  # whatever a handler's state raises when it is pickled
            sent.append(pickle.dumps(handler))
    return pickle.dumps(sent)


def register(sent: bytes) -> None:
    """Register what `handlers` has sent: a process of a fork server has none of its parent's."""
    for pickled in pickle.loads(sent):
        with suppress(Exception):  # a class of a module that cannot be imported here
            g_pathmgr.register_handler(pickle.loads(pickled), allow_override=True)


def join(folder: str | Path, name: str) -> str:
    """folder/name; `name` alone where it is absolute or has a scheme."""
    # pathlib would make one slash of the two in a scheme.
    return os.path.join(str(folder), name) if is_local(name) else name  # noqa: PTH118


def absolute(path: str) -> str:
    """The absolute path without `..`; an address as it is."""
    return os.path.abspath(path) if is_local(path) else path  # noqa: PTH100


def parent(path: str | Path) -> str:
    return os.path.dirname(str(path))  # noqa: PTH120
