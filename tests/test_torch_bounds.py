"""Files that ask for more than they hold are refused before torch reads them, and all others are
read."""

import io
import struct
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from peak_memory import peak_growth_below

from octvideo.errors import CheckpointError
from octvideo.expansion import expanded_size
from octvideo.torch_file import read_torch_file

MANY = {
    "model_state": OrderedDict(w=torch.arange(6.0).view(2, 3), half=torch.ones(3).half()),
    "tied": [weight := torch.ones(100), weight, weight[3:7]],
    "plain": [1, 2.5, None, True, "text", (1, 2), {3}, 10**30, 2j, torch.Size([1, 2])],
    "dtypes": [torch.float32, torch.device("cpu"), torch.strided],
    "kinds": [torch.ones(2, dtype=dtype) for dtype in (torch.int64, torch.uint8, torch.bool)],
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "counts": Counter(a=1),
    "bytes": b"latin \xff",
    "empty": torch.empty(0),
    "scalar": torch.tensor(3),
}
NEW_KINDS = [torch.ones(2).to(torch.float8_e4m3fn), torch.ones(2, dtype=torch.uint16)]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_torch_saves_is_read(tmp_path, zipped):
    content = MANY | ({"new kinds": NEW_KINDS} if zipped else {})
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)

    read = read_torch_file(str(tmp_path / "a.pth"))

    assert read.keys() == content.keys()
    assert torch.equal(read["model_state"]["w"], MANY["model_state"]["w"])
    assert read["bytes"] == MANY["bytes"]


def archive(pickled, records=None, compress=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as out:
        out.writestr("archive/data.pkl", pickled)
        out.writestr("archive/version", "3")
        for name, content in (records or {}).items():
            out.writestr(name, content)
    return file.getvalue()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(count, shape, stride):
    """The pickle of a float tensor over `count` stored numbers."""
    pid = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage = pid + number(count) + b"tQ"
    sizes = b"".join(b"(" + b"".join(map(number, values)) + b"t" for values in (shape, stride))
    end = b"\x89ccollections\nOrderedDict\n)RtR"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + sizes + end


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def deflated(content):
    source = zipfile.ZipFile(io.BytesIO(content))
    records = {name: source.read(name) for name in source.namelist() if "/data/" in name}
    return archive(source.read("archive/data.pkl"), records, zipfile.ZIP_DEFLATED)


def dictionary(value):
    return b"\x80\x02}X\x01\x00\x00\x00w" + value + b"s."


def doubled(levels):
    """A list of two references to a list of two references ...: 2 ** levels values when they are
    walked through."""
    out = b"]q\x00"
    for level in range(1, levels):
        before = b"h" + bytes([level - 1])
        out += b"0](" + before + before + b"eq" + bytes([level])
    return out


def copied(times):
    """A big dict, copied by OrderedDict again and again."""
    entries = b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(1000))
    copy = b"ccollections\nOrderedDict\nh\x00\x85R"
    return b"}q\x00(" + entries + b"u" + b"](" + copy * times + b"e"


CLAIM = b"\x96" + struct.pack("<Q", 2**31 - 1)  # BYTEARRAY8 of 2 GB
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how the old format begins
FILL = {"archive/data/0": b"\0" * 400}
BOMBS = {
    "bytearray": archive(
        b"\x80\x02(" + b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR" * 3 + b"l."
    ),
    "a claimed bytearray": archive(dictionary(CLAIM)),
    "a claimed bytearray in the old format": MAGIC + b"\x80\x05" + CLAIM,
    "a tensor class": archive(dictionary(b"ctorch\nFloatTensor\n" + number(2**33) + b"\x85R")),
    "hex of hex": archive(
        dictionary(
            b"c_codecs\nencode\n" * 2
            + b"X\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R"
            + b"X\x03\x00\x00\x00hex\x86R"
        )
    ),
    "a storage longer than its record": archive(dictionary(tensor(2**33, [2**33], [1])), FILL),
    "a shape beyond its storage": archive(dictionary(tensor(100, [2**33], [1])), FILL),
    "overlapping strides": archive(dictionary(tensor(100, [2**20, 2**13], [0, 0])), FILL),
    "a negative shape": archive(dictionary(tensor(100, [-1, -(2**33)], [0, 0])), FILL),
    "deflated zeros": deflated(saved({"w": torch.zeros(2**24)})),
    "nested references": archive(dictionary(doubled(250))),
    "copies": archive(dictionary(copied(3000))),
    "a storage in the old format": saved(
        {"w": torch.ones(4)}, _use_new_zipfile_serialization=False
    ).replace(b"K\x04Nt", b"J\xff\xff\xff\x7fNt"),
    "a name twice": archive(dictionary(b"N"), {"other/data.pkl": b"\x80\x02}."}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_asks_for_more_than_it_holds_is_refused(tmp_path, name):
    path = tmp_path / "bomb.pth"
    path.write_bytes(BOMBS[name])

    with (
        peak_growth_below(100_000 * 1024),
        pytest.raises(CheckpointError, match=r"bomb\.pth: (refused|damaged)") as error,
    ):
        read_torch_file(str(path))

    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_refused():
    with pytest.raises(CheckpointError, match="is not a file"):
        read_torch_file("/dev/zero")


def test_values_that_hold_themselves_are_endless():
    loop = [1]
    loop.append(loop)

    assert expanded_size(loop) == float("inf")
    assert expanded_size([[1, 2], {"a": (3,)}]) == 8
