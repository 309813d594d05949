"""Writing H.264 mp4 files with PyAV, each appearing under its name only when it is complete."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.errors import DataError


def write_video(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float | Fraction = 30,
    *,
    gop: int = 12,
    crf: int = 20,
    preset: str = "veryfast",
) -> int:
    """RGB frames (H, W, 3), or one array (T, H, W, 3), to H.264 4:2:0 without audio; the number of frames written.

    Equal frames give an equal file (one encoder thread). A keyframe every `gop` frames makes seeks cheap. An odd
    height or width loses its last row or column: 4:2:0 counts in pairs. Raises DataError without a frame.
    """
    import av

    count, stream = 0, None
    with _appears_complete(Path(path)) as partial, av.open(str(partial), "w", format="mp4") as container:
        for frame in frames:
            height, width = (size - size % 2 for size in frame.shape[:2])
            if stream is None:
                stream = add_h264_stream(container, fps, width, height, gop=gop, crf=crf, preset=preset)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
            count += 1
        if stream is None:
            raise DataError(f"{path}: no frame to write; a video has at least one.")
        container.mux(stream.encode())
    return count


def add_h264_stream(
    container: Any, fps: float | Fraction, width: int, height: int, *, gop: int, crf: int, preset: str
) -> Any:
    """A video stream of an open av container: closed GOPs, one thread, so that the same input gives the same bytes."""
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(100_000))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1
    # x264's macroblock tree gave different bytes from run to run (3 of 16 clips); without it files are .2 larger.
    params = f"keyint={gop}:min-keyint=1:scenecut=0:open-gop=0:mbtree=0"
    stream.options = {"crf": str(crf), "preset": preset, "x264-params": params}
    return stream


@contextmanager
def _appears_complete(path: Path) -> Iterator[Path]:
    """A name beside `path` that becomes `path` on success and vanishes on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
