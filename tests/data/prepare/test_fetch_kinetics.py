"""Kinetics' archives from a server on loopback to shards, past cut connections, broken archives,
full disks, kills."""

import argparse
import filecmp
import gzip
import io
import itertools
import json
import os
import shutil
from functools import partial

import pytest
from coded_videos import write_clip
from killed_runs import run_past_kills, start
from tars import tar_of

from octvideo.cli.fetch import add_arguments, estimate, progress, run
from octvideo.data.lists.class_names import read_class_names
from octvideo.data.loading.pool import ReaderPool
from octvideo.data.prepare import archives
from octvideo.data.prepare.archives import BrokenArchiveError, download, unpack
from octvideo.data.prepare.fetch import Fetch, Plan
from octvideo.data.prepare.shard import Encoding
from octvideo.data.shards.shard_list import open_shards
from octvideo.data.shards.shard_set import Shard, ShardSet
from octvideo.data.storage import ranges
from octvideo.errors import ConfigError, DataError, OctvideoError
from octvideo.files import OutputError, shipped_folder

CLASSES = {"all of them": ["clap", "wave"]}
HEADER = "label,youtube_id,time_start,time_end,split"


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch):
    monkeypatch.setattr(ranges, "_FIRST_PAUSE", 0.001)


def _stem(i):
    return f"abcdefgh-_{i}_{i:06d}_{i + 10:06d}"


