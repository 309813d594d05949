"""Puts coded_videos.py and the other helpers of these tests on the import path of every folder
below."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from octvideo.data.storage.http import close_connections


@pytest.fixture
def serve(repo, monkeypatch) -> Iterator[Callable[..., Any]]:
    """serve(folder, latency=..., fault=...): a server of this folder on loopback; see
    benchmarks/range_server.py."""
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    from range_server import RangeServer

    with ExitStack() as stack:
        yield lambda folder, **options: stack.enter_context(RangeServer(folder, **options))
        close_connections()
