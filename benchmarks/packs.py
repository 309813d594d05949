"""Many pictures in one array: encoded files end to end, and where each ends."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]  # (H, W, 3)


def encoded(picture: Picture, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def joined(files: Iterable[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    files = list(files)
    ends = np.cumsum([len(file) for file in files])
    return np.frombuffer(b"".join(files), np.uint8), ends


def decoded(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> Iterator[Picture]:
    """The pictures of what `joined` returned."""
    files, places = data.tobytes(), ends.tolist()
    for start, end in zip([0, *places], places, strict=False):
        yield np.asarray(Image.open(io.BytesIO(files[start:end])).convert("RGB"))
