"""MXNet's files are read to the bit; whatever else a file holds is refused in one line and little
memory."""

import io
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octvideo.errors import CheckpointError
from octvideo.weights.mxnet_params import read_params

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
ARRAY = np.arange(6, dtype="<f4").reshape(2, 3)


def header(shape, magic=V2, storage=0, flag=0):
    if magic is None:  # before there was a magic number
        return struct.pack(f"<I{len(shape)}Iiii", len(shape), *shape, 1, 0, flag)
    start = struct.pack("<Ii", magic, storage) if magic != V1 else struct.pack("<I", magic)
    return start + struct.pack(f"<I{len(shape)}qiii", len(shape), *shape, 1, 0, flag)


def params(records=None, names=(b"arg:w",), count=None, name_count=None, magic=0x112):
    records = [header(ARRAY.shape) + ARRAY.tobytes()] if records is None else records
    data = struct.pack("<QQQ", magic, 0, len(records) if count is None else count) + b"".join(
        records
    )
    data += struct.pack("<Q", len(names) if name_count is None else name_count)
    return data + b"".join(struct.pack("<Q", len(name)) + name for name in names)


@pytest.fixture
def read(tmp_path):
    """Write bytes to a file and read it."""

    def read(data, name="w.params"):
        path = tmp_path / name
        path.write_bytes(data)
        return read_params(path)

    return read


@pytest.mark.parametrize("magic", [None, V1, V2, V3])
def test_every_generation_of_the_layout_is_read(magic, read):
    arrays = read(params([header(ARRAY.shape, magic) + ARRAY.tobytes()]))

    assert list(arrays) == ["arg:w"]
    np.testing.assert_array_equal(arrays["arg:w"], ARRAY)


@pytest.mark.parametrize(
    ("flag", "dtype"), list(enumerate(["<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8"]))
)
def test_every_type_is_read(flag, dtype, read):
    array = np.array([1, 2, 100], dtype)

    arrays = read(params([header(array.shape, flag=flag) + array.tobytes()]))

    assert arrays["arg:w"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(arrays["arg:w"], array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"PK\x03\x04" + bytes(60), "not an MXNet parameter file"),
        (params(magic=0x113), "begins with 0x113"),
        (params(count=2**63), "announces 9223372036854775808 arrays"),
        (params(name_count=2**60), "announces 1152921504606846976 names"),
        (params([header((2**40, 2**20))]), "bytes are left|needs .* bytes"),
        (params([header((-2, -3)) + ARRAY.tobytes()]), "every dimension is at least 1"),
        (params([header((0, 3))]), "every dimension is at least 1"),
        (
            params([header((2, 3), magic=0xDEADBEEF) + ARRAY.tobytes()]),
            "0xdeadbeef dimensions or magic number",
        ),
        (params([header((1,) * 9) + ARRAY.tobytes()]), "weights have 1 to 8 dimensions"),
        (params([header((2, 3), storage=1) + ARRAY.tobytes()]), "storage type 1"),
        (params([header((2, 3), flag=7) + ARRAY.tobytes()]), "type flag 7"),
        (params(names=()), "1 arrays and 0 names"),
        (params(names=(b"a", b"b")), "1 arrays and 2 names"),
        (params([header((1,)) + bytes(4)] * 2, names=(b"a", b"a")), "names an array twice"),
        (params(names=(b"\xff\xfe",)), "not text"),
        (params(names=(b"n" * 2000,)), "a name has 2000 bytes"),
        (params() + b"more", "goes on for 4 bytes"),
    ],
)
def test_a_damaged_or_hostile_file_is_refused(data, message, read):
    with pytest.raises(CheckpointError, match=message):
        read(data)


@pytest.mark.parametrize("length", range(len(params())))
def test_a_truncated_file_is_refused_wherever_it_ends(length, read):
    with pytest.raises(CheckpointError):
        read(params()[:length])


@settings(deadline=None)
@given(position=st.integers(0, len(params()) - 1), value=st.integers(0, 255))
def test_a_damaged_byte_changes_values_at_most(position, value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.params"
    data = bytearray(params())
    data[position] = value
    path.write_bytes(data)

    try:
        arrays = read_params(path)
    except CheckpointError:
        return
    assert len(arrays) == 1


@pytest.mark.parametrize(
    "data", [params(count=2**40), params([header((2**31, 2**31))]), params(names=(b"",))]
)
def test_what_a_file_announces_is_not_allocated(data, read):
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1_000_000


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.params: cannot be read"):
        read_params(tmp_path / "nowhere.params")


# --- The .tar around it


def tar(*entries):
    """A tar of (name, bytes) or TarInfo entries."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return file.getvalue()


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_the_parameters_in_a_tar_are_found(read):
    arrays = read(tar(("model/symbol.json", b"{}"), ("model/w-0000.params", params())), "w.tar")

    np.testing.assert_array_equal(arrays["arg:w"], ARRAY)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tar(("../w.params", params())), "points outside the archive"),
        (tar(("/etc/w.params", params())), "points outside the archive"),
        (tar(("w.params", params()), ("a/../../b", b"")), "points outside the archive"),
        (tar(link("w.params", "/etc/passwd")), "link or sparse"),
        (tar(("a.params", params()), ("b.params", params())), r"holds 2 \.params files"),
        (tar(("a.txt", b"")), r"holds 0 \.params files"),
        (tar(("w.params", params()))[:600], "truncated|damaged"),
        (params(), "not a plain tar file"),
        (b"\x1f\x8b" + bytes(600), "not a plain tar file"),
    ],
)
def test_a_tar_that_is_not_what_it_should_be_is_refused(data, message, read):
    with pytest.raises(CheckpointError, match=message):
        read(data, "w.tar")


def test_a_tar_entry_that_leads_backwards_is_refused(read):
    data = bytearray(tar(("w.params", params())))
    data[124:136] = struct.pack(">Iq", 0xFFFFFFFF, -1024)  # size in base 256
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()

    with pytest.raises(CheckpointError, match=r"negative size|damaged"):
        read(bytes(data), "w.tar")
