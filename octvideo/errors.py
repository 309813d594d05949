"""Mistakes of users. Tools print them as one line; any other exception is a bug."""

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any

logger = logging.getLogger("octvideo")
"""The log of all modules; `octvideo.engine.log` says where its lines go."""

SCREEN = 1500  # characters
# Of a write that fails for want of room, or of a reader.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE)
DEADLY = (signal.SIGTERM, signal.SIGHUP)


def printable(text: str) -> str:
    """The text in one line: newlines and other control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def to_a_screen(text: str) -> str:
    """The text in one line, without its middle if it exceeds a screen: outside text may have any
    length, and any characters."""
    text = printable(text)
    if len(text) <= SCREEN:
        return text
    return f"{text[: SCREEN // 2]} ... ({len(text):,} characters) ... {text[-SCREEN // 3 :]}"


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, of at most 200 characters; its type if it says
    nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


class OctvideoError(Exception):
    """One line: what was got, the rule, the next step."""

    def __str__(self) -> str:
        return to_a_screen(super().__str__())


class ConfigError(OctvideoError, ValueError):
    """A setting or an argument is unknown, of the wrong type or range, or contradicts another."""


class DataError(OctvideoError):
    """A list, folder or file of the data is missing, empty or malformed."""


class ListError(DataError):
    """A line of a list cannot be used; the message begins with `file:line:`."""


class CheckpointError(OctvideoError):
    """A weights file is missing, damaged, hostile, or does not fit the model."""


@contextmanager
def silence() -> Iterator[None]:
    """A context for a trial: suppress log lines that the run itself will print."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """A context for a tool's main: an OctvideoError becomes `error: <line>` on stderr and exit
    status 2, Ctrl-C status 130.

    SIGTERM and SIGHUP end the process as usual, with a line before. If stdout cannot be written, a
    line and status 1 follow; there is no line for a reader that has gone (`| head`).
    """
    with _a_line_before_death():
        try:
            yield
            sys.stdout.flush()
        except OctvideoError as error:
            say(f"error: {error}")
            sys.exit(2)
        except KeyboardInterrupt:
            say("interrupted; the same command continues")
            sys.exit(130)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            if error.errno != errno.EPIPE:
                say(f"error: the output cannot be written ({error.strerror}); make room there")
            drop_stdout()
            sys.exit(1)


def say(line: str) -> None:
    """Print to stderr, if it can be written."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def drop_stdout() -> None:
    """Discard what stdout could not write: Python would try again at its exit, and complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()


@contextmanager
def _a_line_before_death() -> Iterator[None]:
    process, before = os.getpid(), {}

    def say_and_die(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:  # a fork inherits the handler, and has nothing to say
            line = f"stopped by {signal.Signals(number).name}; the same command continues\n"
            os.write(2, line.encode())  # the stream may be in use by what was interrupted
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    if threading.current_thread() is threading.main_thread():
        for number in DEADLY:
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup has one ignored: so it stays
                before[number] = signal.signal(number, say_and_die)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The next step after an unknown name: the nearest known one, else `otherwise`, by default the
    list of known names."""
    names = list(known)
    if close := get_close_matches(word, names, n=1, cutoff=0.5):
        return f"did you mean {close[0]}?"
    return otherwise or f"known are {', '.join(names)}"


def installed_version(package: str) -> str:
    """The version of an installed package; "" if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def import_optional(name: str, purpose: str, remedy: str) -> Any:
    """An optional library, or OctvideoError with the remedy."""
    send_no_statistics()
    try:
        return import_module(name)
    except ImportError as error:
        raise OctvideoError(f"{purpose}: {name} is missing; {remedy}") from error


def send_no_statistics() -> None:
    """Turn off what libraries send of their use without asking, before they are imported.

    OpenVINO sends it from a fork of this process, which holds locks and open files of a run: where
    there is no network it may hang, and outlive the run. Who has imported openvino_telemetry, or
    set the variable, has decided.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime's
