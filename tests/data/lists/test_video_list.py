"""What a line of a list means, in every format, and what is said when it means nothing."""

import gc
from pathlib import Path

import fsspec
import pytest
import torch

from octvideo.data.lists.video_list import VideoEntry, VideoList, read_list, write_list
from octvideo.data.loading.batch import Sample
from octvideo.data.loading.loader import Loader
from octvideo.data.loading.pool import ReaderPool
from octvideo.errors import DataError, ListError


@pytest.fixture
def make_list(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "train.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("/v/a.mp4 3", "/v/a.mp4", 3),
        ("/v/a.mp4,3", "/v/a.mp4", 3),
        ("/v/a.mp4, 3", "/v/a.mp4", 3),
        ("/v/a.mp4\t3", "/v/a.mp4", 3),
        ("/v/playing  the flute/a 1.mp4 12", "/v/playing  the flute/a 1.mp4", 12),
        ("/v/a,b, c.mp4 0", "/v/a,b, c.mp4", 0),
        ("/v/übung/滑雪.mp4 7\r", "/v/übung/滑雪.mp4", 7),
        ("\ufeff/v/a.mp4 3", "/v/a.mp4", 3),
    ],
)
def test_the_label_is_what_follows_the_last_separator(make_list, line, path, label):
    videos = read_list(make_list(line + "\n"))

    assert list(videos) == [VideoEntry(path, (label,))]
    assert videos[0].label == label


def test_a_chosen_separator_is_the_only_one(make_list):
    videos = read_list(make_list("/v/a b,c|4\n"), separator="|")

    assert videos[0] == VideoEntry("/v/a b,c", (4,))


@pytest.mark.parametrize(
    ("format", "text", "entry"),
    [
        ("frames", "/v/my clip 120 5\n", VideoEntry("/v/my clip", (5,), 120)),
        ("unlabeled", "/v/my clip, 3.mp4\n", VideoEntry("/v/my clip, 3.mp4")),
        ("unlabelled", "/v/a.mp4\n", VideoEntry("/v/a.mp4")),
        ("multilabel", "/v/a, b.mp4 3,17,25\n", VideoEntry("/v/a, b.mp4", (3, 17, 25))),
        ("multilabel", '/v/a.mp4 ""\n', VideoEntry("/v/a.mp4")),
        ("multilabel", '"/v/a b.mp4" "3,4"\n', VideoEntry("/v/a b.mp4", (3, 4))),
        ("video", '"/v/my, film.mp4" 3\n', VideoEntry("/v/my, film.mp4", (3,))),
        ("video", '"/v/my ""best"" film.mp4",3\n', VideoEntry('/v/my "best" film.mp4', (3,))),
        ("video", '/v/"a" and "b".mp4 3\n', VideoEntry('/v/"a" and "b".mp4', (3,))),
    ],
)
def test_each_format_has_its_columns(make_list, format, text, entry):
    assert list(read_list(make_list(text), format=format)) == [entry]


@pytest.mark.parametrize(
    ("text", "format", "entry"),
    [
        ('label,path\n3,"/v/a, b.mp4"\n', "video", VideoEntry("/v/a, b.mp4", (3,))),
        ("path,num_frames,label\n/v/a,9,3\n", "frames", VideoEntry("/v/a", (3,), 9)),
        ('path,labels\n/v/a.mp4,"3,4"\n', "multilabel", VideoEntry("/v/a.mp4", (3, 4))),
        ("path,labels\n/v/a.mp4,\n", "multilabel", VideoEntry("/v/a.mp4")),
        ("path,reason\n/v/a.mp4,empty file\n", "unlabeled", VideoEntry("/v/a.mp4")),
        ("path\n/v/a, b.mp4\n", "unlabeled", VideoEntry("/v/a, b.mp4")),
        ("path label\n/v/a b.mp4 3\n", "video", VideoEntry("/v/a b.mp4", (3,))),
        ("path\tlabel\n/v/a b.mp4\t3\n", "video", VideoEntry("/v/a b.mp4", (3,))),
    ],
)
def test_a_header_wins_over_the_format(make_list, text, format, entry):
    videos = read_list(make_list(text), format="video" if format == "unlabeled" else "unlabeled")

    assert videos.format == format
    assert list(videos) == [entry]


def test_relative_paths_begin_at_the_prefix_or_else_at_the_list(make_list):
    path = make_list("clips/a.mp4 0\n/abs/b.mp4 1\n")

    assert [v.path for v in read_list(path)] == [str(path.parent / "clips/a.mp4"), "/abs/b.mp4"]
    assert [v.path for v in read_list(path, path_prefix="/data")] == [
        "/data/clips/a.mp4",
        "/abs/b.mp4",
    ]


