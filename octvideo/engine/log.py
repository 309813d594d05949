"""Where log lines go: the console, beside a progress bar, and stdout.log."""

import logging
from typing import IO

from iopath.common.file_io import g_pathmgr
from tqdm import tqdm

logger = logging.getLogger("octvideo")


class _Console(logging.Handler):
    """Lines that do not tear the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))


class _LogFile(logging.StreamHandler[IO[str]]):
    """Opened through iopath, so that an object store may hold it."""

    def __init__(self, path: str) -> None:
        super().__init__(g_pathmgr.open(path, "a"))

    def close(self) -> None:
        self.stream.close()
        super().close()


def setup_logging(output_dir: str | None = None, is_main: bool = True) -> None:
    """Rank 0: to the console, and with json_stats lines to output_dir/stdout.log. Other ranks: warnings only."""
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    console = _Console(logging.INFO if is_main else logging.WARNING)
    console.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(console)
    if output_dir is not None and is_main:
        file = _LogFile(f"{output_dir}/stdout.log")
        file.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%m/%d %H:%M:%S"))
        logger.addHandler(file)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
