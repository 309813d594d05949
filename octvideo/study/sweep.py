"""Some networks, or every combination of some settings, over some seeds: `octvideo sweep`.

OUT/runs/NAME       a run each, as `octvideo train` leaves it; one with results.json is done
OUT/runs/NAME.log   what it printed
OUT/runs/NAME/settings.json  what it was made with (`study.origin`)
OUT/sweep.json      how long a view takes
OUT/table.md, table.csv, table.tex, tradeoff.png
"""

import hashlib
import itertools
import re
import statistics
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from octvideo.assembly.identity import digest, flat
from octvideo.assembly.model import build_model
from octvideo.assembly.tasks import require_data_folder, task_of, with_counted_classes
from octvideo.config import load_config, setting_pairs
from octvideo.config.yaml_text import read_settings
from octvideo.deploy.cache import key_of
from octvideo.deploy.timing import interleaved
from octvideo.errors import ConfigError
from octvideo.layers import channels_last
from octvideo.study.children import Children, ended_by_signals, share
from octvideo.study.origin import (
    Settings,
    check_folder,
    made_with,
    read_json,
    settings_of,
    write_json,
)
from octvideo.study.trial import metric, metric_name, require_labels, run_trial

SEED = "RNG_SEED"
ROUNDS = 9  # of timing
Repetition = tuple[str, ...]
"""The settings of one repeat: ("RNG_SEED=1",)."""


@dataclass(frozen=True)
class Sweep:
    """config: a file or an installed name. fixed: settings of all runs. axes: setting -> its
    values. rows: name of a network -> its settings.

    Each row is run with every combination of the axes, and all of that with every combination of
    the values in `repeats`: seeds, and folds of the data if there are some. The others are compared
    with the first row and combination, within a repeat.
    """

    config: str
    fixed: tuple[str, ...]
    axes: dict[str, tuple[str, ...]]
    repeats: dict[str, tuple[str, ...]]
    rows: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"": ()})

    @classmethod
    def of(
        cls,
        config: str,
        words: Sequence[str],
        rows: Mapping[str, Sequence[str]] | None = None,
        paired: Sequence[str] = (),
    ) -> "Sweep":
        """From settings of a command line: ["OCTCONV.ALPHA=0,.1,.2", "RNG_SEED=1,2",
        "TRAIN.BATCH_SIZE=8"].

        paired: settings that repeat a run, as RNG_SEED does, such as the folder of a fold. Raises
        ConfigError for an unknown setting, one that is invalid in some combination, and two
        combinations or repeats of equal settings, as RNG_SEED=1,01.
        """
        fixed: list[str] = []
        axes: dict[str, tuple[str, ...]] = {}
        paired = (*paired, SEED)
        for key, text in setting_pairs(words):
            values = split_values(text)
            if len(values) == 1 and key not in paired:
                fixed.append(f"{key}={text}")
            elif key in axes or len(set(values)) < len(values) or not all(values):
                raise ConfigError(f"{key}={text}: give each value once, as {key}=0,.1,.2")
            else:
                axes[key] = values
        repeats = {key: axes.pop(key) for key in paired if key in axes}
        repeats.setdefault(SEED, (str(load_config(config).RNG_SEED),))
        named = {name: tuple(own) for name, own in (rows or {"": ()}).items()}
        for name, own in named.items():
            if twice := {*axes, *repeats} & {key for key, _ in setting_pairs(own)}:
                raise ConfigError(f"row {name}: {min(twice)} is varied for all rows; give it once")
        sweep = cls(config, tuple(fixed), axes, repeats, named)
        _refuse_equal((each.label, sweep.settings(each)) for each in sweep.variants)
        first = sweep.variants[0]
        _refuse_equal((" ".join(each), sweep.settings(first, each)) for each in sweep.repetitions)
        return sweep

    @cached_property
    def variants(self) -> list["Variant"]:
        combinations = list(itertools.product(*self.axes.values()))
        return [
            Variant(tuple(zip(self.axes, values, strict=True)), name, own)
            for name, own in self.rows.items()
            for values in combinations
        ]

    @cached_property
    def repetitions(self) -> list["Repetition"]:
        found: list[Repetition] = [()]
        for key, values in self.repeats.items():
            found = [(*words, f"{key}={value}") for value in values for words in found]
        return found

    @cached_property
    def runs(self) -> list[tuple["Repetition", "Variant"]]:
        return list(itertools.product(self.repetitions, self.variants))

    def words(self, variant: "Variant", repetition: "Repetition") -> list[str]:
        """The settings of a run, as on a command line."""
        return [*self.fixed, *variant.words, *repetition]

    def settings(self, variant: "Variant", repetition: "Repetition" = ()) -> Any:
        """The frozen config of a run."""
        cfg = load_config(self.config, self.words(variant, repetition or self.repetitions[0]))
        if not (cfg.TRAIN.ENABLE and cfg.TEST.ENABLE):
            raise ConfigError(
                "a sweep trains and tests; leave TRAIN.ENABLE and TEST.ENABLE as they are"
            )
        if path := cfg.TEST.CHECKPOINT_FILE_PATH:
            raise ConfigError(
                f"TEST.CHECKPOINT_FILE_PATH {path}: all runs of a sweep would be scored by this one"
                " file; leave it out (where the config names it: TEST.CHECKPOINT_FILE_PATH=)"
            )
        return cfg

    def shared(self) -> dict[str, Any]:
        """The settings that all runs have in common."""
        own = {key for words in self.rows.values() for key, _ in setting_pairs(words)}
        varied = {*self.axes, *self.repeats, *own}
        settings = settings_of(self.settings(self.variants[0]))
        return {key: value for key, value in settings.items() if key not in varied}


