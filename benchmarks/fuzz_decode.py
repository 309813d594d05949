"""Whether damage makes a reader crash, hang, leak or give wrong frames: files damaged by seed, read
by every entrance.

    python benchmarks/fuzz_decode.py [--files 5000] [--first 0] [--notes fuzz.jsonl]

File n is always damaged alike (mutations.py). Each is read in a child process by every entrance and
compared, pixel by pixel, with a sequential decode in which nothing of octvideo takes part. --notes:
what was found, a line per file; the same command goes on from there. "differs by damage" is the
documented kind (docs/decisions/050-damage.md): a picture is damaged inside, and no whole decode
(`probe`, hence the index) has looked at the file before.
"""

import argparse
import importlib.util
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from mutations import mutant, write_good
from sequential_decode import Truth, truth_of

from octvideo.data import DecodeError, iter_frames, open_video, probe, reading
from octvideo.data.video.examine import examine

_FILES_PER_CHILD = 200
_SECONDS_TO_START, _SECONDS_PER_FILE = 600, 60
_MEMORY = 8 << 30
ALARMING = ("crash", "hang", "escaped", "wrong frames", "wrong times", "leak")


def _same(frames: Any, truth: Truth, indices: list[int]) -> bool:
    if len(frames) != len(indices) or max(indices, default=-1) >= len(truth.frames):
        return False
    pairs = ((frame, truth.frames[k]) for frame, k in zip(frames, indices, strict=True))
    return all(true is None or np.array_equal(frame, true) for frame, true in pairs)


def _read(path: str, truth: Truth, draw: random.Random, **options: Any) -> str:
    """Frames by number. Without an index nobody has decoded the file yet: damage inside a picture
    is not known of."""
    with open_video(path, **options) as video:
        count = video.info.num_frames
        chosen = [draw.randrange(count) for _ in range(8)]
        one_by_one = [video.read([index])[0] for index in chosen[:4]]
        together = video.read(chosen)
        in_order = video.read(sorted(chosen))
    is_right = (
        _same(one_by_one, truth, chosen[:4])
        and _same(together, truth, chosen)
        and _same(in_order, truth, sorted(chosen))
    )
    is_documented = truth.is_damaged and "known" not in options
    return "exact" if is_right else "differs by damage" if is_documented else "wrong frames"


def _iterate(path: str, truth: Truth, _draw: random.Random) -> str:
    frames = []
    with suppress(DecodeError):
        frames.extend(iter_frames(path))
    return "exact" if _same(frames, truth, list(range(len(truth.frames)))) else "wrong frames"


def _probe(path: str, truth: Truth, _draw: random.Random) -> str:
    return "exact" if probe(path).num_frames == len(truth.frames) else "wrong frames"


def _read_with_index(path: str, truth: Truth, draw: random.Random) -> str:
    return _read(path, truth, draw, known=probe(path))


def _times(path: str, truth: Truth, _draw: random.Random) -> str:
    with open_video(path) as video:
        info, times = video.info, np.array(video.timing(exact_times=True).times)
    is_right = len(times) == info.num_frames and times[0] == 0 and (np.diff(times) > 0).all()
    return "exact" if is_right and 0 < info.fps < 1e4 else "wrong times"


def _decord(path: str, truth: Truth, draw: random.Random, **options: Any) -> str:
    """As a loader worker reads."""
    reading.share_note(reading.Note())
    try:
        return _read(path, truth, draw, **options)
    finally:
        reading._shared = False


def _torchcodec(path: str, truth: Truth, draw: random.Random) -> str:
    return _decord(path, truth, draw, backend="torchcodec")


def _decord_with_index(path: str, truth: Truth, draw: random.Random) -> str:
    return _decord(path, truth, draw, known=probe(path))


ENTRANCES: dict[str, Callable[[str, Truth, random.Random], str]] = {
    "read": _read,
    "iter_frames": _iterate,
    "probe": _probe,
    "read with index": _read_with_index,
    "times": _times,
    "worker": _decord,
    "worker with index": _decord_with_index,
}
if importlib.util.find_spec("torchcodec"):
    ENTRANCES["worker with torchcodec"] = _torchcodec


def read_mutant(
    number: int, good: dict[str, bytes], folder: Path, say: Callable[[str], object]
) -> dict[str, str]:
    """Entrance -> outcome for one damaged file. `say` is told which entrance is next."""
    name, what, data = mutant(good, number, folder)
    path = folder / f"{number}_{name}"
    path.write_bytes(data)
    truth = truth_of(path)
    outcomes = {"file": name, "damage": what, "frames": str(len(truth.frames))}
    for entrance, read in ENTRANCES.items():
        say(entrance)
        try:
            outcomes[entrance] = read(str(path), truth, random.Random(number))
        except DecodeError as error:
            outcomes[entrance] = "DecodeError"
            if truth.frames:
                outcomes[entrance] = "refused"
                outcomes["cause"] = error.cause
        except Exception as error:
            outcomes[entrance] = f"escaped: {type(error).__name__}: {error}"[:200]
    path.unlink()
    examine.cache_clear()
    return outcomes


