"""The choices of a user for a run, and the settings that follow from them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from octvideo.assembly.model import name_settings
from octvideo.config import config_from_text, leaves, load_config, setting_pairs
from octvideo.config.defaults import Tree
from octvideo.config.yaml_text import read_settings
from octvideo.data.remote import absolute
from octvideo.engine.checkpoint_files import has_begun
from octvideo.errors import ConfigError, logger
from octvideo.files import write_atomically
from octvideo.models.registry import family_of, full_name, input_shape_of
from octvideo.runs.machine import SIZES, Machine
from octvideo.runs.new_lists import NewLists
from octvideo.runs.start import choose_start
from octvideo.runs.videos import Videos, listed_videos, prepare_videos

BASE = "finetune/i3d"
MODEL = "i3d_r50"
# From scratch, where nobody names a network: 4 M parameters, and pools between the stages, which
# brought 10 points (docs/results.md, hand gestures).
SMALL_MODEL = "i3d_r26"
SMALL: Tree = {"RESNET": {"WIDTH_PER_GROUP": 32}, "OCTCONV": {"DOWNSAMPLE": "pool"}}
# Settings by which lists that are there are read, before anything is chosen.
OF_LISTS = (
    "DATA.LIST_FORMAT",
    "DATA.MULTI_LABEL",
    "DATA.PATH_PREFIX",
    "DATA.PATH_LABEL_SEPARATOR",
    "DATA.FRAME_TEMPLATE",
    "DATA.SHARD_CACHE_GB",
    "DATA.SHARD_CACHE_DIR",
    "MODEL.LOSS_FUNC",
    "MODEL.NUM_CLASSES",
    "TENSORBOARD.CLASS_NAMES_PATH",
)
HEAD = "# What this run does, beside finetune/i3d:   octvideo train --cfg <this file>\n"
LEFT_RIGHT = re.compile(r"\b(left|right|(counter|anti)?clockwise|c?cw)\b")


@dataclass(frozen=True, slots=True)
class Plan:
    """cfg: the frozen settings of a run. new_lists: of its videos, to be put in place once the run
    begins; None where the lists that are there are taken."""

    cfg: Any
    new_lists: NewLists | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """The choices; "", 0 and None stand for a choice that was not made.

    data: a folder of class folders, or one that holds train.csv, val.csv and class_names.txt.
    model: a video network of `create_model`. size: of the input, small, medium or large.
    weights: "auto", "none", a file, or a public network.
    probe: train only the classifier. out: the run's folder. check: decode every file first. views:
    clips x crops of the final test. overrides, settings: settings as for `load_config`; they
    override everything else.
    """

    data: str
    model: str = ""
    alpha: float | None = None
    size: str = ""
    weights: str = ""
    epochs: int = 0
    probe: bool = False
    out: str = ""
    check: bool = True
    views: str = ""
    overrides: tuple[str, ...] = ()
    settings: Tree = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model and not family_of(full_name(self.model)).takes_clips:
            raise ConfigError(f"{self.model} takes images; choose a video network, such as {MODEL}")
        if self.size and self.size not in SIZES:
            raise ConfigError(f"size {self.size!r}: it is one of {', '.join(SIZES)}")
        if self.epochs < 0:
            raise ConfigError(f"epochs {self.epochs}: it is at least 1")
        if self.epochs and self.probe:
            raise ConfigError(
                f"epochs {self.epochs}: a probe solves for its classifier at once; leave it out"
            )
        if self.views:
            parse_views(self.views)

    @property
    def folder(self) -> str:
        """The run's folder: `out`, else runs/<data>/<the choices of network>."""
        if self.out:
            return self.out
        alpha = "" if self.alpha is None else f"alpha{self.alpha:g}"
        said = ("probe" if self.probe else "train", self.model.replace(":", "_"), alpha, self.size)
        return f"{self._common}/{'_'.join(filter(None, said))}"

    @property
    def file(self) -> Path:
        """config.yaml in the run's folder: its settings, as what differs from `BASE`."""
        return Path(self.folder) / "config.yaml"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a run that goes on; without one, no earlier choice counts."""
        return has_begun(f"{self.folder}/checkpoints")

    @property
    def lists(self) -> str:
        """The folder of the lists: common to all runs on the data, unless `out` is given."""
        return f"{self.out or self._common}/lists"

    @property
    def _common(self) -> str:
        """The folder of all runs on the data that no `out` puts elsewhere."""
        return f"runs/{Path(self.data).resolve().name or 'videos'}"

    def plan(self) -> Plan:
        """The settings, and the lists that the run brings.

        A run that has a checkpoint keeps what it had, but for what is said now: so the command
        without its options continues, once `keep` has written what was said. Until then everything
        is chosen anew: a choice for one network or start would not suit the next.
        """
        goes_on = self.has_checkpoint and self.file.is_file()
        kept = self._kept() if goes_on else {}
        videos = self._videos(kept)
        before = kept or self._choices(videos, Machine.here())
        of_run = {
            "DATA": {"PATH_TO_DATA_DIR": absolute(videos.folder)},
            "MODEL": {"NUM_CLASSES": len(videos.class_names)},
            "OUTPUT_DIR": self.folder,
        }
        cfg = self._settings(merged(before, self._said(), of_run, self.settings), self.overrides)
        if self.folder != cfg.OUTPUT_DIR:
            raise ConfigError(f"OUTPUT_DIR is {cfg.OUTPUT_DIR}; of a folder of videos say `--out`")
        if self.probe and not cfg.TRAIN.CHECKPOINT_FILE_PATH:
            raise ConfigError(
                "a probe needs trained weights, and this one would start from scratch; --weights"
                " names a file or a public network"
            )
        return Plan(cfg, videos.new_lists)

    def keep(self, cfg: Any) -> None:
        """Write config.yaml, the settings that later commands begin with. It is for a command that
        the run follows: one that is refused leaves the run as it was."""
        _write(self.file, cfg)

    def _settings(self, tree: Tree, overrides: Sequence[str]) -> Any:
        return config_from_text(load_config(BASE, **tree).dump(), str(self.file), overrides)

    def _videos(self, kept: Tree) -> Videos:
        """Lists that are there as these settings say, else those made of the class folders."""
        folder = {"DATA": {"PATH_TO_DATA_DIR": absolute(self.data)}}
        counted = {"MODEL": {"NUM_CLASSES": 0}}
        tree = merged(_only(merged(kept, counted, self.settings), OF_LISTS), folder)
        pairs = [f"{key}={text}" for key, text in setting_pairs(self.overrides) if key in OF_LISTS]
        videos = listed_videos(self._settings(tree, pairs))
        begin = f"{self._common}/lists"
        return videos or prepare_videos(self.data, self.lists, begin=begin, check=self.check)

    def _kept(self) -> Tree:
        """The settings of an earlier command of this run, with weights that this one names if they
        are others."""
        tree = read_settings(str(self.file))
        tree.pop("_BASE_", None)
        kept = (tree.get("TRAIN") or {}).get("CHECKPOINT_FILE_PATH") or "none"
        logger.info(
            "settings as an earlier command left them in %s, %s; delete that file to choose anew",
            self.file, "from scratch" if kept == "none" else f"from {kept}",
        )  # fmt: skip
        if self.weights in ("", "auto") or absolute(self.weights) == absolute(kept):
            return tree
        alpha = self.alpha
        if alpha is None:
            alpha = (tree.get("OCTCONV") or {}).get("ALPHA") or 0.0
        return merged(tree, choose_start(self.model or MODEL, alpha, self.weights).settings)

    def _choices(self, videos: Videos, machine: Machine) -> Tree:
        """All that was not said: start, network, size, batch, precision, workers, sampling."""
        model, network = self.model or MODEL, Tree()
        start = choose_start(model, self.alpha or 0.0, self.weights or "auto")
        if not self.model and not start.is_trained:
            model, network = SMALL_MODEL, SMALL
        elif not self.model and start.model:
            model, network = start.model, start.network
        alpha = network.get("OCTCONV", {}).get("ALPHA") if self.alpha is None else self.alpha
        logger.info("%s%s, %s", model, f", alpha {alpha:g}" if alpha else "", start.line)
        frames = input_shape_of(model)[1]
        tree = merged(
            {"BN": {"USE_PRECISE_STATS": False}, "TRAIN": {"CHECKPOINT_MINUTES": 5.0}},
            view_settings("3x1" if self.probe else "10x3"),
            {"TEST": {"DIAGNOSE": True}},
            name_settings(model),
            network,
            {"DATA": {"NUM_FRAMES": frames, "SAMPLING_RATE": max(64 // frames, 1)}},
            start.settings,
            {"DATA": SIZES[self.size or machine.size]},
            machine.settings(videos.num_train),
        )
        return merged(tree, _sampling(videos, tree["DATA"]), _flip(videos.class_names))

    def _said(self) -> Tree:
        """The settings of this command, which apply even if the run has settings already."""
        tree: Tree = {}
        if self.model:
            tree = name_settings(self.model)
        if self.alpha is not None:
            tree = merged(tree, {"OCTCONV": {"ALPHA": self.alpha}})
        if self.size:
            tree = merged(tree, {"DATA": SIZES[self.size]})
        if self.epochs:
            warmup = float(min(2, self.epochs // 5))
            schedule = {"MAX_EPOCH": self.epochs, "WARMUP_EPOCHS": warmup}
            tree = merged(tree, {"SOLVER": schedule})
        if self.views:
            tree = merged(tree, view_settings(self.views))
        return tree


def parse_views(views: str) -> tuple[int, int]:
    """ "10x3" -> 10 clips, 3 crops. Raises ConfigError."""
    clips, x, crops = views.partition("x")
    if not (x and clips.isdecimal() and int(clips) and crops in ("1", "3")):
        raise ConfigError(f"views {views!r}: give clips x crops, crops being 1 or 3, as '10x3'")
    return int(clips), int(crops)


def view_settings(views: str) -> Tree:
    clips, crops = parse_views(views)
    return {"TEST": {"NUM_ENSEMBLE_VIEWS": clips, "NUM_SPATIAL_CROPS": crops}}


def _sampling(videos: Videos, data: Tree) -> Tree:
    """A smaller frame stride where most videos are shorter than a clip, as frames would repeat."""
    rate, rule = data["SAMPLING_RATE"], data.get("SAMPLING_RULE")
    fits = max(int(videos.seconds * data.get("TARGET_FPS", 30) / data["NUM_FRAMES"]), 1)
    if not videos.seconds or fits >= rate or rule == "segment":
        return {}
    logger.info(
        "the videos last %.1f s: a clip takes %s, not %s (DATA.SAMPLING_RATE)",
        videos.seconds, every(fits), every(rate),
    )  # fmt: skip
    return {"DATA": {"SAMPLING_RATE": fits}}


def _flip(class_names: Sequence[str]) -> Tree:
    """A mirrored "move left" is a "move right"."""
    sided = [name for name in class_names if LEFT_RIGHT.search(_words(name))]
    if not sided:
        return {}
    logger.info(
        "class %r would be another one in a mirror: videos are not mirrored (DATA.RANDOM_FLIP)",
        sided[0],
    )
    return {"DATA": {"RANDOM_FLIP": False}}


def _words(name: str) -> str:
    """ "SwipeLeft_2" -> "swipe left 2"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).lower()


