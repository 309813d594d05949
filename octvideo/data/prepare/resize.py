"""Videos that are cheap to train on: a small short side, and dense keyframes for cheap seeks."""

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from octvideo.data.clips.dataset import ClipDataset, ClipTransform
from octvideo.data.lists.video_list import VideoEntry
from octvideo.data.prepare.parallel import for_each
from octvideo.data.prepare.video_files import look_for_videos
from octvideo.data.reading import DecodeError
from octvideo.data.sampling import ClipRule, short_side_size
from octvideo.data.video.decode import iter_frames, look_at
from octvideo.data.video.encode import write_video
from octvideo.data.video.times import with_end
from octvideo.errors import ConfigError, DataError
from octvideo.files import fsync, is_there, make_output_folder, read_json_lines, writing

NOTES = ".resized.jsonl"
"""In the folder of the results: how each was made, and of which bytes."""
_OPTIONS = ("short_side", "gop", "crf")
_MEASURED = 12  # videos


@dataclass(slots=True)
class ResizeResult:
    """pairs: complete (source, target). kept: how many were there. failed: source -> cause."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def resize_folder(
    source: str | Path,
    target: str | Path,
    *,
    short_side: int = 256,
    gop: int = 12,
    crf: int = 20,
    num_workers: int | None = None,
    timeout_seconds: float = 600.0,
) -> ResizeResult:
    """Resize every video below `source` into `target`, under its relative path, as .mp4. Targets of
    an earlier call are kept.

    Raises ConfigError as `check_encoding` does, DataError when two files would become one, a target
    is there that was made otherwise or of another file, or one cannot be written, and OctvideoError
    for a folder that cannot be written to.
    """
    check_encoding(short_side, gop, crf)
    source, target = Path(source), Path(target)
    found = look_for_videos(source)
    targets = {
        path: (target / path.relative_to(source)).with_suffix(".mp4") for path in found.videos
    }
    sources = {made: path for path, made in targets.items()}
    if clash := next((path for path, made in targets.items() if sources[made] != path), None):
        raise DataError(
            f"{clash} and {sources[targets[clash]]} would become one file {targets[clash]}; rename"
            " one."
        )
    if clash := next((path for path in targets if path in sources), None):
        raise DataError(f"{clash} would be overwritten; give another folder for the result.")
    options = dict(zip(_OPTIONS, (short_side, gop, crf), strict=True))
    notes = {
        made: {
            "video": str(made.relative_to(target)),
            "bytes": found.sizes[path],
            **options,
        }
        for path, made in targets.items()
    }
    todo = _missing(target, notes)
    tasks = [
        (str(path), str(made), short_side, gop, crf)
        for path, made in targets.items()
        if made in todo
    ]
    result = ResizeResult(kept=len(targets) - len(tasks))
    causes = for_each(
        resize_video,
        tasks,
        title="resize",
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
    )
    result.failed = {task[0]: cause for task, cause in zip(tasks, causes, strict=True) if cause}
    result.pairs = [
        (str(path), str(made)) for path, made in targets.items() if str(path) not in result.failed
    ]
    return result


def _missing(folder: Path, notes: Mapping[Path, Mapping[str, Any]]) -> set[Path]:
    """Note how the targets are made; those that are missing. Raises DataError for one that is there
    and whose note is another, or missing."""
    file = folder / NOTES
    lines = read_json_lines(file) if is_there(file) else ()
    before = {str(note.get("video")): note for note in lines}
    there = {path for path in notes if is_there(path)}
    new = {path: note for path, note in notes.items() if before.get(note["video"]) != note}
    if others := [path for path in new if path in there]:
        wanted = notes[others[0]]
        raise DataError(
            f"{others[0]}: made {_how(before.get(wanted['video'], {}))}, not {_how(wanted)};"
            f" {len(others)} of the {len(there)} videos that are there differ: give another folder"
            " for the result, or delete them."
        )
    if len(there) < len(notes):
        make_output_folder(str(folder))
        # Before the videos: one that is there has a note, whenever the run ends.
        with writing(str(file)):
            with file.open("ab") as output:
                output.writelines(b"\n" + json.dumps(note).encode() for note in new.values())
            fsync(file)
    return set(notes) - there


def _how(note: Mapping[str, Any]) -> str:
    """How a target was made. note: {} where nothing is known of it."""
    if not note:
        return "with unknown options"
    options = (f"--{name.replace('_', '-')} {note.get(name)}" for name in _OPTIONS)
    return f"with {' '.join(options)} from a file of {note.get('bytes')} bytes"


def check_encoding(short_side: int, gop: int, crf: int) -> None:
    """Raise ConfigError for a short side of fewer than 2 pixels, which H.264 cannot hold, a gop
    of fewer than 1 frame, or a crf outside 0 to 51."""
    if short_side < 2:
        raise ConfigError(f"a short side of {short_side} pixels; give 2 or more")
    if gop < 1:
        raise ConfigError(f"a keyframe every {gop} frames (gop); give 1 or more")
    if not 0 <= crf <= 51:
        raise ConfigError(f"a crf of {crf}; give 0 to 51, of which larger is smaller and worse")


def resize_video(source: str, target: str, short_side: int, gop: int, crf: int) -> str:
    """Write one file, without audio; "", or why the source cannot be read. Smaller videos keep
    their size.

    Frame k of the result is frame k of the source, at the same time where the frame rate varies.
    """
    try:
        info, times = look_at(source)
        # A frame is more than half a frame away from where a constant rate would have it.
        is_uneven = any(abs(second * info.fps - frame) > 0.5 for frame, second in enumerate(times))
        shown = with_end(times, info.duration_seconds) if is_uneven else None
        size = short_side_size(info.height, info.width, min(short_side, info.height, info.width))
        # A damaged file is announced with the frames that decode: the iterator is left before it
        # meets the damage.
        frames = islice(iter_frames(source), info.num_frames)
        write_video(target, frames, info.fps, size=size, gop=gop, crf=crf, times=shown)
    except DecodeError as error:
        return error.cause
    except OSError as error:
        raise DataError(
            f"{target}: {error.strerror or error}; nothing can be written there."
        ) from None
    return ""


@dataclass(frozen=True, slots=True)
class Gain:
    """Seconds for a training clip of 8 frames x 8, and bytes, of some videos before and after."""

    num_videos: int
    seconds: tuple[float, float]
    num_bytes: tuple[int, int]

    def __str__(self) -> str:
        (slow, fast), (large, small) = self.seconds, self.num_bytes
        return (
            f"a training clip (8 x 8, crop 224) takes {1000 * fast:.1f} ms instead of"
            f" {1000 * slow:.1f} ms, {slow / fast:.2f} times as fast, with {small / large:.2f} of"
            f" the bytes ({self.num_videos} videos, one thread of this machine)"
        )


def measure_gain(pairs: Sequence[tuple[str, str]], *, rounds: int = 3) -> Gain:
    """Read training clips of some videos from both versions in turn, from the page cache."""
    chosen = random.Random(0).sample(pairs, min(_MEASURED, len(pairs)))
    rule, transform = ClipRule(8, 8), ClipTransform(224)
    sides = [
        ClipDataset(list(map(VideoEntry, paths)), rule=rule, transform=transform)
        for paths in zip(*chosen, strict=True)
    ]
    seconds = [0.0, 0.0]
    for epoch in range(rounds + 1):
        for index in range(len(chosen)):
            for side, dataset in enumerate(sides):
                start = time.perf_counter()
                dataset.sample(epoch, index)
                seconds[side] += (time.perf_counter() - start) * (
                    epoch > 0
                )  # The first round fills the caches.
    before, after = (total / rounds / len(chosen) for total in seconds)
    large, small = (sum(map(os.path.getsize, paths)) for paths in zip(*chosen, strict=True))
    return Gain(len(chosen), (before, after), (large, small))
