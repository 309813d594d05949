"""Downloads into a cache folder: resumed, checked, and written atomically.

OCTVIDEO_HOME     the cache folder; by default octvideo in XDG_CACHE_HOME or ~/.cache. Beside
                  downloads it holds shards/ (DATA.SHARD_CACHE_DIR, indexes of foreign tars) and
                  optimized/ (octvideo.deploy.cache)
OCTVIDEO_OFFLINE  nothing is downloaded; a file that was put into the folder by hand is used
HTTPS_PROXY, ...  as everywhere
"""

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from iopath.common.file_io import g_pathmgr
from tqdm import tqdm

from octvideo.errors import CheckpointError, logger
from octvideo.files import OutputError, write_atomically

CHUNK = 2**20
ATTEMPTS = 5  # in a row that bring nothing
TIMEOUT = 30.0


def cache_folder() -> Path:
    """OCTVIDEO_HOME, else octvideo in the user's cache folder."""
    if home := os.environ.get("OCTVIDEO_HOME"):
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "octvideo"


def is_offline() -> bool:
    return os.environ.get("OCTVIDEO_OFFLINE", "").lower() not in ("", "0", "false", "no")


def cached(url: str, name: str, sha256: str = "") -> Path:
    """The file `name` of the cache folder, downloaded from `url` if it is not there yet.

    sha256: the first digits of its hash, if known; else the hash is stored at the first download
    and checked from then on. Two processes that ask at once download it once; a folder that holds
    the file need not be writable. Raises CheckpointError if it cannot be downloaded or is another
    file.
    """
    path = cache_folder() / name
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                if not path.exists():
                    _fetch(url, path, sha256)
        _check(path, sha256)
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror or error}; make room, or choose another folder with"
            " OCTVIDEO_HOME"
        ) from error
    return path


def is_reachable(url: str) -> bool:
    """Whether the server has the file. False after 5 seconds without a response."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "octvideo"})
    try:
        with urllib.request.build_opener().open(request, timeout=5.0):
            return True
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- Fetching


def _fetch(url: str, path: Path, sha256: str) -> None:
    if is_offline():
        raise CheckpointError(
            f"{path}: is not there, and OCTVIDEO_OFFLINE is set; put the file of {url} there"
        )
    logger.info("fetching %s to %s", url, path)
    part, failures = path.with_name(f"{path.name}.part"), 0
    while True:
        before = _size(part)
        try:
            if _append(url, part):
                break
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # what is there is longer than the file: another one
                part.unlink()
            elif error.code < 500:
                raise CheckpointError(
                    f"{url}: the server answered {error.code} {error.reason}; put the file at"
                    f" {path}"
                ) from error
            reason = f"{error.code} {error.reason}"
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
        ) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        failures = 0 if _size(part) > before else failures + 1
        if failures == ATTEMPTS:
            raise CheckpointError(
                f"{url}: {reason}; run it again to resume, or put the file at {path}"
            )
    found = hash_of(part)
    if not found.startswith(sha256):
        part.unlink()
        raise CheckpointError(
            f"{url}: its sha256 is {found[:16]}..., not {sha256}...; what came is another file, and"
            " was removed"
        )
    part.replace(path)
    _tag(part).unlink(missing_ok=True)


def _append(url: str, part: Path) -> bool:
    """Download the missing rest of `part`. False if the connection ended before the file did."""
    start, tag = _size(part), _tag(part)
    request = urllib.request.Request(url, headers={"User-Agent": "octvideo"})
    if start and tag.exists():
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", tag.read_text())
    opener = urllib.request.build_opener()  # which asks for the proxies of now
    with opener.open(request, timeout=TIMEOUT) as response:
        if response.status != 206:  # the whole file, because it has changed or cannot be resumed
            start = 0
            tag.write_text(
                response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            )
        left = int(response.headers.get("Content-Length") or -1)
        total = start + left if left >= 0 else None
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None
        )
        with part.open("ab" if start else "wb") as file, bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    return total is None or _size(part) == total


def _tag(part: Path) -> Path:
    """The server's tag of the version that `part` belongs to."""
    return part.with_name(f"{part.name}.etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- Checking


def hash_of(path: str | Path) -> str:
    """The sha256 of a file, here or at an address that iopath opens."""
    with g_pathmgr.open(str(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, sha256: str) -> None:
    """Compare the file with the known hash, or with that of the first download."""
    memory = path.with_name(f"{path.name}.sha256")
    remembered = memory.read_text().strip() if memory.exists() else ""
    found = hash_of(path)
    if not found.startswith(sha256) or (remembered and found != remembered):
        raise CheckpointError(
            f"{path}: its sha256 is {found[:16]}..., not {(sha256 or remembered)[:16]}...; "
            f"remove it and {memory.name} to fetch it again"
        )
    if not remembered:
        with suppress(OutputError):  # a folder that was filled before and cannot be written to
            write_atomically(str(memory), lambda file: file.write(f"{found}\n".encode()))
            if not sha256:
                logger.info("%s: sha256 %s, remembered: none is published", path, found)
