"""Text files of users."""

from pathlib import Path

from octvideo.errors import DataError


def text_of(data: bytes, path: str | Path) -> str:
    """The text of a file's bytes, without the mark that Windows puts first. Raises DataError if
    they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8; save the file in that encoding.") from error