def _tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(tar_of(files), compresslevel=1))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Ten annotated clips in three archives: 2 is broken and replaced, 5 is broken, 8 is in no
    archive."""
    folder, clips = tmp_path_factory.mktemp("mirror"), tmp_path_factory.mktemp("clips")
    content = {i: write_clip(clips / f"{i}.mp4", 8 + i).read_bytes() for i in range(10)}
    good = content[2]
    content[2], content[5] = b"broken", content[5][:200]
    groups = [range(4), range(4, 7), (7, 9)]
    for k, group in enumerate(groups):
        files = {f"./{_stem(i)}.mp4": content[i] for i in group}
        _tar(folder / "400" / "val" / f"part_{k}.tar.gz", files | {"readme.txt": b"hello"})
    _tar(folder / "400" / "replacement_for_corrupted_k400.tgz", {f"r/{_stem(2)}.mp4": good})
    rows = [f"{('clap', 'wave')[i % 2]},abcdefgh-_{i},{i},{i + 10},val" for i in range(10)]
    (folder / "400" / "annotations").mkdir()
    (folder / "400" / "annotations" / "val.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def _list_archives(mirror, url):
    lines = "".join(f"{url}/400/val/part_{k}.tar.gz\n" for k in range(3))
    (mirror / "400" / "val" / "k400_val_path.txt").write_text(lines)


def _job(folder, url, **options):
    return Fetch(
        "kinetics400",
        folder,
        class_lists=CLASSES,
        mirror=url,
        max_bytes=10_000,
        **{"encoding": Encoding(64, 6, 30), "num_workers": 1, **options},
    )


@pytest.fixture
def fetch(mirror, serve, tmp_path):
    """fetch(fault=...) runs it into tmp_path / "out"; fetch.server is the server."""

    def fetch(folder="out", server=None, **options):
        fetch.server = server or serve(mirror, **options)
        _list_archives(mirror, fetch.server.url)
        job = _job(tmp_path / folder, fetch.server.url)
        return job.run(job.plan(["val"]))[0]

    return fetch


def _assert_is_whole(folder, report):
    videos = open_shards(str(folder / "val"))
    names = [_stem(i) for i in (0, 1, 2, 3, 4, 5, 6, 7, 9)]
    assert [entry.path for entry in videos] == [f"{name}.mp4" for name in names]
    assert [entry.label for entry in videos] == [0, 1, 0, 1, 0, 1, 0, 1, 1]
    assert [entry.part.info and entry.part.info.num_frames for entry in videos] == [
        *(8, 9, 10, 11, 12, None, 14, 15, 17)
    ]
    assert (report.num_stored, report.missing, report.replaced) == (8, [_stem(8)], [_stem(2)])
    assert list(report.broken) == [f"{_stem(5)}.mp4"]
    assert not (folder / "work").exists()
    assert not list((folder / "val").glob(".*"))


def test_archives_become_shards_and_a_report(fetch, tmp_path):
    report = fetch()

    _assert_is_whole(tmp_path / "out", report)
    text = (tmp_path / "out" / "val" / "report.txt").read_text()
    assert text.startswith("val: 8 videos stored, 1 of them replacements; 1 broken, 1 missing, 0 ")
    assert f"missing: {_stem(8)}" in text
    assert (tmp_path / "out" / "val" / "shards.json").exists()


def test_cut_connections_and_busy_servers_change_nothing(fetch, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_RANGE", 2_000)
    calls = itertools.count()

    report = fetch(fault=lambda path, size: [None, "503", 100, 0][next(calls) % 4])

    _assert_is_whole(tmp_path / "out", report)
    assert max(size for size in _asked(fetch.server)) <= 1 << 29


def _asked(server):
    for _, _, asked in server.requests:
        first, _, last = asked.removeprefix("bytes=").partition("-")
        if last:
            yield int(last) - int(first)


def test_what_is_done_is_not_fetched_again(fetch, tmp_path):
    fetch()
    shards = (tmp_path / "out" / "val").glob("*.tar")
    before = {file.name: file.stat().st_mtime_ns for file in shards}
    fetch.server.requests.clear()

    report = fetch(server=fetch.server)

    _assert_is_whole(tmp_path / "out", report)
    assert not [
        path for method, path, _ in fetch.server.requests if method == "GET" and "part_" in path
    ]
    shards = (tmp_path / "out" / "val").glob("*.tar")
    assert before == {file.name: file.stat().st_mtime_ns for file in shards}


@pytest.fixture
def cut_archive(mirror):
    """part_1 breaks off after its first video, and is whole again when this is called and
    afterwards."""
    path = mirror / "400" / "val" / "part_1.tar.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.6 * len(whole))])
    yield lambda: path.write_bytes(whole)
    path.write_bytes(whole)


def test_a_broken_archive_is_fetched_once_more_and_then_named(fetch, tmp_path, cut_archive):
    report = fetch()

    assert list(report.broken_archives) == [f"{fetch.server.url}/400/val/part_1.tar.gz"]
    asked = [path for method, path, _ in fetch.server.requests if method == "GET"]
    assert asked.count("/400/val/part_1.tar.gz") == 2
    assert _stem(6) in report.missing
    assert f"{_stem(4)}.mp4" in [entry.path for entry in open_shards(str(tmp_path / "out" / "val"))]


def test_the_same_command_fetches_again_what_was_broken_and_skips_what_is_whole(
    fetch, tmp_path, cut_archive, caplog
):
    fetch()
    cut_archive()
    fetch.server.requests.clear()
    caplog.clear()

    report = fetch(server=fetch.server)

    assert (report.num_stored, report.missing) == (8, [_stem(8)])
    assert report.broken_archives == {}
    assert {path for _, path, asked in fetch.server.requests if asked and "part_" in path} == {
        "/400/val/part_1.tar.gz"
    }
    assert caplog.messages == [
        "val: 2 archives are whole; those that were broken are fetched again: part_1.tar.gz"
    ]
    text = (tmp_path / "out" / "val" / "report.txt").read_text()
    assert "0 archives broken" in text
    names = [entry.path for entry in open_shards(str(tmp_path / "out" / "val"))]
    assert names == [f"{_stem(i)}.mp4" for i in (0, 1, 2, 3, 4, 5, 7, 9, 6)]
    _assert_has_nothing_left_to_fetch(fetch)


def _assert_has_nothing_left_to_fetch(fetch):
    fetch.server.requests.clear()
    fetch(server=fetch.server)
    assert not [path for _, path, asked in fetch.server.requests if asked and "part_" in path]


def test_archives_of_the_same_name_are_of_their_split(serve, tmp_path):
    """A run of the other split was interrupted, and has left archives."""
    site = tmp_path / "site"
    video = write_clip(tmp_path / "video.mp4", 8).read_bytes()
    (site / "400" / "annotations").mkdir(parents=True)
    server = serve(site)
    for split, numbers in (("val", (0, 1)), ("train", (2, 3))):
        for k, i in enumerate(numbers):
            _tar(site / "400" / split / f"part_{k}.tar.gz", {f"{_stem(i)}.mp4": video})
        rows = [f"clap,abcdefgh-_{i},{i},{i + 10},{split}" for i in numbers]
        (site / "400" / "annotations" / f"{split}.csv").write_text("\n".join([HEADER, *rows]))
        lines = "".join(f"{server.url}/400/{split}/part_{k}.tar.gz\n" for k in range(2))
        (site / "400" / split / f"k400_{split}_path.txt").write_text(lines)

    def interrupt(*_):
        raise KeyboardInterrupt

    job = partial(_job, tmp_path / "out", server.url)
    interrupted = job(after_archive=interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(interrupted.plan(["val"]))
    assert list((tmp_path / "out" / "work").rglob("part_1.tar.gz"))

    (train,) = job().run(job().plan(["train"]))

    assert (train.num_stored, train.missing, train.broken_archives) == (2, [], {})


def test_what_an_interrupted_run_of_another_data_set_left_is_not_used(serve, tmp_path):
    """Its files have the same names."""
    site = tmp_path / "site"
    server = serve(site)
    for name, label, stem in (("400", "clap", _stem(0)), ("600", "wave", _stem(1))):
        lists = site / name / "val" / f"k{name}_val_path.txt"
        _tar(site / name / "val" / "part_0.tar.gz", {f"{stem}.mp4": label.encode()})
        lists.write_text(f"{server.url}/{name}/val/part_0.tar.gz\n")
        (site / name / "annotations").mkdir()
        row = f"{label},{stem[:11]},{int(stem[-6:]) - 10},{int(stem[-6:])},val"
        (site / name / "annotations" / "val.csv").write_text(f"{HEADER}\n{row}\n")
    of_400, of_600 = (
        Fetch(name, tmp_path / "out", class_lists=CLASSES, mirror=server.url)
        for name in ("kinetics400", "kinetics600")
    )
    (before,) = of_400.plan(["val"])
    ((_, archive),) = archives.download_ahead(before.archives, of_400._work / "val", 1)

    (plan,) = of_600.plan(["val"])
    ((_, other),) = archives.download_ahead(plan.archives, of_600._work / "val", 1)

    assert list(plan.annotations) == [_stem(1)]
    assert archive.read_bytes() != other.read_bytes()


def test_an_archive_of_other_videos_is_named(fetch, mirror):
    """A mirror that gives one file under two names."""
    path = mirror / "400" / "val" / "part_2.tar.gz"
    ours = path.read_bytes()
    _tar(path, {"zyxwvuts-_1_000001_000011.mp4": b"some video", "readme.txt": b"hello"})
    try:
        report = fetch()
    finally:
        path.write_bytes(ours)

    assert report.broken_archives == {
        f"{fetch.server.url}/400/val/part_2.tar.gz": (
            "part_2.tar.gz: none of its files is a video of val"
        )
    }
    assert {_stem(7), _stem(9)} <= set(report.missing)


@pytest.fixture
def cut_replacements(mirror):
    """The only replacement is torn; whole again afterwards."""
    path = mirror / "400" / "replacement_for_corrupted_k400.tgz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.6 * len(whole))])
    yield lambda: path.write_bytes(whole)
    path.write_bytes(whole)


def test_replacements_that_come_torn_are_fetched_once_more(
    fetch, tmp_path, cut_replacements, monkeypatch
):
    monkeypatch.setattr(archives.logger, "warning", lambda *_: cut_replacements())

    _assert_is_whole(tmp_path / "out", fetch())


def test_replacements_that_stay_torn_are_named_and_not_used(fetch, cut_replacements):
    report = fetch()

    (name,) = report.broken_archives
    assert name == f"{fetch.server.url}/400/replacement_for_corrupted_k400.tgz"
    assert report.replaced == []
    assert f"{_stem(2)}.mp4" in report.broken


def test_a_replacement_that_is_gone_stops_the_run_and_the_same_command_continues(
    fetch, tmp_path, monkeypatch
):
    replacements = Fetch._replacements

    def lose(job):
        found, broken = replacements(job)
        shutil.rmtree(job._work / "replacements")
        return found, broken

    monkeypatch.setattr(Fetch, "_replacements", lose)
    with pytest.raises(DataError, match=rf"{_stem(2)}\.mp4: it was unpacked and is gone; delete"):
        fetch()
    monkeypatch.undo()

    _assert_is_whole(tmp_path / "out", fetch())


def test_an_error_ends_the_reading_before_it_ends_the_pool(fetch, tmp_path, monkeypatch):
    """Else the thread that serves the workers takes them for dead ones, and starts others."""
    ended = []

    class Pool(ReaderPool):
        def run(self, tasks, *, ahead):
            try:
                yield from super().run(tasks, ahead=ahead)
            finally:
                ended.append("reading")

        def close(self):
            ended.append("pool")
            super().close()

    def full(*_):
        raise OutputError("no space left")

    monkeypatch.setattr("octvideo.data.prepare.fetch.ReaderPool", Pool)
    monkeypatch.setattr("octvideo.data.prepare.fetch.ShardWriter.add", full)
    with pytest.raises(OutputError, match="no space left"):
        fetch()

    assert ended == ["reading", "pool"]


def test_a_replacement_that_cannot_be_read_is_broken_and_replaces_nothing(fetch, mirror):
    path = mirror / "400" / "replacement_for_corrupted_k400.tgz"
    ours = path.read_bytes()
    _tar(path, {f"r/{_stem(2)}.mp4": b"broken too"})
    try:
        report = fetch()
    finally:
        path.write_bytes(ours)

    assert report.replaced == []
    assert list(report.broken) == [f"{_stem(2)}.mp4", f"{_stem(5)}.mp4"]


def test_a_second_fetch_into_a_folder_is_refused_whatever_its_split(mirror, serve, tmp_path):
    server = serve(mirror)
    _list_archives(mirror, server.url)
    second = _job(tmp_path / "out", server.url)
    plans = second.plan(["val"])
    (plan,) = second.plan(["val"])
    plan.split = "train"
    refused = []

    def try_the_other_split(*_):
        with pytest.raises(OctvideoError, match=r"out: in use by .* wait for it"):
            second.run([plan])
        refused.append(plan)

    (report,) = _job(tmp_path / "out", server.url, after_archive=try_the_other_split).run(plans)

    assert len(refused) == 3
    _assert_is_whole(tmp_path / "out", report)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_workers": -1}, "-1 workers; give 1 or more, or 0 for one per core"),
        ({"num_archives": 0}, "0 archives to download ahead; give 1 or more"),
        ({"encoding": Encoding(-4)}, "a short side of -4 pixels; give 2 or more"),
        ({"encoding": Encoding(64, 6, 99)}, "a crf of 99; give 0 to 51"),
    ],
)
def test_a_fetch_that_could_not_go_on_is_refused_before_it_begins(tmp_path, given, message):
    with pytest.raises(ConfigError, match=message):
        _job(tmp_path / "out", "http://localhost:1", **given)

    assert not (tmp_path / "out").exists()


def test_a_run_begins_though_another_has_removed_its_work_since_it_was_planned(
    mirror, serve, tmp_path
):
    server = serve(mirror)
    _list_archives(mirror, server.url)
    job = _job(tmp_path / "out", server.url)
    plans = job.plan(["val"])
    shutil.rmtree(tmp_path / "out" / "work")

    (report,) = job.run(plans)

    _assert_is_whole(tmp_path / "out", report)


def test_a_full_disk_is_one_line_and_the_same_command_continues(fetch, tmp_path, monkeypatch):
    writes = itertools.count()
    open_file = type(tmp_path).open

    class Full(io.FileIO):
        def write(self, data):
            if next(writes) == 2:
                raise OSError(28, "No space left on device")
            return super().write(data)

    def opens(path, mode="r", *args, **kwargs):
        if mode == "wb" and path.suffix == ".mp4":
            return Full(path, mode)
        return open_file(path, mode, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "open", opens)
    with pytest.raises(OutputError, match=r"No space left.* the same command continues"):
        fetch()
    monkeypatch.setattr(type(tmp_path), "open", open_file)

    _assert_is_whole(tmp_path / "out", fetch())


def test_a_mirror_that_lacks_a_file_is_one_line(fetch, mirror):
    (mirror / "400" / "val" / "part_2.tar.gz").rename(mirror / "away")
    try:
        with pytest.raises(DataError, match=r"part_2\.tar\.gz: .* is the mirror complete\?"):
            fetch()
    finally:
        (mirror / "away").rename(mirror / "400" / "val" / "part_2.tar.gz")


KINETICS_600 = read_class_names(shipped_folder("data_lists") / "kinetics600_classes.txt")


@pytest.mark.parametrize("annotations", ["val.csv", "val.txt"])
def test_kinetics600_lies_elsewhere_and_has_no_replacements(mirror, serve, tmp_path, annotations):
    """Its annotations were .txt before 2022, quoted, with times that are floats."""
    site = tmp_path / "site"
    source = mirror / "400" / "val"
    (site / "600" / "val").mkdir(parents=True)
    (site / "600" / "annotations").mkdir()
    for k in range(3):
        shutil.copy(source / f"part_{k}.tar.gz", site / "600" / "val" / f"k600_val_{k}.tar.gz")
    rows = [
        f'"{("zumba", "abseiling")[i % 2]}",abcdefgh-_{i},{i}.0,{i + 10}.0,val' for i in range(10)
    ]
    (site / "600" / "annotations" / annotations).write_text("\n".join([HEADER, *rows]) + "\n")
    server = serve(site)
    lines = "".join(f"{server.url}/600/val/k600_val_{k}.tar.gz\n" for k in range(3))
    (site / "600" / "val" / "k600_val_path.txt").write_text(lines)

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--split", "val", "--shards", "--mirror", server.url, "--short-side", "64"]
    options += ["--out", str(tmp_path / "out"), "--size", "10KB", "--workers", "1"]

    run(parser.parse_args(["kinetics600", *options]))

    videos = open_shards(str(tmp_path / "out" / "val"))
    assert [entry.path for entry in videos] == [
        f"{_stem(i)}.mp4" for i in (0, 1, 2, 3, 4, 5, 6, 7, 9)
    ]
    labels = [KINETICS_600.index(name) for name in ("zumba", "abseiling")]
    assert [entry.label for entry in videos] == [labels[i % 2] for i in (*range(8), 9)]
    report = (tmp_path / "out" / "val" / "report.txt").read_text()
    assert report.startswith("val: 7 videos stored, 0 of them replacements; 2 broken, 1 missing, 0")
    assert f"broken: {_stem(2)}.mp4" in report
    assert not (tmp_path / "out" / "work").exists()


def test_an_estimate_comes_before_it_starts(mirror, serve, tmp_path):
    server = serve(mirror)
    _list_archives(mirror, server.url)

    (plan,) = Fetch("kinetics400", tmp_path, class_lists=CLASSES, mirror=server.url).plan(["val"])

    assert plan.num_bytes == sum(
        path.stat().st_size for path in (mirror / "400" / "val").glob("*.tar.gz")
    )
    assert estimate(plan, 2).startswith("val: 10 videos in 3 archives, 0.0 GB to download")
    plan.annotations = dict.fromkeys(map(str, range(10_000)))
    assert "3.9 to 12.5 core hours to make them" in estimate(plan, 2)
    assert "(1.9 to 6.2 h on 2 cores)" in estimate(plan, 2)
    assert "about 9 GB of shards" in estimate(plan, 2)
    assert "Assumed: 0.9 MB per video" in estimate(plan, 2)


def test_the_size_of_the_shards_is_estimated_from_those_that_are_there():
    plan = Plan("train", ["a.tar.gz", "b.tar.gz", "c.tar.gz"], dict.fromkeys(map(str, range(1000))))
    shards = ShardSet("train", [Shard("a.tar", 10**9, 100), Shard("b.tar", 5 * 10**8, 50)])

    assert progress(plan, shards, 1) == (
        "train: 1 of 3 archives, 150 videos in 1.50 GB of shards; all 1000 will take about 10.00 GB"
    )
    assert "0 videos in 0.00 GB" in progress(plan, ShardSet("train"), 1)


def test_an_interrupted_download_continues_where_it_was(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_RANGE", 1_000)
    monkeypatch.setattr(ranges, "PATIENCE", 0.01)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a").write_bytes(content := os.urandom(10_000))
    calls = itertools.count()
    server = serve(tmp_path / "s", fault=lambda path, size: "503" if next(calls) >= 5 else None)
    with pytest.raises(DataError, match="503"):
        download(f"{server.url}/a", tmp_path / "a")
    server.fault = None
    server.requests.clear()

    download(f"{server.url}/a", tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == content
    assert len(server.requests) == 1 + 6


def test_names_in_an_archive_cannot_leave_the_folder(tmp_path):
    from octvideo.data.prepare.fetch import _place_of

    assert _place_of("../../../etc/x.mp4", tmp_path) == tmp_path / "x.mp4"
    assert _place_of("/etc/passwd", tmp_path) is None
    _tar(tmp_path / "a.tgz", {"a.mp4": b"1" * 5000})
    whole = (tmp_path / "a.tgz").read_bytes()
    for damaged in (b"", b"no gzip", whole[:60], whole[:40] + b"\xff" * 30):
        (tmp_path / "a.tgz").write_bytes(damaged)
        with pytest.raises(BrokenArchiveError):
            list(unpack(tmp_path / "a.tgz", lambda name: tmp_path / "out.mp4"))


@pytest.mark.slow
def test_a_fetch_that_is_killed_again_and_again_ends_as_an_undisturbed_one(mirror, serve, tmp_path):
    server = serve(mirror, latency=0.02)
    _list_archives(mirror, server.url)
    arguments = ["fetch", "kinetics400", "--split", "val", "--shards", "--mirror", server.url]
    arguments += ["--short-side", "64", "--size", "10KB", "--workers", "1"]
    assert start([*arguments, "--out", tmp_path / "whole"], tmp_path / "whole").wait() == 0

    run_past_kills([*arguments, "--out", tmp_path / "killed"], tmp_path / "killed")

    ours, theirs = tmp_path / "killed" / "val", tmp_path / "whole" / "val"
    names = sorted(file.name for file in theirs.iterdir() if file.name != "fetched.jsonl")
    assert sorted(f.name for f in ours.iterdir() if f.name != "fetched.jsonl") == names
    assert filecmp.cmpfiles(ours, theirs, names, shallow=False)[0] == names
    assert json.loads((ours / "shards.json").read_text())["complete"]