def _child() -> None:
    """Reads numbers, one a line; writes what it is about to do, what it found, and what it
    holds."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    av.logging.set_level(av.logging.PANIC)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = write_good(folder)
        answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what a decoder prints is not an answer
        answers.write("ready\n")
        for line in sys.stdin:
            found = read_mutant(
                int(line), good, folder, lambda text: answers.write(f"now {text}\n")
            )
            found["descriptors"] = str(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found["megabytes"] = str(pages * resource.getpagesize() >> 20)
            answers.write(f"found {json.dumps(found)}\n")


class _Reader:
    """A child that may crash or hang."""

    def __init__(self) -> None:
        command = [sys.executable, __file__, "--child"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._rest = b""
        self.num_files = 0
        if next(self._lines(_SECONDS_TO_START), "") != "ready":
            raise RuntimeError("a child that reads the files does not start")

    def find(self, number: int) -> dict[str, str]:
        assert self._process.stdin is not None
        self.num_files += 1
        self._process.stdin.write(b"%d\n" % number)
        self._process.stdin.flush()
        entrance = "before the first entrance"
        for line in self._lines(_SECONDS_PER_FILE):
            word, _, text = line.partition(" ")
            if word == "found":
                return dict(json.loads(text))
            entrance = text
        code = self._process.poll()
        if code is None:
            return {entrance: "hang"}
        return {entrance: f"crash: {signal.Signals(-code).name if code < 0 else code}"}

    def _lines(self, seconds: float) -> Iterator[str]:
        """Until the end of the process, or a line that takes longer than that."""
        assert self._process.stdout is not None
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                yield line.decode()
            ready, _, _ = select.select([self._process.stdout], [], [], seconds)
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not data:
                if ready:
                    self._process.wait()
                return
            self._rest += data

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def run(numbers: list[int], notes: Path | None) -> list[dict[str, str]]:
    """What was found of each file; of those in `notes`, what was found before."""
    known = {}
    if notes is not None and notes.is_file():
        for line in notes.read_text().splitlines():
            with suppress(ValueError):
                found = json.loads(line)
                known[int(found["number"])] = found
    reader, early = None, {}
    for number in numbers:
        if number in known:
            continue
        if reader is None or not reader.is_alive or reader.num_files >= _FILES_PER_CHILD:
            if reader is not None:
                reader.close()
            reader, early = _Reader(), {}
        found = {"number": str(number)} | reader.find(number)
        if "hang" in found.values():
            reader.close()
        _note_leaks(found, early, reader.num_files)
        known[number] = found
        if notes is not None:
            with notes.open("a") as file:
                file.write(json.dumps(found) + "\n")
    if reader is not None:
        reader.close()
    return [known[number] for number in numbers]


def _note_leaks(found: dict[str, str], early: dict[str, int], num_files: int) -> None:
    """Compared with what the child held after 50 files."""
    held = {name: int(found.get(name, 0)) for name in ("descriptors", "megabytes")}
    if num_files == 50:
        early.update(held)
    if num_files == _FILES_PER_CHILD and early:
        if held["descriptors"] > early["descriptors"]:
            found["leak"] = f"leak: {held['descriptors'] - early['descriptors']} descriptors"
        if held["megabytes"] > early["megabytes"] + 150:
            found["leak"] = f"leak: {held['megabytes'] - early['megabytes']} MB"


def report(found: list[dict[str, str]]) -> tuple[str, int]:
    """A table of outcomes, the files that need a look, and how many these are."""
    lines = [f"{len(found)} files"]
    for entrance in ENTRANCES:
        counts = Counter(one.get(entrance, "not reached").partition(":")[0] for one in found)
        named = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        lines.append(f"  {entrance:20} {named}")
    alarming = [one for one in found if any(map(_is_alarming, one.items()))]
    lines += [f"  {json.dumps(one)}" for one in alarming[:40]]
    return "\n".join(lines), len(alarming)


def _is_alarming(item: tuple[str, str]) -> bool:
    entrance, outcome = item
    # decord's own crashes end a loader worker, which is replaced.
    if "worker" in entrance and outcome.startswith("crash"):
        return False
    return outcome.startswith(ALARMING)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--notes", type=Path, help="a .jsonl to go on from")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child()
        return
    found = run(list(range(args.first, args.first + args.files)), args.notes)
    text, num_alarming = report(found)
    print(text)
    sys.exit(num_alarming > 0)


if __name__ == "__main__":
    main()
