"""Networks on the Hugging Face Hub: hf://user/name, hf://user/name@revision. Needs huggingface_hub
(extra [hub]).

HF_ENDPOINT, HF_TOKEN, HF_HOME: as everywhere. OCTVIDEO_OFFLINE: only what was fetched before is
used.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from octvideo.download import is_offline
from octvideo.errors import CheckpointError, import_optional

SCHEME = "hf://"
REMEDY = "pip install 'octvideo[hub]'"


def fetch(address: str, file_name: str) -> Path:
    """The local path of a file of a repository, downloaded if necessary.

    Raises CheckpointError for an address of another form, or if the download fails.
    """
    repository, revision = _parse(address)
    hub = import_optional("huggingface_hub", address, REMEDY)
    with _one_line(address):
        return Path(
            hub.hf_hub_download(
                repository, file_name, revision=revision or None, local_files_only=is_offline()
            )
        )


def push(folder: str | Path, address: str, *, private: bool = False) -> str:
    """Upload a folder as a repository, which is made where it is not there; returns the address of
    its page.

    address: "user/name" or "hf://user/name". Raises CheckpointError where the Hub refuses.
    """
    repository, revision = _parse(address)
    hub = import_optional("huggingface_hub", f"pushing to {address}", REMEDY)
    with _one_line(address):
        api = hub.HfApi()
        page = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            revision=revision or None,
            commit_message="octvideo export --push",
        )
    return str(page)


def _parse(address: str) -> tuple[str, str]:
    """hf://user/name@v1 -> user/name, v1."""
    match = re.fullmatch(r"(?:hf://)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if match is None:
        raise CheckpointError(f"{address}: write hf://user/name, or hf://user/name@revision")
    return match[1], match[2] or ""


@contextmanager
def _one_line(address: str) -> Iterator[None]:
    try:
        yield
    # Of the library and of the network libraries below it; they share no class but these.
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{address}: {_reason(error)}") from error


def _reason(error: Any) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return (
            f"the Hub answered {status}: there is no such repository or file, or it is not open to"
            " you; check the name, or log in (hf auth login, or HF_TOKEN)"
        )
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return f"cannot be reached ({text}); with OCTVIDEO_OFFLINE, what was fetched before is used"
