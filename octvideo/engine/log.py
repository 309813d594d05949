"""Logging to the console, beside a progress bar, and to stdout.log."""

import logging
import sys
from contextlib import suppress
from typing import IO

from iopath.common.file_io import g_pathmgr
from tqdm import tqdm

from octvideo.errors import drop_stdout, logger, say
from octvideo.files import writing


class _Console(logging.Handler):
    """Log lines that do not break the progress bar. If they cannot be written, the run continues;
    that is said once."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record))
            sys.stdout.flush()
        except OSError as error:  # the terminal may be gone, or its file's disk be full
            if not self.failed:
                say(
                    f"stdout cannot be written ({error.strerror}); the run goes on, and stdout.log"
                    " has its lines"
                )
            self.failed = True
        else:
            self.failed = False

    def flush(self) -> None:
        try:
            sys.stdout.flush()
        except OSError:
            drop_stdout()


class _LogFile(logging.StreamHandler[IO[str]]):
    """Opened through iopath, so that an object store may hold it."""

    def __init__(self, path: str) -> None:
        with writing(path):
            super().__init__(g_pathmgr.open(path, "a"))
        self.path, self.failed = path, False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A line that cannot be written does not end the run: it was on the console. Said once."""
        if not self.failed:
            self.failed = True
            logger.warning("%s: cannot be written (%s)", self.path, sys.exc_info()[1])

    def close(self) -> None:
        with suppress(OSError):
            self.stream.close()
        super().close()


def setup_logging(output_dir: str | None = None, is_main: bool = True) -> None:
    """Rank 0: to the console, and with json_stats to stdout.log. Other ranks: warnings only."""
    console = _Console(logging.INFO if is_main else logging.WARNING)
    for handler in logger.handlers[:]:
        if isinstance(handler, _Console):
            console.failed = handler.failed  # that was said before
        logger.removeHandler(handler)
        handler.close()
    console.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(console)
    if output_dir is not None and is_main:
        file = _LogFile(f"{output_dir}/stdout.log")
        file.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%m/%d %H:%M:%S"))
        logger.addHandler(file)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


def end_logging() -> None:
    """Flush the log. A console that cannot be written is no error: stdout.log has every line."""
    for handler in logger.handlers:
        with suppress(OSError):
            handler.flush()
