"""Videos that were extracted to folders of jpg frames: the same questions as to a file, and the same answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from octvideo.data.reading import DecodeError, reading
from octvideo.data.sampling import Timing
from octvideo.data.video.video import Frames

SUFFIXES = {".jpg", ".jpeg", ".png"}


class FrameFolder:
    """An open folder. Frame k is the k-th image in the order of the names."""

    def __init__(self, path: str, files: list[Path], fps: float) -> None:
        self.path = path
        self._files, self._fps = files, fps

    def timing(self, *, exact_times: bool = False) -> Timing:
        """Images carry no times: they are taken to be `fps` apart."""
        return Timing(len(self._files), self._fps)

    def read(self, indices: Sequence[int]) -> Frames:
        """uint8 (T, H, W, 3). Raises DecodeError for an image that cannot be read or differs in size."""
        images = {index: self._image(index) for index in set(indices)}
        if len({image.shape for image in images.values()}) > 1:
            raise DecodeError(self.path, "its images differ in size")
        return np.stack([images[index] for index in indices])

    def _image(self, index: int) -> Frames:
        from PIL import Image

        try:
            with Image.open(self._files[index]) as image:
                return np.asarray(image.convert("RGB"))
        except IndexError:
            raise DecodeError(
                self.path, f"image {index} was asked for; there are {len(self._files)}"
            ) from None
        except (OSError, ValueError, SyntaxError) as error:
            raise DecodeError(self.path, f"{self._files[index].name}: {error}") from None


@contextmanager
def open_frames(path: str | Path, num_frames: int, *, fps: float = 30.0) -> Iterator[FrameFolder]:
    """Open a folder of which the list says that it has num_frames images; more than that are not looked at."""
    path = str(path)
    with reading(path):
        try:
            files = sorted(file for file in Path(path).iterdir() if file.suffix.lower() in SUFFIXES)
        except OSError as error:
            raise DecodeError(path, error.strerror or str(error)) from None
        if len(files) < num_frames:
            raise DecodeError(path, f"{num_frames} images are listed; there are {len(files)}")
        yield FrameFolder(path, files[:num_frames], fps)
