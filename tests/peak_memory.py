"""The memory that a call takes at its peak, whatever the process has held before (Linux)."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from octvideo.engine.training.records import peak_resident_bytes


@contextmanager
def peak_growth_below(num_bytes: float) -> Iterator[None]:
    """Assert that the resident memory grows by less inside the context.

    The system's peak is set back first: else a process that once held more would notice nothing.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_resident_bytes()
    yield
    assert peak_resident_bytes() - before < num_bytes
