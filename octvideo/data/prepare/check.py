"""Examine a list's files before training: which can be read, and what later runs should know."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from octvideo.data.lists import class_names
from octvideo.data.lists.video_list import VideoEntry, VideoList, write_list
from octvideo.data.prepare.parallel import for_each
from octvideo.data.reading import DecodeError
from octvideo.data.remote import absolute
from octvideo.data.video.decode import probe
from octvideo.data.video.frame_source import open_entry
from octvideo.data.video.index import index_path, write_index
from octvideo.data.video.info import VideoInfo
from octvideo.files import (
    append_json_line,
    bad_csv,
    make_output_folder,
    read_json_lines,
    require_another_file,
)

GOOD, BAD, NOTES = "good.csv", "bad.csv", "findings.jsonl"
_INFO_FIELDS = {field.name for field in fields(VideoInfo)}


@dataclass(frozen=True, slots=True)
class Finding:
    """The examination of one file. info: None for a folder of frames and for a bad file. cause: ""
    for a good one.

    num_bytes and modified show whether the file has changed since; num_frames and template, what a
    folder was looked at for.
    """

    path: str
    info: VideoInfo | None
    cause: str
    num_bytes: int
    modified: float
    num_frames: int = 0
    template: str = ""

    def is_of(self, entry: VideoEntry) -> bool:
        """Whether it still says what looking again would say."""
        now = (*_version(entry.path), entry.num_frames, entry.template)
        return now == (self.num_bytes, self.modified, self.num_frames, self.template)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Numbers of files: good, bad, and damaged (good files with damage, which give frames); and the
    lists that were written."""

    good: int
    bad: int
    damaged: int
    good_list: Path
    bad_list: Path
    index: Path


def check_list(
    videos: VideoList,
    folder: str | Path | None = None,
    *,
    num_workers: int | None = None,
    timeout_seconds: float = 60.0,
    separator: str | None = None,
) -> CheckResult:
    """Decode every file once; write good.csv, bad.csv (path, reason) and the indexes beside
    good.csv and the list.

    folder: None: `<list>_checked` beside the list. findings.jsonl in it grows as files are checked:
    after an interruption, or when the list has grown, only files that are new, have changed or were
    bad are looked at.
    separator: that the list was read with. With one, and for several labels or numbers of frames,
    good.csv begins with the names of its columns: so it is read under the settings of its list.
    Raises ConfigError where one of these files is the list.
    """
    list_path = Path(videos.name)
    folder = Path(folder or _folder_of(list_path))
    for name in (GOOD, BAD):
        require_another_file(folder / name, list_path)
    make_output_folder(str(folder))
    entries = {entry.path: entry for entry in videos}
    notes = folder / NOTES
    # A bad file may be read now: with more time, memory or rights.
    known = _remembered(notes, entries)
    findings = {path: finding for path, finding in known.items() if not finding.cause}
    tasks = [(entry,) for path, entry in entries.items() if path not in findings]
    for finding in for_each(
        look_at, tasks, title="check", num_workers=num_workers, timeout_seconds=timeout_seconds
    ):
        append_json_line(notes, asdict(finding))
        findings[finding.path] = finding
    needs_header = bool(separator) or videos.format in ("frames", "multilabel")
    return _write(videos, folder, findings, videos.format if needs_header else "")


def look_at(entry: VideoEntry) -> Finding:
    """Decode one file, or each image of a folder of frames."""
    num_bytes, modified = _version(entry.path)
    info, cause = None, ""
    try:
        if entry.num_frames:
            with open_entry(entry) as folder:
                for frame in range(entry.num_frames):
                    folder.read([0, frame])
        else:
            info = probe(entry.path)
    except DecodeError as error:
        cause = error.cause
    return Finding(entry.path, info, cause, num_bytes, modified, entry.num_frames, entry.template)


def _version(path: str) -> tuple[int, float]:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return -1, 0.0
    return status.st_size, status.st_mtime


def findings_of(videos: VideoList) -> dict[str, Finding]:
    """Path -> what an earlier check of this list has found, of the files that have not changed
    since; nothing is looked at."""
    entries = {entry.path: entry for entry in videos}
    return _remembered(_folder_of(Path(videos.name)) / NOTES, entries)


def _folder_of(list_path: Path) -> Path:
    return list_path.with_name(f"{list_path.stem}_checked")


def _remembered(path: Path, entries: Mapping[str, VideoEntry]) -> dict[str, Finding]:
    """The last findings, by this version, about unchanged files of this list."""
    findings = {}
    for noted in read_json_lines(path):
        try:
            info = noted.pop("info")
            if info and info.keys() != _INFO_FIELDS:
                continue  # Of a version that looked at other things.
            finding = Finding(
                info=info and VideoInfo(**{**info, "problems": tuple(info["problems"])}), **noted
            )
        except (TypeError, KeyError):
            continue  # Written by a version with other fields.
        entry = entries.get(finding.path)
        if entry and finding.is_of(entry):
            findings[finding.path] = finding
    return findings


def _write(
    videos: VideoList, folder: Path, findings: dict[str, Finding], header: str
) -> CheckResult:
    good_list, bad_list, index = folder / GOOD, folder / BAD, index_path(videos.name)
    good = [
        entry._replace(path=absolute(entry.path))
        for entry in videos
        if not findings[entry.path].cause
    ]
    bad = [finding for finding in findings.values() if finding.cause]
    write_list(good_list, good, header=header)
    bad_list.write_bytes(bad_csv((finding.path, finding.cause) for finding in bad))
    known = [(finding.path, finding.info) for finding in findings.values() if finding.info]
    for path in (index, index_path(good_list)):
        write_index(path, known)
    names = Path(videos.name).with_name(class_names.FILE_NAME)
    if names.is_file():
        with suppress(shutil.SameFileError):
            shutil.copyfile(names, folder / names.name)
    damaged = sum(bool(info.problems) for _, info in known)
    return CheckResult(len(findings) - len(bad), len(bad), damaged, good_list, bad_list, index)
