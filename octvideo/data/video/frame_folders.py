"""Videos that were extracted to folders of pictures, with the interface of video files."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np

from octvideo.data.pictures import depth_bits, is_picture, read_picture
from octvideo.data.reading import DecodeError, cause_of, reading, still_reading
from octvideo.data.sampling import Timing
from octvideo.data.video.video import Frames, Prepare


class FrameFolder:
    """An open folder. Frame k is the k-th picture, by the numbers in their names."""

    def __init__(self, path: str, files: list[Path], fps: float) -> None:
        self.path = path
        self._files, self._fps = files, fps

    def timing(self, *, exact_times: bool = False) -> Timing:
        """Pictures carry no times: they are taken to be `fps` apart."""
        return Timing(len(self._files), self._fps)

    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames:
        """uint8 (T, H, W, 3). Raises DecodeError for a picture unreadable or of another size."""
        images: dict[int, Frames] = {}
        numbers = sorted(set(indices))
        for index, image in zip(numbers, self._images(numbers), strict=True):
            images[index] = prepare(image) if prepare else image
        return np.stack([images[index] for index in indices])

    def __iter__(self) -> Iterator[Frames]:
        """Every frame in order, uint8 (H, W, 3), one in memory at a time. Raises as `read`."""
        for image in self._images(range(len(self._files))):
            yield image
            still_reading()

    def _images(self, indices: Iterable[int]) -> Iterator[Frames]:
        sizes = set()
        for index in indices:
            image = self._image(index)
            still_reading()
            sizes.add(image.shape)
            if len(sizes) > 1:
                raise DecodeError(self.path, "its images differ in size")
            yield image

    def _image(self, index: int) -> Frames:
        if not 0 <= index < len(self._files):
            raise DecodeError(
                self.path, f"image {index} was asked for; there are {len(self._files)}"
            )
        try:
            return read_picture(self._files[index], depth_bits=self._depth_bits)
        except DecodeError as error:
            raise DecodeError(self.path, f"{self._files[index].name}: {error.cause}") from None

    @cached_property
    def _depth_bits(self) -> int | None:
        """One range for all pictures of over 8 bits, the first's: else its noise would flicker."""
        try:
            return depth_bits(self._files[0])
        except DecodeError:
            return None


@contextmanager
def open_frames(
    path: str | Path, num_frames: int, *, fps: float = 30.0, template: str = ""
) -> Iterator[FrameFolder]:
    """Open a folder with num_frames pictures, as the list says; further ones are not checked.

    template: which files are the frames (DATA.FRAME_TEMPLATE), as `img_{:05d}.jpg` or `rgb_*.png`.
    """
    path = str(path)
    with reading(path):
        files = _frames_in(path, template)
        if len(files) < num_frames:
            raise DecodeError(path, f"{num_frames} images are listed; there are {len(files)}")
        yield FrameFolder(path, files[:num_frames], fps)


def _frames_in(path: str, template: str) -> list[Path]:
    """The frames in their order."""
    try:
        files = [file for file in Path(path).iterdir() if is_picture(file)]
    except (OSError, ValueError) as error:
        raise DecodeError(path, cause_of(error)) from None
    if template:
        chosen = [file for file in files if fits_template(file.name, template)]
        if files and not chosen:
            raise DecodeError(
                path,
                f"none of {len(files)} pictures, as {min(files).name}, is called {template}"
                " (DATA.FRAME_TEMPLATE)",
            )
        return sorted(chosen, key=_in_number_order)
    series = defaultdict(list)
    for file in files:
        series[_series_of(file.name)].append(file.name)
    if len(series) > 1:
        first, second = (min(names) for names in list(series.values())[:2])
        raise DecodeError(
            path,
            f"{len(series)} series of pictures, as {first} and {second}; name the one that is meant"
            " with DATA.FRAME_TEMPLATE, as img_{:05d}.jpg or rgb_*.png",
        )
    return sorted(files, key=_in_number_order)


_NUMBER = re.compile(r"\d+")
_LAST_NUMBER = re.compile(r"\d+(?:\.\d+)*(?=\D*$)")


def _series_of(name: str) -> tuple[str, str]:
    """The common part of a series' names: all but the last number. Without numbers: one series."""
    path = Path(name)
    match = _LAST_NUMBER.search(path.stem)
    if match is None:
        return "", path.suffix.lower()
    return path.stem[: match.start()], path.stem[match.end() :] + path.suffix.lower()


def _in_number_order(file: Path) -> tuple[list[tuple[str, int]], str]:
    """img_2 before img_10."""
    texts, numbers = _NUMBER.split(file.name), map(int, _NUMBER.findall(file.name))
    return list(zip(texts, [*numbers, -1], strict=True)), file.name


def fits_template(name: str, template: str) -> bool:
    """Whether a file's name is what the template makes of some number, or fits its wildcards."""
    field = re.search(r"\{:?(0?)(\d*)d?\}", template)
    if field is None:
        return fnmatchcase(name, template)
    fill, width = field[1], int(field[2] or 0)
    digits = rf"\d{{{width},}}" if fill else r" *\d+"
    start, end = (re.escape(part) for part in (template[: field.start()], template[field.end() :]))
    return re.fullmatch(start + digits + end, name) is not None