def test_blank_lines_are_passed_over_and_counted(make_list):
    path = make_list("a.mp4 0\n\n  \nb.mp4 9\n")

    assert len(read_list(path)) == 2
    with pytest.raises(ListError, match=r"train.csv:4: label 9"):
        read_list(path, num_classes=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a.mp4 0\nb.mp4 400\n",
            r"train.csv:2: label 400 is outside 0\.\.399 \(MODEL.NUM_CLASSES: 400\). Labels sta",
        ),
        ("a.mp4 -1\n", r"train.csv:1: label -1 is outside"),
        ("a.mp4 0\nb.mp4\n", r"train.csv:2: 'b.mp4' is not `path label`"),
        ("a.mp4 0\nb.mp4 x\n", r"train.csv:2: invalid literal .*'x'"),
        ("path,label\na, b.mp4,3\n", r"train.csv:2: 3 fields under a header of 2"),
        (
            "path,label,labels\na.mp4,3,3\n",
            r"train.csv:1: a header of path,label,labels is no list format",
        ),
        (b"a.mp4 0\n\xff\xfe.mp4 0\n", r"train.csv:2: the line is not UTF-8"),
    ],
)
def test_errors_name_file_and_line(make_list, text, message):
    with pytest.raises(ListError, match=message):
        read_list(make_list(text), num_classes=400)


@pytest.mark.parametrize("line", ["a.mp4 3, 17", "a.mp4 3 17", "my clip.webm 3 4,5"])
def test_labels_apart_by_spaces_are_refused_and_not_taken_for_a_path(make_list, line):
    with pytest.raises(ListError, match=r"train.csv:1: .* joined by commas without spaces"):
        read_list(make_list(line + "\n"), format="multilabel")


@pytest.mark.parametrize(
    ("text", "format"), [("path,label\na.mp4,\n", "video"), ('a.mp4 ""\n', "video")]
)
def test_a_single_label_cannot_be_missing(make_list, text, format):
    with pytest.raises(ListError, match="there is no label"):
        read_list(make_list(text), format=format)


@pytest.mark.parametrize(
    "entries",
    [
        [VideoEntry("/v/a.mp4", (1, 2)), VideoEntry("/v/none of them.mp4")],
        [VideoEntry('"/v/a.mp4"', (1,)), VideoEntry('/v/"b"', (2,)), VideoEntry('"', (3,))],
        [VideoEntry("/v/a.mp4"), VideoEntry('"/v/b.mp4"')],
    ],
)
def test_what_is_written_reads_back(tmp_path, entries):
    write_list(tmp_path / "list.csv", entries)

    videos = read_list(tmp_path / "list.csv", format="multilabel")
    found = [(videos.listed(i), video.labels) for i, video in enumerate(videos)]
    assert found == [(entry.path, entry.labels) for entry in entries]


def test_a_negative_label_is_refused_without_a_class_count(make_list):
    with pytest.raises(ListError, match=r":1: label -1 is negative"):
        read_list(make_list("a.mp4 -1\n"))


def test_a_folder_without_frames_is_refused(make_list):
    with pytest.raises(ListError, match=":1: 0 frames"):
        read_list(make_list("a 0 3\n"), format="frames")


def test_a_missing_list_says_which_and_how_to_make_it(tmp_path):
    with pytest.raises(
        DataError,
        match=r"val.csv: there is no such list. Make it with `octvideo lists`",
    ):
        read_list(tmp_path / "val.csv")


@pytest.mark.parametrize("text", ["", "\n\n", "path,label\n"])
def test_an_empty_list_is_an_error(make_list, text):
    with pytest.raises(DataError, match="the list is empty"):
        read_list(make_list(text))


def test_an_unknown_format_is_an_error(make_list):
    with pytest.raises(DataError, match="choose one of video, frames, unlabeled, multilabel"):
        read_list(make_list("a 0\n"), format="vidoe")


def test_a_list_is_a_sequence():
    videos = VideoList(
        [VideoEntry("a"), VideoEntry("b", (1,)), VideoEntry("c", (1, 2), 7)], root="r"
    )

    assert videos[-1] == VideoEntry("r/c", (1, 2), 7)
    assert [v.path for v in videos[:2]] == ["r/a", "r/b"]
    assert videos[0].label == -1
    with pytest.raises(IndexError):
        videos[3]


def test_a_list_keeps_its_fingerprint():
    """Checkpoints and shards of earlier versions hold it."""
    entries = [VideoEntry("a", (3,)), VideoEntry("b/c.mp4", (0, 7), 12), VideoEntry("d")]

    assert VideoList(entries).fingerprint() == "1c8defd0cb760fb6"


