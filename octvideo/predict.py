"""What `octvideo predict` does: names for a video or a folder of them, as text, csv, npz, or drawn over the video."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from octvideo.data import DecodeError
from octvideo.data.prepare.video_files import find_videos
from octvideo.data.remote import local_path
from octvideo.data.video.decode import iter_frames, open_video
from octvideo.data.video.encode import write_video
from octvideo.errors import DataError
from octvideo.files import csv_text
from octvideo.recognizer import Prediction, Recognizer
from octvideo.report.annotate import annotated


@dataclass(frozen=True, slots=True)
class NamedVideo:
    """A video and its most probable classes; `problem` says why there are none."""

    path: str
    predictions: Sequence[Prediction]
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        if self.problem:
            return f"{self.path}: could not be read ({self.problem})"
        return "\n".join(
            [self.path, *(f"  {p.probability:6.1%}  {p.name}" for p in self.predictions)]
        )


def videos_of(video: str | Path) -> list[Path]:
    """A file as it is, fetched where it has an address, or all videos below a folder.

    Raises DataError for a path that does not exist or holds none, and for an address that cannot be fetched.
    """
    path = Path(local_path(video))
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    return find_videos(path) if path.is_dir() else [path]


def name_videos(
    recognizer: Recognizer, videos: Sequence[Path], *, views: str, top_k: int
) -> Iterator[NamedVideo]:
    """One after another; a file that cannot be read is named with its cause, and does not stop the others."""
    for path in tqdm(videos, unit="video", disable=len(videos) == 1):
        try:
            yield NamedVideo(str(path), recognizer.predict(path, views=views, top_k=top_k))
        except DecodeError as error:
            yield NamedVideo(str(path), (), error.cause)


def write_scores(path: Path, videos: Sequence[NamedVideo]) -> None:
    """A csv with a line per video: path, problem, class_1, probability_1, class_2, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = max((len(video.predictions) for video in videos), default=0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        ranks = range(1, count + 1)
        writer.writerow(
            [
                "path",
                "problem",
                *(f"{what}_{i}" for i in ranks for what in ("class", "probability")),
            ]
        )
        for video in videos:
            cells = [csv_text(video.path), csv_text(video.problem)]
            for p in video.predictions:
                cells += [csv_text(p.name), f"{p.probability:.4f}"]
            writer.writerow(cells + [""] * (2 + 2 * count - len(cells)))


def save_features(
    path: Path, recognizer: Recognizer, videos: Sequence[Path], *, views: str
) -> list[str]:
    """An npz with `paths` (V,) and `features` (V, C) float32 of the videos that can be read; returns the others."""
    features: list[NDArray[np.float32]] = []
    paths, unread = [], []
    for video in tqdm(videos, unit="video", desc="features", disable=len(videos) == 1):
        try:
            features.append(recognizer.features(video, views=views))
            paths.append(str(video))
        except DecodeError as error:
            unread.append(str(error))
    if not paths:
        raise DataError(f"none of the {len(videos)} videos could be read; the first: {unread[0]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, paths=np.array(paths), features=np.stack(features))
    return unread


def write_named_video(
    recognizer: Recognizer,
    video: Path,
    output: Path,
    *,
    top_k: int,
    window_seconds: float,
    stride_seconds: float,
) -> None:
    """The video with its top classes drawn over time, each frame at its true time, and its sound.

    Streams: memory does not grow with the length.
    """
    with open_video(video) as file:
        info, times = file.info, file.timing(exact_times=True).times
    timeline = recognizer.timeline(
        _counted(video, info.num_frames, "recognise"),
        window_seconds=window_seconds,
        stride_seconds=stride_seconds,
        fps=info.fps,
        times=times,
    )

    def ranking(i: int) -> list[tuple[str, float]]:
        return [(p.name, p.probability) for p in timeline.top(i, top_k)]

    rankings = list(map(ranking, range(len(timeline.starts))))
    middles = ((timeline.starts + timeline.ends) / 2).tolist()
    frames = annotated(
        _counted(video, info.num_frames, "write"), info.fps, rankings, middles, times
    )
    shown = [*times, max(info.duration_seconds, times[-1])]
    write_video(output, frames, info.fps, times=shown, sound_of=video)


def _counted(video: Path, num_frames: int, what: str) -> Iterator[NDArray[np.uint8]]:
    # A damaged file is announced with the frames that decode, and is left before the damage.
    frames = islice(iter_frames(video), num_frames)
    yield from tqdm(frames, total=num_frames, unit="frame", desc=what)
