"""Which decoder gives the frame that was asked for: a scorecard over a folder of videos.

    python benchmarks/decoders.py FOLDER [--generated] [--encodings] [--frames 12] [--out scorecard.md]

Every decoder that is installed (octvideo, decord, PyAV in the usual loop, OpenCV, torchcodec) reads
the same frames of every file, in random order, in a process of its own. The truth is one sequential
decode with PyAV on one thread, as displayed. Decoders convert colors in their own ways: a frame is
right when no other frame of the file is nearer to what came out. Each decoder is given all numbers
at once where it can take them. Printed are the frames that are wrong, what was refused, CPU time
and memory. --generated, --encodings: also files that are made here: some of kinds that are known to
mislead, and some 140 encodings of one scene.
"""

import argparse
import importlib
import importlib.util
import json
import os
import pickle
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from made_encodings import write_encodings
from mutations import write_good
from sequential_decode import displayed, plain

from octvideo.data.prepare.video_files import look_below

_SIDE = 16
_SECONDS = 60
Read = Callable[[str, list[int]], list[Any]]


def signature(frame: Any) -> Any:
    """float32 (16, 16): mean luma of the cells of a grid."""
    luma = np.asarray(frame, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    rows, columns = (np.linspace(0, side, _SIDE + 1).astype(int) for side in luma.shape)
    cells = np.add.reduceat(np.add.reduceat(luma, rows[:-1], 0), columns[:-1], 1)
    return cells / np.maximum(np.outer(np.diff(rows), np.diff(columns)), 1)


def by_octvideo(path: str, indices: list[int]) -> list[Any]:
    from octvideo.data import read_frames

    return list(read_frames(path, indices))


def by_decord(path: str, indices: list[int]) -> list[Any]:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(path, num_threads=1)
    return list(reader.get_batch(indices).asnumpy())


def by_pyav(path: str, indices: list[int]) -> list[Any]:
    """The loop that is found everywhere: seek to index / rate, decode until that time."""
    frames = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate = float(stream.average_rate)
        first = (stream.start_time or 0) * stream.time_base
        for index in indices:
            seconds = float(first) + index / rate
            container.seek(int(seconds / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time >= seconds - 0.5 / rate:
                    break
            frames.append(frame.to_ndarray(format="rgb24"))
    return frames


def by_opencv(path: str, indices: list[int]) -> list[Any]:
    import cv2

    cv2.setNumThreads(1)
    video = cv2.VideoCapture(path)
    frames = []
    for index in indices:
        video.set(cv2.CAP_PROP_POS_FRAMES, index)
        is_read, frame = video.read()
        if not is_read:
            raise RuntimeError(f"no frame {index}")
        frames.append(frame[..., ::-1])
    return frames


def by_torchcodec(path: str, indices: list[int]) -> list[Any]:
    from torchcodec.decoders import VideoDecoder

    with av.open(path, metadata_errors="replace") as container:
        first = container.streams.video[0].index  # not the "best" one, which is its default
    decoder = VideoDecoder(path, stream_index=first, dimension_order="NHWC", num_ffmpeg_threads=1)
    return list(decoder.get_frames_at(indices).data.numpy())


DECODERS: dict[str, tuple[str, Read]] = {  # name -> module that must be installed, how it reads
    "octvideo": ("octvideo", by_octvideo),
    "decord": ("decord", by_decord),
    "PyAV loop": ("av", by_pyav),
    "OpenCV": ("cv2", by_opencv),
    "torchcodec": ("torchcodec", by_torchcodec),
}


def truth_of(path: Path) -> list[Any]:
    """Signatures of all frames of a sequential decode, as displayed; of those before it breaks
    off."""
    found = []
    try:
        with plain(path) as container:
            for frame in container.decode(video=0):
                shown = displayed(frame, frame.width, frame.height)
                found.append(signature(shown))
    except Exception as error:
        print(f"  {path.name}: ends after {len(found)} frames ({error})"[:120], file=sys.stderr)
    return found


@dataclass
class Score:
    """Of one decoder and one file. wrong: of the frames asked for; problem: why there are none."""

    wrong: int = 0
    asked: int = 0
    problem: str = ""
    cpu_seconds: float = 0.0

    def __str__(self) -> str:
        return self.problem or (f"{self.wrong} wrong" if self.wrong else "exact")


@dataclass
class Card:
    """decoder -> file -> score; megabytes: what reading added to each decoder's process."""

    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)


class _Child:
    """A process that reads with one decoder, started again after a crash."""

    def __init__(self, decoder: str) -> None:
        self._decoder = decoder
        self._process: subprocess.Popen[bytes] | None = None
        self.megabytes = 0.0

    def ask(self, path: Path, indices: list[int]) -> tuple[list[Any], float]:
        """Signatures and CPU seconds. Raises RuntimeError with the cause, which may be a crash or a
        hang."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, __file__, "--child", self._decoder]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps([str(path), indices]).encode() + b"\n")
        stdin.flush()
        if not select.select([stdout], [], [], _SECONDS)[0]:
            self.close()
            raise RuntimeError("hangs")
        try:
            answer, seconds, self.megabytes = pickle.load(stdout)
        except EOFError:
            raise RuntimeError(f"crashes (exit {self._process.wait()})") from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer, seconds

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def _child(decoder: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer
    module, read = DECODERS[decoder]
    importlib.import_module(module)
    before = _peak_megabytes()
    for line in sys.stdin:
        path, indices = json.loads(line)
        start = time.process_time()
        answer: Any
        try:
            frames = read(path, indices)
            seconds = time.process_time() - start
            answer = [signature(frame) for frame in frames]
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            answer, seconds = f"refused: {reason}", 0.0
        pickle.dump((answer, seconds, _peak_megabytes() - before), answers)
        answers.flush()


def _peak_megabytes() -> float:
    """Linux; getrusage would count what the parent held when this process began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def is_right(found: Any, index: int, truth: list[Any]) -> bool:
    """Whether no other frame is nearer, by more than what colors make, to what came out."""
    distances = [float(np.abs(found - one).mean()) for one in truth]
    return distances[index] <= min(distances) + 0.3 and distances[index] < 8


def score(files: list[Path], num_frames: int) -> Card:
    names = [
        name
        for name, (module, _) in DECODERS.items()
        if importlib.util.find_spec(module) is not None
    ]
    card = Card({name: {} for name in names})
    children = {name: _Child(name) for name in names}
    for path in files:
        truth = truth_of(path)
        if not truth:
            continue
        draw = random.Random(path.name)
        indices = [draw.randrange(len(truth)) for _ in range(num_frames - 2)]
        indices += [0, len(truth) - 1]
        draw.shuffle(indices)
        for name, child in children.items():
            card.scores[name][path.name] = _score(child, path, indices, truth)
    for name, child in children.items():
        card.megabytes[name] = child.megabytes
        child.close()
    return card


def _score(child: _Child, path: Path, indices: list[int], truth: list[Any]) -> Score:
    try:
        found, seconds = child.ask(path, indices)
    except RuntimeError as error:
        return Score(problem=str(error).replace(str(path.parent), "")[:60])
    pairs = zip(found, indices, strict=True)
    wrong = sum(not is_right(one, index, truth) for one, index in pairs)
    return Score(wrong, len(indices), cpu_seconds=seconds)


def as_markdown(card: Card) -> str:
    names = list(card.scores)
    files = list(next(iter(card.scores.values())))
    lines = [f"| file | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for file in files:
        cells = [str(card.scores[name][file]) for name in names]
        if any(cell != "exact" for cell in cells):
            told = [cell.replace("exact", "").partition(":")[0] for cell in cells]
            lines.append(f"| {file} | {' | '.join(told)} |")
    summary = [
        (
            f"{len(files)} files. Below are those that some decoder does not read exactly; an empty"
            " cell is exact."
        ),
        "",
        "| | exact | wrong frames | refused, crash or hang | CPU ms a frame | MB added |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        scores = list(card.scores[name].values())
        read = [one for one in scores if not one.problem]
        wrong = [one for one in read if one.wrong]
        asked = max(sum(one.asked for one in read), 1)
        milliseconds = 1000 * sum(one.cpu_seconds for one in read) / asked
        summary.append(
            f"| {name} | {len(read) - len(wrong)} | {len(wrong)} files,"
            f" {sum(one.wrong for one in wrong)} frames | {len(scores) - len(read)} |"
            f" {milliseconds:.1f} | {card.megabytes[name]:.0f} |"
        )
    return "\n".join([*summary, "", *lines])


def write_generated(folder: Path) -> None:
    """The files that mutations.py damages, and what misleads: an index that is false or gone, a
    display matrix."""
    good = write_good(folder)
    plain = good["plain.mp4"]
    (folder / "no_sync_table.mp4").write_bytes(plain.replace(b"stss", b"free"))
    at = plain.index(b"tkhd") + 44
    mirrored = np.array([-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    (folder / "mirrored.mp4").write_bytes(plain[:at] + mirrored + plain[at + 36 :])
    (folder / "joined.ts").write_bytes(good["plain.ts"] * 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--generated", action="store_true", help="kinds that are known to mislead")
    parser.add_argument("--encodings", action="store_true", help="all of made_encodings.py")
    parser.add_argument("--frames", type=int, default=12, help="of each file (12)")
    parser.add_argument("--out", type=Path, help="a .md for the tables")
    parser.add_argument("--child", choices=DECODERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child(args.child)
        return
    if not (args.folder or args.generated or args.encodings):
        parser.error("name a folder of videos, or give --generated or --encodings")
    av.logging.set_level(av.logging.PANIC)
    with tempfile.TemporaryDirectory() as name:
        files = look_below(args.folder).videos if args.folder else []
        if args.generated:
            write_generated(Path(name))
        if args.encodings:
            write_encodings(Path(name))
        files += sorted(Path(name).iterdir())
        text = as_markdown(score(files, args.frames))
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
