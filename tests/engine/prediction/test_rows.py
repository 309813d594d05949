"""Rows in a file: none lost and none doubled, whenever the writer was killed; and nobody else's
file is touched."""

import fcntl
import json
from pathlib import Path

import pytest

from octvideo.engine.prediction.rows import CsvLines, JsonLines, RowFile
from octvideo.errors import DataError, OctvideoError
from octvideo.files import OutputError

MADE_WITH = {"views": "1x1", "weights": "abc"}
VIDEOS = {"a.mp4": "1", "=b,\n.mp4": "2", "c.mp4": "3"}
KINDS = {"csv": CsvLines(1, list(MADE_WITH)), "jsonl": JsonLines()}
kinds = pytest.mark.parametrize("lines", KINDS.values(), ids=KINDS)


def _row(path: str) -> dict:
    problem = "broken" if path == "c.mp4" else ""
    named = [] if problem else [{"name": "x, y", "probability": 0.5}]
    return {"path": path, "problem": problem, "predictions": named, "video": VIDEOS[path]}


def _complete(path: Path, lines, videos=VIDEOS) -> int:
    """What a run does with the file; how many rows it had to write."""
    file = RowFile(path, lines, MADE_WITH, videos)
    missing = [path for path in videos if not file.has(videos[path])]
    for name in missing:
        file.add(_row(name) | {"video": videos[name]})
    file.close()
    return len(missing)


@kinds
def test_a_file_cut_at_any_byte_is_completed_to_the_same_rows(lines, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _complete(whole, lines)
    content = whole.read_bytes()

    for size in range(len(content) + 1):
        cut.write_bytes(content[:size])
        _complete(cut, lines)

        assert cut.read_bytes() == content, f"cut at byte {size}"


@kinds
def test_a_complete_file_is_not_written_to(lines, tmp_path):
    _complete(tmp_path / "rows", lines)
    before = (tmp_path / "rows").stat()

    assert _complete(tmp_path / "rows", lines) == 0

    after = (tmp_path / "rows").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@kinds
def test_a_video_that_was_replaced_is_read_again_and_has_one_row(lines, tmp_path):
    _complete(tmp_path / "rows", lines)

    assert _complete(tmp_path / "rows", lines, VIDEOS | {"a.mp4": "1 changed"}) == 1

    file = RowFile(tmp_path / "rows", lines, MADE_WITH, {})
    assert sorted(row["video"] for row in file.rows()) == ["1 changed", "2", "3"]
    file.close()


@kinds
def test_of_two_rows_of_a_video_the_later_one_stays_also_after_a_kill(lines, tmp_path):
    good = {"problem": "", "predictions": [{"name": "x", "probability": 0.5}]}
    for path, is_killed in ((tmp_path / "killed", True), (tmp_path / "rows", False)):
        _complete(path, lines)
        file = RowFile(path, lines, MADE_WITH, VIDEOS)
        assert [file.is_unread(video) for video in VIDEOS.values()] == [False, False, True]
        file.add(_row("c.mp4") | good)
        assert not file.is_unread(VIDEOS["c.mp4"])
        if not is_killed:
            file.settle()
        file.close()

    assert b"broken" in (tmp_path / "killed").read_bytes()
    assert _complete(tmp_path / "killed", lines) == 0
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "rows").read_bytes()
    assert b"broken" not in (tmp_path / "rows").read_bytes()


@kinds
def test_rows_of_videos_that_are_not_asked_for_now_stay(lines, tmp_path):
    _complete(tmp_path / "rows", lines)

    assert _complete(tmp_path / "rows", lines, {"a.mp4": "1"}) == 0
    assert _complete(tmp_path / "rows", lines) == 0


@kinds
@pytest.mark.parametrize("name", MADE_WITH)
def test_a_file_of_another_run_is_refused_and_stays(lines, name, tmp_path):
    _complete(tmp_path / "rows", lines)
    before = (tmp_path / "rows").read_bytes()

    with pytest.raises(DataError, match=f"made with {name} {MADE_WITH[name]}, not other"):
        RowFile(tmp_path / "rows", lines, MADE_WITH | {name: "other"}, VIDEOS)

    assert (tmp_path / "rows").read_bytes() == before


@kinds
@pytest.mark.parametrize(
    "content", [b"my thesis\n", b"a,b\n1,2\n", b'{"path": 1}\n', b"[]\n", b"\xff\xfe\n", b"\n"]
)
def test_a_file_that_no_run_wrote_is_refused_and_stays(lines, content, tmp_path):
    (tmp_path / "rows").write_bytes(content)

    with pytest.raises(DataError, match="--overwrite"):
        RowFile(tmp_path / "rows", lines, MADE_WITH, VIDEOS)

    assert (tmp_path / "rows").read_bytes() == content


@kinds
def test_begun_anew_a_file_forgets_what_it_held(lines, tmp_path):
    (tmp_path / "rows").write_text("my thesis\n")

    file = RowFile(tmp_path / "rows", lines, MADE_WITH, VIDEOS, overwrite=True)
    file.close()

    assert _complete(tmp_path / "rows", lines) == 3


@kinds
def test_two_runs_do_not_write_one_file(lines, tmp_path):
    first = RowFile(tmp_path / "rows", lines, MADE_WITH, VIDEOS, overwrite=True)

    with pytest.raises(OctvideoError, match="another process is writing it"):
        RowFile(tmp_path / "rows", lines, MADE_WITH, VIDEOS)

    first.close()


@kinds
def test_a_second_run_is_refused_while_the_first_replaces_the_file(lines, tmp_path, monkeypatch):
    (tmp_path / "rows").write_bytes(b"begun by somebody\n")
    refused = []

    def in_between(_):
        with pytest.raises(OctvideoError, match="another process is writing it"):
            RowFile(tmp_path / "rows", lines, MADE_WITH, VIDEOS, overwrite=True)
        refused.append(True)

    monkeypatch.setattr("octvideo.files.fsync", in_between)
    RowFile(tmp_path / "rows", lines, MADE_WITH, VIDEOS, overwrite=True).close()

    assert refused


@pytest.mark.parametrize("there", [b"", b"another"])
def test_a_file_that_was_replaced_or_removed_before_it_was_locked_is_not_written(
    there, tmp_path, monkeypatch
):
    path, lock = tmp_path / "rows", fcntl.flock

    def late(descriptor, operation):
        monkeypatch.undo()
        path.unlink()
        if there:
            path.write_bytes(JsonLines().line(_row("c.mp4") | MADE_WITH))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    file = RowFile(path, JsonLines(), MADE_WITH, VIDEOS)
    file.add(_row("a.mp4"))
    file.close()

    found = [json.loads(line)["path"] for line in path.read_text().splitlines()]
    assert found == (["c.mp4", "a.mp4"] if there else ["a.mp4"])


def test_a_lock_is_kept_no_longer_than_the_file_that_could_not_be_replaced(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    path.write_bytes(b"begun by somebody\n")

    def full(_):
        raise OSError("full")

    monkeypatch.setattr("octvideo.files.fsync", full)
    with pytest.raises(OutputError, match="full"):
        RowFile(path, JsonLines(), MADE_WITH, VIDEOS, overwrite=True)
    monkeypatch.undo()

    assert path.read_bytes() == b"begun by somebody\n"
    RowFile(path, JsonLines(), MADE_WITH, VIDEOS, overwrite=True).close()


def test_a_row_is_an_object_with_what_it_was_made_with(tmp_path):
    _complete(tmp_path / "rows", JsonLines())

    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert rows[0] == _row("a.mp4") | MADE_WITH
