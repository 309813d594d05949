"""Reading with torchcodec, to which the positions of all frames are given, so that it need not scan
the file.

It needs FFmpeg's shared libraries on the machine and a version that fits torch (docs/decoders.md
says which).
"""

import json
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from octvideo.data.video.container import opened, video_stream
from octvideo.data.video.examine import layout_of
from octvideo.data.video.frame_table import KnownFile
from octvideo.data.video.packets import StreamMap
from octvideo.data.video.video import Frames, Prepare, read_prepared
from octvideo.errors import ConfigError, OctvideoError


class TorchCodecEngine:
    """Jumps to the restarts that the packets prove. A frame with another time than its own is
    refused. Of a file that is in memory, with a table, nothing but the frames is read.

    device: "cuda" decodes on the GPU where it can (NVDEC), whose colors differ a little; frames
    come back to the host.
    """

    def __init__(self, file: KnownFile, short_side: int | None, *, device: str = "cpu") -> None:
        layout, stream_index, time_base = _stream_of(file)
        if layout.unclear:
            raise RuntimeError(f"its frames are not those of its packets ({layout.unclear})")
        self._seconds = layout.pts * float(time_base)
        self._tolerance = float(time_base) / 2
        self._shape = (*file.info.stored_size(short_side), 3)
        # An absolute name, since FFmpeg would take `10:30.mp4` for a protocol.
        self._decoder: Any = decoder_of(
            str(Path(file.path).absolute()) if file.content is None else file.content,
            layout,
            stream_index=stream_index,
            size=self._shape[:2] if short_side else None,
            device=device,
        )

    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames:
        return read_prepared(self._batch, indices, prepare)

    def close(self) -> None:
        self._decoder = None

    def _batch(self, indices: list[int]) -> Frames:
        batch = self._decoder.get_frames_at(indices)
        frames: Frames = batch.data.cpu().numpy()
        late = np.abs(batch.pts_seconds.cpu().numpy() - self._seconds[indices])
        if late.max() > self._tolerance:
            raise RuntimeError(f"torchcodec gives another frame for {indices[int(late.argmax())]}")
        if frames.shape[1:] != self._shape:
            raise RuntimeError(f"torchcodec gives frames {frames.shape[1:]} for {self._shape}")
        return frames


def _stream_of(file: KnownFile) -> tuple[StreamMap, int, Fraction]:
    """(its map, its number in the file, its time base)."""
    if table := file.find_table():
        return table.layout, table.stream_index, table.time_base
    with opened(file.path) as container:
        stream = video_stream(container)
        return layout_of(container, file.info), stream.index, stream.time_base


def decoder_of(
    source: Any,
    layout: StreamMap,
    *,
    stream_index: int,
    size: tuple[int, int] | None = None,
    device: str = "cpu",
) -> Any:
    """A torchcodec.decoders.VideoDecoder on one thread that gives uint8 (T, H, W, 3).

    source: a path, the bytes of a file, or an object that reads and seeks (a range of a larger
    file). layout: of the same file. size: (height, width) to scale to.
    """
    from torchcodec.decoders import VideoDecoder

    transforms = None
    if size is not None:
        from torchcodec.transforms import Resize

        transforms = [Resize(size)]
    return VideoDecoder(
        source,
        stream_index=stream_index,
        dimension_order="NHWC",
        num_ffmpeg_threads=1,
        device=device,
        transforms=transforms,
        custom_frame_mappings=frame_mappings(layout),
    )


def frame_mappings(layout: StreamMap) -> str:
    """The position of each frame and the frames at which decoding can start, in ffprobe's JSON,
    which torchcodec accepts."""
    restarts = set(layout.restarts.tolist())
    durations = [*np.diff(layout.pts).tolist(), max(layout.last_duration, 1)]
    frames = [
        {"pts": pts, "duration": duration, "key_frame": int(pts in restarts)}
        for pts, duration in zip(layout.pts.tolist(), durations, strict=True)
    ]
    return json.dumps({"frames": frames})


@lru_cache
def require_torchcodec(device: str) -> None:
    """Raises OctvideoError where it is missing or does not load, ConfigError without the device."""
    try:
        import torchcodec.decoders  # noqa: F401
    except ModuleNotFoundError as error:
        raise OctvideoError(
            "decoder torchcodec: torchcodec is missing; pip install octvideo[torchcodec]"
        ) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise OctvideoError(
            f"decoder torchcodec: torchcodec does not load beside torch {torch.__version__}; it"
            " needs FFmpeg's shared libraries (apt install ffmpeg) and a version that fits"
            " (docs/decoders.md lists them)"
        ) from error
    if device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(
            f"decoder torchcodec:{device}: this machine has no CUDA device; use torchcodec"
        )
