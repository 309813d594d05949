"""What a run of a study was made with: the settings in its folder, settings.json.

A run of the same name and other settings is another run. Nothing of the one is taken for the other.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octvideo.assembly.identity import change, flat, settings_in
from octvideo.checkpoint import Checkpoint
from octvideo.config.defaults import DEFAULTS
from octvideo.engine.checkpoint_files import list_checkpoints, read_latest
from octvideo.errors import ConfigError
from octvideo.files import write_atomically
from octvideo.lock import only_writer

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
Settings = dict[str, Any]


def settings_of(cfg: Any) -> Settings:
    """The settings that results depend on: `SECTION.NAME` -> value."""
    return {key: value for key, value in flat(cfg).items() if not key.startswith(OF_NO_MATTER)}


def check_folder(folder: Path, settings: Settings, assumed: Mapping[str, Any]) -> None:
    """Raise ConfigError if the folder has results or a checkpoint of other settings.

    assumed: settings of a run that says nothing of its own: earlier versions left no settings.json.
    """
    if not _has_begun(folder):
        return
    had = _recorded(folder) or _in_checkpoint(folder) or assumed
    changes = [
        change(key, had[key], value)
        for key, value in settings.items()
        if key in had and had[key] != value
    ]
    if changes:
        more = [f"{len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
        raise ConfigError(
            f"{folder}: holds a run with {', '.join(changes[:SHOWN] + more)}; a run has one set of"
            " settings: choose another folder for the sweep, or delete this one to do the run anew"
        )


def claim_folder(folder: Path, settings: Settings) -> None:
    """Write down that the run in this folder has these settings.

    Raises ConfigError if it was made with other ones, OctvideoError if another process works in it.
    """
    check_folder(folder, settings, {})
    if _recorded(folder) != settings:
        content = (json.dumps(settings, indent=1) + "\n").encode()
        with only_writer(str(folder)):
            write_atomically(str(folder / NAME), lambda file: file.write(content))


def _has_begun(folder: Path) -> bool:
    """Whether a run would go on from what is there, or be taken as done."""
    return (folder / "results.json").is_file() or bool(list_checkpoints(f"{folder}/checkpoints"))


def _recorded(folder: Path) -> Settings:
    """The content of settings.json, with the defaults of settings that are younger; {} without the
    file."""
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        return settings_of(DEFAULTS) | dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: is damaged ({error}); delete its folder to do the run anew"
        ) from error


def _in_checkpoint(folder: Path) -> Settings:
    """The settings in the newest checkpoint; {} if there is none, or none that can be read."""
    found = read_latest(f"{folder}/checkpoints")
    if not found:
        return {}
    path, content = found
    settings = settings_in(Checkpoint.of(content, path))
    settings.pop("MODEL.NUM_CLASSES", None)  # a 0 was replaced by a count
    return settings
