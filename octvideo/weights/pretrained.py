"""Public networks by name: a table of plain data, and the checkpoints of its rows.

    octvideo.load("i3d_r50_k400")                              a recognizer
    octvideo.load("hf://user/name")                            of a published folder
    octvideo.create_model("i3d_r50", weights="i3d_r50_k400")   a network with these weights
    TRAIN.CHECKPOINT_FILE_PATH=i3d_r50_k400                    fine-tuning from them

The files are downloaded from where their projects published them, under the licenses of the table,
into a cache folder (`octvideo.download`). Facts that a file does not contain (classes, input, head)
are in its row.
"""

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from octvideo import hub
from octvideo.checkpoint import Checkpoint
from octvideo.download import cached, hash_of
from octvideo.errors import CheckpointError, did_you_mean, logger
from octvideo.weights.convert import convert_weights
from octvideo.weights.describe import Given, describe, read_classes, said_of
from octvideo.weights.layouts import find_layout

PUBLISHED = "model.safetensors"  # in a folder that `octvideo export --card` writes
TABLE = Path(__file__).with_name("pretrained.csv")


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A row. model, options: of `create_model`; data: the training set; top1, top5: as its project
    prints them.

    num_frames to head_act: "" for an image network. sha256: its first digits, if the project
    publishes it.
    """

    name: str
    model: str
    options: str
    data: str
    num_frames: str
    sampling_rate: str
    sampling_rule: str
    head_act: str
    top1: str
    top5: str
    layout: str
    license: str
    sha256: str
    url: str

    @property
    def is_video(self) -> bool:
        return bool(self.num_frames)

    @property
    def file_name(self) -> str:
        """The file's name in the cache folder, where it may also be put by hand."""
        return f"weights/{self.name}{PurePosixPath(self.url).suffix}"

    @property
    def class_names(self) -> tuple[str, ...]:
        return read_classes(self.data)


@cache
def pretrained_networks() -> dict[str, Pretrained]:
    """The table, by name."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["name"]: Pretrained(**row) for row in csv.DictReader(file)}


def read_weights(source: str) -> Checkpoint:
    """The checkpoint at a path, at hf://user/name, or of a public network's name. A path takes
    precedence.

    For a folder, its model.safetensors. Raises CheckpointError for a file that is missing, damaged
    or hostile, and if a public one cannot be downloaded.
    """
    source = file_of(source)
    if Path(source).suffix in (".yaml", ".yml") and Path(source).is_file():
        raise CheckpointError(f"{source}: is a config, not weights; {_advice(Path(source).parent)}")
    if source in pretrained_networks() and not Path(source).exists():
        return fetch(pretrained_networks()[source])
    is_name = not (Path(source).exists() or "/" in source or PurePosixPath(source).suffix)
    if is_name:
        hint = did_you_mean(source, pretrained_networks(), "`octvideo pretrained` lists them")
        raise CheckpointError(
            f"{source}: there is no such file, and no public network of that name; {hint}"
        )
    if source.endswith((".params", ".tar")):
        return convert_weights(source).checkpoint(path=source)
    return Checkpoint.read(source)


def read_and_hash(source: str) -> Checkpoint:
    """`read_weights` with the sha256 of the file, of one content: a training may replace it."""
    path = file_of(source)
    while True:
        before = _version_of(path)
        checkpoint = read_weights(path)
        # One that is gone by now is reported by the next reading.
        with suppress(FileNotFoundError):
            sha256 = hash_of(checkpoint.path)
            if _version_of(path) == before:
                return replace(checkpoint, sha256=sha256)


def _version_of(path: str) -> tuple[int, ...]:
    """Empty for an address and for a public network's name."""
    with suppress(OSError):
        status = Path(path).stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return ()


def file_of(source: str) -> str:
    """The file of weights in a folder, or of hf://user/name, downloaded if necessary; another path,
    or a public network's name, as it is. Raises CheckpointError."""
    if source.startswith(hub.SCHEME):
        return str(hub.fetch(source, PUBLISHED))
    return _published(Path(source)) if Path(source).is_dir() else source


def _published(folder: Path) -> str:
    if not (folder / PUBLISHED).is_file():
        raise CheckpointError(f"{folder}: is a folder without a {PUBLISHED}; {_advice(folder)}")
    return str(folder / PUBLISHED)


def _advice(folder: Path) -> str:
    """What to name as weights in place of something of a run's folder."""
    best = folder / "checkpoints" / "best.pyth"
    return f"name the file: {best}" if best.is_file() else "name the file of the weights"


def fetch(entry: Pretrained) -> Checkpoint:
    """A public network's checkpoint, from the cache folder or from the network."""
    path = str(cached(entry.url, entry.file_name, entry.sha256))
    logger.info(
        "%s: %s of %s, top-1 %s %% as printed there, license %s (%s)",
        *(entry.name, entry.model, entry.data, entry.top1, entry.license, entry.url),
    )
    if not entry.is_video:
        return convert_weights(path).checkpoint(entry.class_names, path)
    seen = {
        "num_frames": int(entry.num_frames),
        "sampling_rate": int(entry.sampling_rate),
        "sampling_rule": entry.sampling_rule,
    }
    return describe(
        Checkpoint.read(path),
        entry.class_names,
        seen,
        name=entry.model,
        options=_options(entry),
        head_act=entry.head_act,
    )


def describe_file(
    checkpoint: Checkpoint,
    classes: str | Path | Sequence[str],
    input: Given,
) -> Checkpoint:
    """A bare file of another project as a checkpoint of this package (`describe`).

    classes: as for `read_classes`; input: as for `said_of`. Where neither says it, and the file
    holds no settings, sampling and head are those of the files that its project published of the
    same classes.
    """
    given, layout, head_act = said_of(input), find_layout(checkpoint.weights).title, ""
    rows = (e for e in pretrained_networks().values() if (e.layout, e.data) == (layout, classes))
    if not checkpoint.recipe and (entry := next(rows, None)):
        given, head_act = {"sampling_rule": entry.sampling_rule, **given}, entry.head_act
    return describe(checkpoint, read_classes(classes), given, head_act=head_act)


def _options(entry: Pretrained) -> dict[str, Any]:
    """ "speed_ratio=4" -> {"speed_ratio": 4}."""
    pairs = (pair.split("=") for pair in entry.options.split())
    return {name: int(value) for name, value in pairs}


def table_lines(pattern: str = "*") -> list[str]:
    """The table as text: one line per network."""
    from fnmatch import fnmatchcase

    lines = [f"{'name':<38}{'network':<26}{'trained on':<24}{'frames':<8}{'top-1':<8}license"]
    for entry in pretrained_networks().values():
        if fnmatchcase(entry.name, pattern):
            frames = f"{entry.num_frames}x{entry.sampling_rate}" if entry.is_video else "image"
            lines.append(
                f"{entry.name:<38}{entry.model:<26}{entry.data:<24}{frames:<8}{entry.top1:<8}{entry.license}"
            )
    return lines
