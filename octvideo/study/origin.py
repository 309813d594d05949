"""What a run of a study was made with: settings, lists and start weights, in its folder's
settings.json.

A run of the same name that was made with others is another run. Nothing of the one is taken for the
other, and results.json only where it is of the run's own test.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from octvideo.assembly.identity import data_of, flat, settings_in
from octvideo.assembly.tasks import task_of, with_counted_classes
from octvideo.assembly.trained_with import change
from octvideo.checkpoint import Checkpoint
from octvideo.config.defaults import DEFAULTS
from octvideo.download import hash_of
from octvideo.engine.checkpoint_files import has_begun, list_checkpoints, newest_first
from octvideo.errors import CheckpointError, ConfigError, OctvideoError
from octvideo.files import write_atomically
from octvideo.lock import only_writer
from octvideo.torch_file import read_torch_file
from octvideo.weights.pretrained import file_of

NAME = "settings.json"
SHOWN = 3  # differences in a message
# Settings that no result depends on: a series goes on with other ones.
OF_NO_MATTER = (
    "OUTPUT_DIR",
    "NUM_GPUS",
    "LOG_",
    "TENSORBOARD.",
    "DATA_LOADER.",
    "TRAIN.CHECKPOINT_PERIOD",
    "TRAIN.CHECKPOINT_MINUTES",
    "TRAIN.KEEP_CHECKPOINTS",
)
TRAIN, VAL, TEST = "train list", "val list", "test list"
VIEWS, CROP = "test views", "test crop"
START, CLASSES = "start weights", "classes"
FOUND = (TRAIN, VAL, TEST, VIEWS, CROP, START, CLASSES)  # in files that settings name
Settings = dict[str, Any]
# Where data of one fingerprint lie, and how a test is computed: runs that differ in these alone
# compare.
PLACES = (
    "DATA.PATH_",
    "DATA.LIST_FORMAT",
    "DATA.SHARD_",
    "TEST.CHECKPOINT_FILE_PATH",
    "TEST.BATCH_SIZE",
    "TEST.VIEW_CHUNK",
    "TEST.DIAGNOSE",
)


def settings_of(cfg: Any) -> Settings:
    """The settings that results depend on: `SECTION.NAME` -> value."""
    return {key: value for key, value in flat(cfg).items() if not key.startswith(OF_NO_MATTER)}


def made_with(cfg: Any, known: dict[str, Settings] | None = None) -> Settings:
    """The settings that results depend on, and what is in the files that they name now (FOUND).

    known: what was found before, by the settings that name it; that of `cfg` is added.
    """
    found = {} if known is None else known
    data = cfg.TRAIN.DATASET, cfg.DATA.dump(), cfg.TEST.dump(), cfg.MODEL.NUM_CLASSES
    key = repr((*data, cfg.TENSORBOARD.CLASS_NAMES_PATH))
    if key not in found:
        found[key] = _lists_of(cfg)
    start = cfg.TRAIN.CHECKPOINT_FILE_PATH
    if start not in found:
        found[start] = _start_of(start)
    return settings_of(cfg) | found[key] | found[start]


def _start_of(source: str) -> Settings:
    """A digest of the weights that a run starts from; {} where they cannot be read, of which the
    run itself says why, and for a public network's name, which always stands for one file."""
    with suppress(Exception):  # whatever a storage raises that is perhaps away
        return {START: hash_of(file_of(source))[:16]} if source else {}
    return {}


def _lists_of(cfg: Any) -> Settings:
    """The lists: how many entries of which fingerprint, the views of the test, and the number of
    classes; without lists that cannot be read, of which the run itself says why."""
    lists: Settings = {}
    with suppress(OctvideoError):
        cfg = with_counted_classes(cfg)
        lists[CLASSES] = cfg.MODEL.NUM_CLASSES
        task = task_of(cfg)
        test = next(iter(task.final_tests(task.class_names())))
        lists[TEST] = _entries(data_of(test.videos), test.source)
        spec = test.videos.spec
        lists |= {VIEWS: f"{spec.num_clips}x{spec.num_crops}", CROP: spec.crop_size}
        train = task.train_dataset()
        lists[TRAIN] = _entries({"entries": len(train), "fingerprint": train.fingerprint()})
        lists[VAL] = _entries(data_of(task.validation()))
    return lists


def _entries(data: Mapping[str, Any], source: str = "") -> str:
    of = f" of {source}" if source else ""
    return f"{data['entries']} entries ({data['fingerprint']}){of}"