@dataclass(frozen=True)
class Variant:
    """A row and one combination of values, without its seed."""

    values: tuple[tuple[str, str], ...]
    row: str = ""
    own: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return [*self.own, *self._combination]

    @property
    def _combination(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.values]

    @property
    def names(self) -> list[str]:
        return [*([self.row] if self.row else []), *self._combination]

    @property
    def cells(self) -> list[str]:
        """The first cells of a table's line: the row's name and the values."""
        return [*([self.row] if self.row else []), *(value for _, value in self.values)]

    @property
    def label(self) -> str:
        return " ".join(self.names) or "as configured"

    def folder(self, repetition: Repetition) -> str:
        """A name that no other run of the sweep has, on any file system."""
        name = ",".join([*self.names, *repetition])
        plain = re.sub(r"[^\w.=,+-]", "-", name)
        return (
            plain
            if plain == name and len(name) < 150
            else f"{plain[:140]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        )


def _refuse_equal(named: Iterable[tuple[str, Any]]) -> None:
    """Raise ConfigError where two configs are equal, whatever their texts were."""
    seen: dict[str, str] = {}
    for name, cfg in named:
        other = seen.setdefault(repr(sorted(flat(cfg).items())), name)
        if other != name:
            raise ConfigError(f"{name}: has the settings of {other}; give each once")


def read_rows(path: str) -> dict[str, tuple[str, ...]]:
    """The networks of a YAML file, `name: [KEY=VALUE, ...]`; {} for "". Raises ConfigError."""
    rows = read_settings(path) if path else {}
    for name, words in rows.items():
        if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            raise ConfigError(f"{path}: {name}: {words!r} is no list of settings, [KEY=VALUE, ...]")
    return {name: tuple(words) for name, words in rows.items()}


def split_values(text: str) -> tuple[str, ...]:
    """ "0,.1" -> "0", ".1"; commas within brackets and quotes divide nothing: "[1,2],[3]" ->
    "[1,2]", "[3]"."""
    values, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        depth += (c in "[{(") - (c in "]})")
        if c == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += c
    return tuple(value.strip() for value in values)


# --- Runs


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    jobs: int = 1,
    keep: bool = True,
    report: Callable[[str], None] = print,
) -> None:
    """Do the runs that have no results yet, `jobs` at a time. After a failure no further run
    starts. Ctrl-C, SIGTERM and SIGHUP stop the runs too, which save what they have.

    Raises ConfigError as `check_runs` does, and for a test without labels, before anything runs;
    TrialError for a run that ended without results.
    """
    for repetition, variant in sweep.runs:
        cfg = sweep.settings(variant, repetition)
        require_data_folder(cfg)
        require_labels(cfg)
    check_runs(sweep, out)
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(jobs):
        slots.put(slot)
    done = itertools.count(1)

    # A thread takes its next run before the one that failed can cancel it.
    failed, children = threading.Event(), Children()

    def work(repetition: Repetition, variant: Variant) -> None:
        if failed.is_set():
            return
        slot = slots.get()
        try:
            found = run_trial(
                sweep.config,
                sweep.words(variant, repetition),
                out / "runs" / variant.folder(repetition),
                keep=keep,
                environment=share(slot, jobs),
                children=children,
            )
        except BaseException:
            failed.set()
            raise
        finally:
            slots.put(slot)
        title = " ".join([variant.label, *repetition])
        report(
            f"[{next(done)}/{len(sweep.runs)}] {title}: {metric_name(found)} {metric(found):.1f}"
        )

    with ended_by_signals(), ThreadPoolExecutor(jobs) as pool, children:
        futures = [pool.submit(work, *run) for run in sweep.runs]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
    for future in futures:
        if not future.cancelled():
            future.result()


