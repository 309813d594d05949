"""The location of a config: a path, or the name of one that is installed with the package."""

import posixpath
from pathlib import Path

from octvideo.errors import ConfigError, did_you_mean
from octvideo.files import is_local, shipped_folder


def config_names() -> list[str]:
    """kinetics400/oct_i3d, ...: the names that `find_config` finds without a path."""
    folder = shipped_folder("configs")
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def find_config(path: str, beside: str = "") -> str:
    """A path, if it exists; else the installed config of that name, with or without configs/ and
    .yaml.

    beside: the folder of relative paths. Raises ConfigError if neither exists.
    """
    here = posixpath.join(beside, path)
    if not is_local(here) or Path(here).exists():
        return here
    name = path.removeprefix("configs/").removesuffix(".yaml")
    installed = shipped_folder("configs") / f"{name}.yaml"
    names = config_names()
    if name in names:
        return str(installed)
    advice = did_you_mean(name, names, "give the path of a file, or one of the names in configs/")
    raise ConfigError(
        f"{here}: there is no such file, nor an installed config of that name; {advice}"
    )
