"""A resumable run over many videos: processes decode them, batches hold views of several, rows are
written as they are computed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from octvideo.data.clips.views import ViewSpec, decode_entry
from octvideo.data.lists.video_list import VideoEntry
from octvideo.data.loading.one_pass import one_pass
from octvideo.data.reading import DecodeError
from octvideo.data.video.frame_folders import open_frames
from octvideo.engine.distributed import ALONE, Processes
from octvideo.engine.prediction.many import mean_outputs
from octvideo.engine.prediction.named import NamedVideo, Network, check_top_k, top_predictions
from octvideo.engine.prediction.outputs import (
    FEATURES,
    PREDICTIONS,
    FoundWindows,
    feature_row,
    prediction_row,
    window_row,
)
from octvideo.engine.prediction.share import Share, Wanted
from octvideo.engine.prediction.windows import check_lengths
from octvideo.engine.threads import available_cores
from octvideo.errors import ConfigError

Listed = str | Path | VideoEntry
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class How:
    """The arguments of `Recognizer.predict_many` that decide what is computed. top_k None: features
    only."""

    views: str
    top_k: int | None
    features: bool
    workers: int | None = None
    batch: int = 8
    timeout_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.batch < 1 or (self.workers or 0) < 0 or not self.timeout_seconds > 0:
            raise ConfigError(
                f"batch {self.batch}, workers {self.workers}, timeout_seconds"
                f" {self.timeout_seconds}: a batch holds at least one view, workers are 0 or more,"
                " a time-out is positive"
            )
        if self.top_k is not None:
            check_top_k(self.top_k)


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """The files of predictions and features, and whether their existing rows are kept."""

    predictions: Path | None
    features: Path | None
    resume: bool = True


def run_many(
    network: Network,
    paths: Iterable[Listed],
    how: How,
    files: OutputFiles,
    progress: Progress,
    procs: Processes = ALONE,
) -> Iterator[NamedVideo]:
    """See `Recognizer.predict_many`. Wrong arguments and foreign files are an error at once, before
    the first video.

    Each of several processes names its share, and has to come to the end of it.
    """
    spec = network.view_spec(how.views)
    if isinstance(paths, str | bytes | Path | VideoEntry):
        raise ConfigError(f"{paths!r} is one video; give a list of them, as [video]")
    entries = {entry.path: entry for entry in map(_entry, paths)}
    wanted, facts = [], {"views": how.views}
    if files.predictions or files.features or not procs.alone:
        facts["weights"] = network.fingerprint()
    if files.predictions:
        k = min(how.top_k or 0, len(network.class_names))
        made_with = facts | {"top_k": str(k)}
        wanted.append(Wanted(files.predictions, PREDICTIONS, made_with, prediction_row, k))
    if files.features:
        wanted.append(Wanted(files.features, FEATURES, facts, feature_row))
    share = Share(_read_as(entries), wanted, facts, overwrite=not files.resume, procs=procs)
    workers = how.workers
    if workers is None:  # a single video is decoded in this process
        cores = max(available_cores() // procs.local_world_size, 1)
        workers = cores if len(share.left) > 1 else 0
    videos = _named(network, [entries[path] for path in share.left], spec, how, workers)
    return share.written(videos, progress)


def run_windows(
    network: Any,
    paths: Iterable[Listed],
    files: OutputFiles,
    window_seconds: float,
    stride_seconds: float | None,
    progress: Progress,
    procs: Processes = ALONE,
) -> Iterator[NamedVideo]:
    """`Recognizer.features` over time of each video, into files.features; yields those that
    cannot be read.

    A video streams through this process: one of any length can be read, and one that hangs the
    decoder is not survived. Several processes share the videos. Raises ConfigError for lengths that
    are not positive, before a file is opened.
    """
    assert files.features
    stride = window_seconds if stride_seconds is None else stride_seconds
    check_lengths(window_seconds, stride)
    made_with = {
        "window_seconds": str(window_seconds),
        "stride_seconds": str(stride),
        "weights": network.fingerprint(),
    }
    entries = {entry.path: entry for entry in map(_entry, paths)}
    wanted = [Wanted(files.features, FEATURES, made_with, window_row)]
    share = Share(_read_as(entries), wanted, made_with, overwrite=not files.resume, procs=procs)

    def windows_of(path: str) -> FoundWindows:
        compute = partial(network.features, window_seconds=window_seconds, stride_seconds=stride)
        count, template = entries[path].num_frames, entries[path].template
        try:
            if count:
                with open_frames(path, count, template=template) as folder:
                    found = compute(iter(folder), fps=folder.timing().fps)
            else:
                found = compute(path)
        except DecodeError as error:
            found = error.cause
        return FoundWindows(path, found)

    for found in share.written(map(windows_of, share.left), progress):
        if isinstance(found.windows, str):
            yield NamedVideo(found.path, (), found.windows)


def _entry(listed: Listed) -> VideoEntry:
    return listed if isinstance(listed, VideoEntry) else VideoEntry(str(listed))


def _read_as(entries: Mapping[str, VideoEntry]) -> dict[str, str]:
    return {path: entry.read_as for path, entry in entries.items()}


def _named(
    network: Network, entries: Sequence[VideoEntry], spec: ViewSpec, how: How, workers: int
) -> Iterator[NamedVideo]:
    compute = partial(network.outputs, scores=how.top_k is not None, features=how.features)
    count = len(network.class_names) if how.top_k is not None else 0
    videos = one_pass(
        partial(decode_entry, spec),
        list(enumerate(entries)),
        num_workers=workers,
        ahead=2,
        timeout_seconds=how.timeout_seconds,
    )
    passes = {"on_cpu": network.device.type == "cpu", "any_batch": network.takes_any_batch}
    for index, found in mean_outputs(compute, videos, spec, batch=how.batch, **passes):
        path = entries[index].path
        if isinstance(found, str):
            yield NamedVideo(path, (), found)
        else:
            named = top_predictions(found[:count], network.class_names, how.top_k or 0)
            yield NamedVideo(path, named, "", found[count:] if how.features else None)