def every(rate: int) -> str:
    """ "every frame", "every 2nd frame", "every 7th frame"."""
    if rate == 1:
        return "every frame"
    last = {1: "st", 2: "nd", 3: "rd"}.get(rate % 10, "th") if rate % 100 // 10 != 1 else "th"
    return f"every {rate}{last} frame"


def _write(path: Path, cfg: Any) -> None:
    """Write the differences from BASE, as a file for people and for `--cfg`."""
    tree = {"_BASE_": BASE, **difference(cfg, load_config(BASE))}
    text = yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(str(path), lambda file: file.write(HEAD.encode() + text.encode()))


def merged(*trees: Tree) -> Tree:
    """Later trees over earlier ones, section by section."""
    result: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            is_section = isinstance(value, dict) and isinstance(result.get(key, {}), dict)
            result[key] = {**result.get(key, {}), **value} if is_section else value
    return result


def _only(tree: Tree, keys: Sequence[str]) -> Tree:
    """The settings of `tree` that `keys` name."""
    found: Tree = {}
    for key, value in leaves(tree):
        if key in keys:
            section, _, name = key.rpartition(".")
            found.setdefault(section, {})[name] = value
    return found


def difference(cfg: Any, base: Any) -> Tree:
    """The settings of `cfg` that differ from `base`."""
    tree: Tree = {}
    for key, value in cfg.items():
        if isinstance(value, dict):
            inner = difference(value, base[key])
            if inner:
                tree[key] = inner
        elif value != base[key]:
            tree[key] = value
    return tree
