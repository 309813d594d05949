"""The limits of a server, and its responses when they are exceeded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from octvideo.errors import ConfigError, OctvideoError, logger


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request: bytes, seconds of video, pixels of a frame, views; seconds for
    receiving, for decoding and in total.

    max_waiting: requests that may be in the server at a time, those being computed included; more
    get 503.
    """

    max_bytes: int = 64 * 2**20
    max_video_seconds: float = 300.0
    max_pixels: int = 4096 * 2304
    max_views: int = 30
    receive_seconds: float = 30.0
    decode_seconds: float = 30.0
    request_seconds: float = 60.0
    max_waiting: int = 64

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 < getattr(self, name) < inf:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; a limit is positive and finite"
                )


class RefusedError(OctvideoError):
    """A request that is refused: the HTTP `status`, and the message for the client."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


@contextmanager
def storing() -> Iterator[None]:
    """Where a video is written to the server's disk: that it cannot be is no fault of the client's,
    and may pass."""
    try:
        yield
    except OSError as error:
        logger.error("a request's video cannot be stored: %s", error)
        raise RefusedError(
            503, f"the server cannot store the video ({error.strerror}); try again later"
        ) from error
