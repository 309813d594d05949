"""Jobs over files, of which some end the process that reads them."""

import os
import signal

import pytest

from octvideo.data.prepare.parallel import for_each
from octvideo.data.reading import DecodeError, reading
from octvideo.errors import ConfigError


def look(path: str) -> str:
    try:
        with reading(path):
            if path == "crashes":
                os.kill(os.getpid(), signal.SIGKILL)
            if path == "hangs":
                signal.pause()
    except DecodeError as error:
        return error.cause
    return "fine"


@pytest.mark.slow
def test_a_file_that_hangs_or_crashes_is_blamed_and_the_others_go_on():
    tasks = [("a",), ("crashes",), ("b",), ("hangs",), ("c",)]

    found = list(for_each(look, tasks, title="test", timeout_seconds=3, num_workers=1))

    assert [found[0], found[2], found[4]] == ["fine"] * 3
    assert "SIGKILL" in found[1]
    assert "did not end within 3 seconds" in found[3]


def test_no_files_need_no_process():
    assert list(for_each(look, [], title="test", timeout_seconds=1)) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_workers": -1}, "-1 workers"),
        ({"timeout_seconds": 0}, "a time-out of 0 seconds"),
        ({"timeout_seconds": float("nan")}, "a time-out of nan seconds"),
    ],
)
def test_a_pool_that_could_do_nothing_is_refused(given, message):
    options = {"title": "test", "timeout_seconds": 1.0} | given

    with pytest.raises(ConfigError, match=message):
        list(for_each(look, [("a",)], **options))
