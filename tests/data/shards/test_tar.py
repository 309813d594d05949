"""Headers of tars: plain ones by any writer, and hostile ones, which end in one line."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import tar_of

from octvideo.data.shards.tar import BLOCK, MAX_FILE, Member, header, members
from octvideo.errors import DataError


def _read(data):
    return lambda offset, size: data[offset : offset + size]


def _members(data):
    return list(members(_read(data), len(data), "a.tar"))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_the_standard_library(format):
    long = "folder/" * 12 + "n" * 90
    names = ["a.mp4", "ünï/b.json", long, "x/" + "y" * 90]
    data = tar_of({name: name.encode() * 100 for name in names}, format=format)

    found = _members(data)

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [Member(m.name, m.offset_data, m.size) for m in tar]
    assert found == expected


def test_folders_are_passed_over_and_global_headers_too():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "hello"}) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        info = tarfile.TarInfo("folder/a.mp4")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    data = buffer.getvalue()

    (found,) = _members(data)

    assert found.name == "folder/a.mp4"
    assert data[found.offset : found.offset + found.size] == b"abc"


def test_a_tar_that_ends_without_the_empty_blocks_is_read():
    whole = header("a.mp4", 3) + b"abc".ljust(512, b"\0")

    assert [member.name for member in _members(whole)] == ["a.mp4"]


def test_the_largest_file_that_is_read_has_a_header_of_one_block():
    assert len(header("000000000.mp4", MAX_FILE)) == BLOCK


def _with_type(kind, **fields):
    info = tarfile.TarInfo("evil.mp4")
    info.type = kind
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


HOSTILE = {
    "a size beyond the file": header("a.mp4", 10**12),
    "a size beyond all files": _with_type(tarfile.REGTYPE, size=2**63 - 1),
    "a negative size": _with_type(tarfile.REGTYPE, size=-512),
    "a hard link": _with_type(tarfile.LNKTYPE, linkname="other.mp4"),
    "a symbolic link": _with_type(tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a long link name": _with_type(tarfile.GNUTYPE_LONGLINK, size=0),
    "a device": _with_type(tarfile.BLKTYPE),
    "a pipe": _with_type(tarfile.FIFOTYPE),
    "a sparse file": _with_type(tarfile.GNUTYPE_SPARSE),
    "an extended header of a gigabyte": _with_type(tarfile.XHDTYPE, size=2**30),
    "a long name of a gigabyte": _with_type(tarfile.GNUTYPE_LONGNAME, size=2**30),
    "an extended header that is none": _with_type(tarfile.XHDTYPE, size=5) + b"hello".ljust(512),
    "a record of length 0": _with_type(tarfile.XHDTYPE, size=6) + b"0 a=b\n".ljust(512, b"\0"),
    "a size that is no number": _with_type(tarfile.XHDTYPE, size=15)
    + b"15 size=-99999\n".ljust(512, b"\0")
    + header("a.mp4", 0),
    "no tar at all": b"\x01" * 2048,
    "a compressed tar": b"\x1f\x8b" + b"\x01" * 2048,
    "a truncated tar": tar_of({"a.mp4": b"x" * 5000})[:3000],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_ends_in_one_line(name):
    reads = []

    def read(offset, size):
        reads.append(size)
        return HOSTILE[name][offset : offset + size]

    with pytest.raises(DataError, match=r"^a\.tar: ") as caught:
        list(members(read, len(HOSTILE[name]), "a.tar"))

    assert "\n" not in str(caught.value)
    assert max(reads) <= 1 << 16


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 4000), st.binary(min_size=1, max_size=40))
def test_any_damage_ends_in_members_inside_the_file_or_one_line(tail, place, damage):
    data = bytearray(tar_of({"a.mp4": b"x" * 700, "b" * 120: b"y" * 10}) + tail)
    data[place : place + len(damage)] = damage

    try:
        found = _members(bytes(data))
    except DataError:
        return

    ends = [member.offset + member.size for member in found]
    assert all(end <= len(data) for end in ends)
    assert all(a <= b.offset for a, b in zip(ends, found[1:], strict=False))