def private_bytes() -> int:
    """What this process shares with no other one (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def parse(path: str) -> tuple[int, int]:
    """Runs in a process of its own: lines, and bytes that the list holds."""
    before = private_bytes()
    videos = read_list(path, num_classes=700)
    gc.collect()
    return len(videos), private_bytes() - before


class Lines:
    """A dataset without videos: a sample's target is what its worker holds after looking at a
    thousand lines."""

    def __init__(self, videos: VideoList, length: int) -> None:
        self.videos, self.length = videos, length

    def __len__(self) -> int:
        return self.length

    def sample(self, epoch: int, index: int) -> Sample:
        assert all(self.videos[k * len(self.videos) // 1000].path for k in range(1000))
        return Sample(torch.zeros(1, 1, dtype=torch.uint8), private_bytes(), index, "")


def held_by_workers(videos: VideoList) -> int:
    loader = Loader(Lines(videos, 8), batch_size=8, num_workers=2)
    (batch,) = loader.epoch(0)
    loader.close()
    return int(batch.targets.max())


@pytest.mark.slow
def test_a_list_of_650_000_lines_is_held_once_and_costs_no_worker_anything(tmp_path):
    path = tmp_path / "train.csv"
    folder = "/datasets/kinetics700/train/some class name"
    path.write_text(
        "".join(
            f"{folder}/abcdefghijk_{i:06d}_{i + 10:06d}.mp4 {i % 700}\n" for i in range(650_000)
        )
    )
    (tmp_path / "short.csv").write_text("a.mp4 0\n" * 1000)

    pool = ReaderPool(parse, num_workers=1, timeout_seconds=100)
    _, (count, held) = pool.run([(str(tmp_path / "short.csv"),), (str(path),)], ahead=1)
    pool.close()
    short, long = (
        held_by_workers(read_list(tmp_path / name)) for name in ("short.csv", "train.csv")
    )

    assert count == 650_000
    assert held <= 100e6
    assert long < short + 10e6


def test_a_name_that_is_not_utf_8_stands_in_a_list_in_memory_but_in_no_file(tmp_path):
    name = "caf\udce9.mp4"
    path = tmp_path / "train.csv"
    path.write_text("old.mp4 0\n")

    assert VideoList([VideoEntry(name, (0,))])[0].path == name
    with pytest.raises(DataError, match="the name is not UTF-8"):
        write_list(path, [VideoEntry("a.mp4", (0,)), VideoEntry(name, (0,))])
    assert path.read_text() == "old.mp4 0\n"


def test_a_corrected_list_on_a_server_is_read(tmp_path, serve, monkeypatch):
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    url = serve(tmp_path / "data").url

    for label in (3, 5):
        (tmp_path / "data" / "train.csv").write_text(f"a.mp4 {label}\n")
        assert list(read_list(f"{url}/train.csv")) == [VideoEntry(f"{url}/a.mp4", (label,))]


def test_a_list_in_a_store_of_fsspec_needs_no_handler():
    text = '\ufeffpath,label\r\n"a, b.mp4",1\r\n'
    fsspec.filesystem("memory").pipe("/lists/train.csv", text.encode())

    assert list(read_list("memory://lists/train.csv")) == [
        VideoEntry("memory://lists/a, b.mp4", (1,))
    ]


def test_a_list_elsewhere_that_is_missing_or_refused_is_one_line(tmp_path, serve):
    server = serve(tmp_path, fault=lambda path, size: "403")
    (tmp_path / "val.csv").write_text("a.mp4 0\n")

    with pytest.raises(DataError, match=r"none\.csv: there is no such list\. Make it with"):
        read_list(f"{server.url}/none.csv")
    with pytest.raises(DataError, match=r"val\.csv: it cannot be read .*answered 403"):
        read_list(f"{server.url}/val.csv")


def test_an_error_in_a_list_elsewhere_names_its_address():
    fsspec.filesystem("memory").pipe("/lists/bad.csv", b"a.mp4 x\n")

    with pytest.raises(ListError, match=r"^memory://lists/bad\.csv:1: "):
        read_list("memory://lists/bad.csv")


@pytest.mark.parametrize("line", ["a b.mp4 3 17", "a.AVI 300 5", "x/a.mp4 1 2 3"])
def test_two_numbers_behind_a_file_are_no_label(line, tmp_path):
    (tmp_path / "train.csv").write_text(f"b.mp4 1\n{line}\n")

    with pytest.raises(
        ListError, match=r"train.csv:2: .* has two numbers behind the file; several"
    ):
        read_list(tmp_path / "train.csv")


def test_a_number_in_a_path_is_no_label(tmp_path):
    (tmp_path / "train.csv").write_text("clip 3 1\na 2.mp4 0\nb.mp4 2/c.mp4 1\n")

    assert [video.label for video in read_list(tmp_path / "train.csv")] == [1, 0, 1]
