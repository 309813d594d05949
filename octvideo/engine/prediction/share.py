"""The videos of a run, shared by the processes that torchrun started, and their files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.journal import fingerprint, stamp_of
from octvideo.engine.prediction.columns import check_suffix
from octvideo.engine.prediction.named import NamedVideo
from octvideo.engine.prediction.outputs import FoundWindows, Output, open_output
from octvideo.engine.prediction.rows import Row
from octvideo.errors import OctvideoError

Found = TypeVar("Found", NamedVideo, FoundWindows)
"""The result of one video."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to write. row: (result, digest of the video) -> its row."""

    path: Path
    kinds: Sequence[str]
    made_with: Mapping[str, str]
    row: Callable[[Any, str], Row]
    top_k: int = 0


class Share:
    """The part of a run that this process computes. `left`: its videos.

    Videos whose rows are in the files are skipped, except those that could not be read before; the
    others are dealt to the processes one by one. So a run can be continued by any number of
    processes.
    """

    def __init__(
        self,
        videos: Mapping[str, str],
        wanted: Sequence[Wanted],
        facts: Mapping[str, str],
        *,
        overwrite: bool,
        procs: Processes,
    ) -> None:
        """videos: path -> `VideoEntry.read_as`. facts: settings that all processes must share,
        which is checked if there are several. All names of files are checked before one is
        opened."""
        for one in wanted:
            check_suffix(one.path, one.kinds)
        self._wanted, self._overwrite, self._procs = wanted, overwrite, procs
        self._stack, self._files = ExitStack(), list[Output]()
        if not procs.alone:
            procs.agree({**facts, "videos": fingerprint(paths=list(videos))})
        # Rank 0 opens its files first, since it takes over those that other ranks left behind.
        missing = procs.made_by_main(lambda: self._missing(videos))
        self._digests = dict(islice(missing.items(), procs.rank, None, procs.world_size))
        self.left = list(self._digests)
        self._done = len(videos) - len(missing)
        if not procs.is_main:
            self._open(self._digests)
        procs.gather(None)
        procs.made_by_main(self._require_one_folder)

    def written(
        self, found: Iterable[Found], progress: Callable[[int, int], None]
    ) -> Iterator[Found]:
        """Yield the result of each video once its rows are written. It is new to a file that lacks
        it, and to one where it could not be read.

        The iterator ends when all processes are done; rank 0 then joins their files.
        """
        with self._stack:
            progress(self._done, self._done + len(self.left))
            for count, one in enumerate(found, start=self._done + 1):
                digest = self._digests[one.path]
                for wanted, file in zip(self._wanted, self._files, strict=True):
                    if file.wants(digest):
                        file.add(wanted.row(one, digest))
                progress(count, self._done + len(self.left))
                yield one
            if not self._procs.is_main:
                self._stack.close()
            # Not a barrier: on GPUs that is nccl's, which keeps them busy while it waits.
            self._procs.gather(None)
            if self._procs.is_main:
                for file in self._files:
                    file.finish()

    def _missing(self, videos: Mapping[str, str]) -> dict[str, str]:
        """Path -> digest (path, size, time of change, how it is read) of videos that some file
        wants."""
        digests = {
            path: fingerprint(path=path, stamp=stamp_of(path, read_as))
            for path, read_as in videos.items()
        }
        self._open(digests)
        return {path: digest for path, digest in digests.items() if self._wanted_by_some(digest)}

    def _wanted_by_some(self, digest: str) -> bool:
        return not self._files or any(file.wants(digest) for file in self._files)

    def _open(self, digests: Mapping[str, str]) -> None:
        with ExitStack() as stack:
            for one in self._wanted:
                file = open_output(
                    one.path,
                    one.kinds,
                    one.made_with,
                    digests,
                    top_k=one.top_k,
                    overwrite=self._overwrite,
                    rank=self._procs.rank,
                )
                self._files.append(stack.enter_context(file))
            self._stack = stack.pop_all()

    def _require_one_folder(self) -> None:
        for file in self._files:
            for rank in range(1, self._procs.world_size):
                if not file.of_rank(rank).exists():
                    raise OctvideoError(
                        f"{file.path.absolute().parent}: rank {rank} writes to another folder of"
                        " that name; choose one that all machines see"
                    )
