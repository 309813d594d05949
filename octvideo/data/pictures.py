"""Still pictures from files, as RGB; only this module reads with Pillow."""

import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from octvideo.data.reading import DecodeError, cause_of

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"}
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP")
"""Pillow's names. It tries every format that it knows if it is not told, and starts Ghostscript on
PostScript."""

Picture = NDArray[np.uint8]


def is_picture(path: Path) -> bool:
    """Whether a file has the name of a picture. Hidden files (macOS leaves `._` ones) are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(path: str | Path, *, depth_bits: int | None = None) -> Picture:
    """uint8 (H, W, 3), rotated as its EXIF data say, at most 179 million pixels (Pillow's limit
    against decompression bombs).

    A gray picture of more than 8 bits keeps its range: 0 to 2 ** depth_bits - 1 becomes 0 to 255,
    brighter pixels become 255. depth_bits None: as many bits as its brightest pixel needs. Raises
    DecodeError.
    """
    picture = _open(path)
    if not _is_deep(picture):
        return np.array(picture.convert("RGB"))  # writable, as torch wants it
    levels = _levels(picture)
    top = 2 ** (depth_bits or _bits_of(levels)) - 1
    gray = np.clip(np.rint(levels * (255.0 / top)), 0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def depth_bits(path: str | Path) -> int | None:
    """Bits that the brightest pixel of a gray picture of over 8 bits needs; None for others."""
    picture = _open(path)
    return _bits_of(_levels(picture)) if _is_deep(picture) else None


def _open(path: str | Path) -> Image.Image:
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DecodeError(
                str(path), "this is no file, but a folder, a pipe, a socket or a device"
            )
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        MemoryError,
        Image.DecompressionBombError,
    ) as error:
        raise DecodeError(str(path), _cause(error, path)) from None


def _cause(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture of a format that is read ({', '.join(FORMATS)})"
    return cause_of(error).replace(f" '{path}'", "")


def _is_deep(picture: Image.Image) -> bool:
    return picture.mode.startswith("I") or picture.mode == "F"


def _levels(picture: Image.Image) -> NDArray[np.float64]:
    return np.maximum(np.asarray(picture).astype(np.float64), 0.0)


def _bits_of(levels: NDArray[np.float64]) -> int:
    return max(int(levels.max(initial=0.0)).bit_length(), 8)