def check_folder(folder: Path, settings: Settings, assumed: Mapping[str, Any]) -> None:
    """Raise ConfigError if the folder has results or a checkpoint of other settings, lists or start
    weights, or results of another test than the run's own.

    assumed: settings of a run that says nothing of its own: earlier versions left no settings.json.
    """
    if not _has_begun(folder):
        return
    trained = _in_checkpoint(folder)
    had = _recorded(folder) or trained or assumed
    # `octvideo train` by hand may have continued the recorded run with other settings.
    training = {key: value for key, value in trained.items() if not key.startswith("TEST.")}
    if changes := changes_of(settings, had) or changes_of(settings, training):
        raise ConfigError(
            f"{folder}: holds a run with {changes}; a run has one set of settings, lists and start"
            " weights: choose another folder for the sweep, or delete this one to do the run anew"
        )
    if changes := changes_of(_own_test(folder, {**had, **settings}), _tested(folder)):
        raise ConfigError(
            f"{folder}/results.json: is of another test than the run's own, with {changes}; delete"
            " this file, and the sweep makes it anew (give other tests another OUTPUT_DIR)"
        )


def changes_of(now: Settings, had: Mapping[str, Any]) -> str:
    """ "SOLVER.BASE_LR 0.1 instead of 0.01, ..." for what both know; "" where they agree."""
    changes = [
        change(key, had[key], value)
        for key, value in now.items()
        if key in had and had[key] != value
    ]
    more = [f"{len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
    return ", ".join(changes[:SHOWN] + more)


def _own_test(folder: Path, settings: Settings) -> Settings:
    """The test of the run with these settings, as far as is known."""
    weights = "".join(list_checkpoints(f"{folder}/checkpoints")[-1:])
    keys = TEST, VIEWS, CROP, "DATA.ENSEMBLE_METHOD", "TEST.PRECISION"
    # Results say what "auto" was on their machine.
    test = {key: settings[key] for key in keys if settings.get(key, "auto") != "auto"}
    return test | ({"weights": Path(weights).name} if weights else {})


def known_of(folder: Path, results: Mapping[str, Any]) -> Settings:
    """What a finished run was made with, as far as its folder and its results tell: the settings
    that results depend on, lists by their content, and the test."""
    had = _recorded(folder) | _in_checkpoint(folder)
    unasked = (*OF_NO_MATTER, *PLACES)
    settings = {key: value for key, value in had.items() if not key.startswith(unasked)}
    test = _test_of(results)
    test.pop("weights", None)  # the name of a file
    known = settings | test
    for key in known.keys() & {TRAIN, VAL, TEST}:
        known[key] = str(known[key]).partition(" of ")[0]
    return known


def _tested(folder: Path) -> Settings:
    """The test that results.json is of, in the words of `_own_test`; {} where there is none."""
    found = read_results(folder)
    return _test_of(found) if found else {}


def read_results(folder: Path) -> dict[str, Any]:
    """The content of results.json; {} without the file. Raises ConfigError for a damaged one."""
    return read_json(folder / "results.json", "delete this file, and the sweep makes it anew")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a file; {} without the file. Raises ConfigError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged ({error}); {remedy}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(str(path), lambda file: file.write(text.encode()))


def _test_of(results: Mapping[str, Any]) -> Settings:
    data, protocol = results.get("data"), results.get("protocol", {})
    tested = {
        VIEWS: protocol.get("views"),
        CROP: protocol.get("crop_size"),
        "DATA.ENSEMBLE_METHOD": protocol.get("ensemble"),
        "TEST.PRECISION": protocol.get("precision", "fp32") if protocol else None,
        "weights": Path(protocol.get("checkpoint", "")).name or None,
        TEST: _entries(data, protocol.get("list", "")) if data else None,
    }
    return {key: value for key, value in tested.items() if value is not None}


def claim_folder(folder: Path, settings: Settings) -> None:
    """Write down that the run in this folder was made with this (`made_with`).

    Raises ConfigError if it was made with other ones, OctvideoError if another process works in it.
    """
    check_folder(folder, settings, {})
    had = _recorded(folder)
    if _has_begun(folder):
        # What earlier versions did not keep of these is not known.
        found = {key: had[key] for key in FOUND if key in had}
        settings = {key: value for key, value in settings.items() if key not in FOUND} | found
    if had != settings:
        with only_writer(str(folder)):
            write_json(folder / NAME, settings)


def _has_begun(folder: Path) -> bool:
    """Whether a run would go on from what is there, or be taken as done."""
    return (folder / "results.json").is_file() or has_begun(f"{folder}/checkpoints")


def _recorded(folder: Path) -> Settings:
    """The content of settings.json, with the defaults of settings that are younger; {} without the
    file."""
    had = read_json(folder / NAME, "delete its folder to do the run anew")
    return settings_of(DEFAULTS) | had if had else {}


def _in_checkpoint(folder: Path) -> Settings:
    """The settings in the newest checkpoint that can be read; {} if there is none."""
    for path in newest_first(f"{folder}/checkpoints"):
        with suppress(CheckpointError):
            settings = settings_in(Checkpoint.of(read_torch_file(path, mapped=True), path))
            count = settings.pop("MODEL.NUM_CLASSES", None)  # which may have replaced a 0
            return settings | ({CLASSES: count} if count else {})
    return {}
