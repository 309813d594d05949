"""decord alone: this file imports nothing of octvideo, so that it also runs as a process that may
crash.

Requests and answers are pickles on stdin and stdout: (name, width, height) once, answered by the
number of frames; then lists of frame indices, answered by frames. An answer that is a str is an
error.
"""

import os
import pickle
import sys
from typing import Any

SCRIPT = __file__


def open_reader(name: str, width: int, height: int) -> Any:
    """A decord.VideoReader on one thread; width and height -1: as stored."""
    # After a wrong frame count decord retries at the end of the file, by default (10240) long
    # enough to look hung. Low limits fail on intact files when the machine is busy: 32 did, 1024
    # did not.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "2048")
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord.VideoReader(name, num_threads=1, width=width, height=height)


def frames_of(reader: Any, indices: list[int]) -> Any:
    """uint8 (T, H, W, 3)."""
    return reader.get_batch(indices).asnumpy()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what decord prints is no answer
    reader = None
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: Any
        try:
            if reader is None:
                reader = open_reader(*request)
                answer = len(reader)
            else:
                answer = frames_of(reader, request)
        except Exception as error:
            answer = str(error) or type(error).__name__
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


if __name__ == "__main__":
    _serve()
