"""The functions of `octvideo predict`: predictions for many videos, as rows or with features, or
drawn over one video."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from urllib.parse import urlsplit

import torch
from tqdm import tqdm

from octvideo.data.lists.video_list import VideoEntry, read_list
from octvideo.data.prepare.video_files import find_videos
from octvideo.data.reading import DecodeError, stuck_here
from octvideo.data.remote import local_path
from octvideo.data.video.container import VIDEO_SUFFIXES
from octvideo.data.video.decode import iter_frames, look_at
from octvideo.data.video.encode import write_video
from octvideo.data.video.frame_folders import open_frames
from octvideo.data.video.times import with_end
from octvideo.engine.distributed import Processes
from octvideo.engine.prediction.columns import check_suffix
from octvideo.engine.prediction.named import NamedVideo
from octvideo.engine.prediction.outputs import FEATURES, PREDICTIONS
from octvideo.engine.prediction.run import How, OutputFiles, run_many, run_windows
from octvideo.engine.process_group import processes
from octvideo.engine.threads import plan_threads
from octvideo.errors import DataError, ListError, logger
from octvideo.files import (
    is_local,
    make_output_folder,
    require_another_file,
    require_place,
    what_is_missing,
    writing,
)
from octvideo.recognizer import Recognizer
from octvideo.report.annotate import Frame, Label, annotated

__all__ = [
    "FEATURES",
    "PREDICTIONS",
    "How",
    "NamedVideo",
    "OutputFiles",
    "check_suffix",
    "ranks",
    "run",
    "save_window_features",
    "videos_of",
    "write_named_video",
]

_A_MONTH = 30 * 24 * 60.0  # minutes
_STUCK_SECONDS = 300.0  # on one file, where no worker process decodes


def videos_of(video: str | Path) -> list[VideoEntry]:
    """A file, downloaded if it has an address; all videos below a folder; or those of a list, which
    is read anew if it has one.

    Lists end in .txt, .csv, .tsv or .lst, with labels in all lines or in none. Raises DataError for
    a path that does not exist or holds no video, and for an address that cannot be downloaded,
    ListError for a line that cannot be used.
    """
    if not is_local(str(video)) and _is_list(urlsplit(str(video)).path):
        return _listed(str(video))
    path = Path(local_path(video))
    if not path.exists():
        raise DataError(f"{path}: {what_is_missing(path, 'file or folder')}")
    if path.is_dir():
        return [VideoEntry(str(video)) for video in find_videos(path)]
    if _is_list(path):
        return _listed(path)
    return [VideoEntry(str(path))]


def _is_list(path: str | Path) -> bool:
    return PurePath(path).suffix.lower() in (".txt", ".csv", ".tsv", ".lst")


def _listed(path: str | Path) -> list[VideoEntry]:
    try:
        return list(read_list(path))
    except ListError:
        # Lines without a label are no `path label`; with another fault they are none of either.
        videos = list(read_list(path, format="unlabeled"))
        lines = [video.path for video in videos]
        if any(map(_has_label, lines)) or not any(map(_names_video, lines)):
            raise
        return videos


def _names_video(text: str) -> bool:
    return Path(text).suffix.lower() in VIDEO_SUFFIXES


def _has_label(line: str) -> bool:
    """Whether a video is named by all but the last field, which names none."""
    before = re.sub(r"[ \t,]+[^ \t,]*$", "", line)
    return _names_video(before) and not _names_video(line)


@contextmanager
def ranks() -> Iterator[Processes]:
    """The processes that share the videos: those that torchrun started, or this one.

    They wait for the last of them however long it takes; one that is lost ends the others.
    """
    with processes(timeout_minutes=_A_MONTH, trouble=partial(stuck_here, _STUCK_SECONDS)) as procs:
        if procs.world_size > 1:
            torch.set_num_threads(plan_threads(0, procs.local_world_size))
        yield procs


def run(
    recognizer: Recognizer,
    videos: list[VideoEntry],
    how: How,
    files: OutputFiles,
    procs: Processes,
) -> Iterator[NamedVideo]:
    """The videos of this process as they are done, with a bar; see `Recognizer.predict_many`."""
    with _bar(len(videos), procs) as bar:
        yield from run_many(recognizer, videos, how, files, _shown_on(bar), procs)


def save_window_features(
    recognizer: Recognizer,
    videos: list[VideoEntry],
    path: Path,
    window_seconds: float,
    stride_seconds: float | None,
    procs: Processes,
    *,
    resume: bool,
) -> Iterator[NamedVideo]:
    """Features over time of each video, one after another; yields those that could not be read."""
    with _bar(len(videos), procs) as bar:
        yield from run_windows(
            recognizer,
            videos,
            OutputFiles(None, path, resume),
            window_seconds,
            stride_seconds,
            _shown_on(bar),
            procs,
        )


def _bar(total: int, procs: Processes) -> "tqdm[None]":
    return tqdm(total=total, unit="video", disable=total == 1 or not procs.is_main)


def _shown_on(bar: "tqdm[None]") -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if bar.n == 0 < done:
            bar.initial = bar.n = done  # what was done before takes no time now
        bar.total = total
        bar.update(done - bar.n)

    return show


def write_named_video(
    recognizer: Recognizer,
    video: Path | VideoEntry,
    output: Path,
    *,
    label: Label,
    window_seconds: float,
    stride_seconds: float,
) -> None:
    """The video with its top classes shown over time, each frame at its true time, and its sound.

    video: a file, its address, or a line of a list; the pictures of a folder of frames carry no
    times, and are shown 30 a second, which a line says.
    Streams: memory grows by a few numbers a frame. Raises ConfigError for an output that is the
    video or a folder, OctvideoError where none can be written.
    """
    entry = video if isinstance(video, VideoEntry) else VideoEntry(str(video))
    if not entry.num_frames:
        require_another_file(output, local_path(entry.path))
    make_output_folder(str(output.parent))
    require_place(output)
    film = _frames_listed(entry) if entry.num_frames else _film_of(entry.path)
    try:
        timeline = recognizer.timeline(
            film.frames("recognize"),
            window_seconds=window_seconds,
            stride_seconds=stride_seconds,
            fps=film.fps,
            times=film.shown or (),
        )
    except DecodeError as error:
        raise DecodeError(entry.path, error.cause) from error

    def ranking(i: int) -> list[tuple[str, float]]:
        return [(p.name, p.probability) for p in timeline.top(i, label.rows)]

    rankings = list(map(ranking, range(len(timeline.starts))))
    middles = ((timeline.starts + timeline.ends) / 2).tolist()
    frames = annotated(film.frames("write"), film.fps, rankings, middles, film.times, label=label)
    with writing(str(output)):
        write_video(output, frames, film.fps, times=film.shown, sound_of=film.sound_of)


@dataclass(frozen=True, slots=True)
class _Film:
    """What is drawn on. times: when its frames are shown, where they are not 1 / fps apart; shown:
    the same, and when the last one ends. sound_of: the file of its sound, if it has any."""

    decode: Callable[[], Iterator[Frame]]
    num_frames: int
    fps: float
    times: Sequence[float] = ()
    shown: Sequence[float] | None = None
    sound_of: str | None = None

    def frames(self, what: str) -> Iterator[Frame]:
        """Every frame once, with a bar that says `what` is done."""
        # A damaged file is announced with the frames that decode, and is left before the damage.
        frames = islice(self.decode(), self.num_frames)
        yield from tqdm(frames, total=self.num_frames, unit="frame", desc=what)


def _film_of(path: str) -> _Film:
    info, times = look_at(path)
    shown = with_end(times, info.duration_seconds)
    return _Film(partial(iter_frames, path), info.num_frames, info.fps, times, shown, path)


def _frames_listed(entry: VideoEntry) -> _Film:
    opened = partial(open_frames, entry.path, entry.num_frames, template=entry.template)

    def decode() -> Iterator[Frame]:
        with opened() as folder:
            yield from folder

    with opened() as folder:
        fps = folder.timing().fps
    logger.warning("%s: pictures carry no times; taken as %g frames per second", entry.path, fps)
    return _Film(decode, entry.num_frames, fps)