def check_runs(sweep: Sweep, out: Path) -> None:
    """Raise ConfigError if a run in `out` was made with other settings, lists or start weights than
    the sweep gives it, or if its results are of another test."""
    # Earlier versions kept there what all runs had in common, and nothing in the runs' folders.
    had = read_state(out).get("settings", {})
    assumed = {key: had[key] for key in sweep.shared() if key in had}
    lists: dict[str, Settings] = {}
    for repetition, variant in sweep.runs:
        settings = made_with(sweep.settings(variant, repetition), lists)
        check_folder(out / "runs" / variant.folder(repetition), settings, assumed)


def read_state(out: Path) -> dict[str, Any]:
    return read_json(out / "sweep.json", "choose another --out")


def measure_times(sweep: Sweep, out: Path) -> None:
    """Median milliseconds of a view through each network: eager, all of them in turns.

    Nothing is timed if all were, with these settings, on this machine, by these libraries and
    threads. Times of two measurements do not compare, so earlier ones are dropped.
    """
    state, device = read_state(out), "cuda" if torch.cuda.is_available() else "cpu"
    machine = key_of(torch.cuda.get_device_name() if device == "cuda" else device)
    known = measured_times(sweep, out) if state.get("timed_on") == machine else {}
    if len(known) == len(sweep.variants):
        return
    calls = {variant.label: _forward(sweep.settings(variant), device) for variant in sweep.variants}
    found = interleaved(calls, ROUNDS, device)
    times = {label: round(1000 * statistics.median(each), 3) for label, each in found.items()}
    timed = {variant.label: _timed(sweep, variant) for variant in sweep.variants}
    out.mkdir(parents=True, exist_ok=True)
    now = {"milliseconds": times, "timed": timed, "timed_on": machine}
    write_json(out / "sweep.json", state | now)


def measured_times(sweep: Sweep, out: Path) -> dict[str, float]:
    """Milliseconds of a view by label, of the networks timed with the settings that they have."""
    state = read_state(out)
    times, timed = state.get("milliseconds", {}), state.get("timed", {})
    labels = {variant.label: _timed(sweep, variant) for variant in sweep.variants}
    return {label: times[label] for label, now in labels.items() if timed.get(label) == now}


def _timed(sweep: Sweep, variant: Variant) -> str:
    """A digest of the variant's settings, by which its time is known."""
    settings = settings_of(sweep.settings(variant))
    return digest(sorted((key, v) for key, v in settings.items() if key not in sweep.repeats))


def _forward(cfg: Any, device: str) -> Callable[[], Any]:
    cfg = with_counted_classes(cfg)
    model = channels_last(build_model(cfg).eval().to(device))
    view = torch.randn(1, *task_of(cfg).tested_shape(), device=device)
    return torch.inference_mode()(partial(model, view))
