"""The identity of a run: a checkpoint's data, classes, network and recipe beside a config's."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import octvideo
from octvideo.assembly.data import numbered_names
from octvideo.assembly.trained_with import IN_DATA, change, short
from octvideo.checkpoint import Checkpoint
from octvideo.config import config_from_text, leaves
from octvideo.data.lists.video_list import VideoList
from octvideo.engine.checkpoint_files import list_checkpoints, read_whole
from octvideo.engine.evaluation.evaluate import Videos
from octvideo.errors import CheckpointError, ConfigError, logger
from octvideo.models.video_options import BLOCKS

# Settings that decide what weights mean, or where in which data a run stands: a change makes
# another run.
FIXED = (
    "TRAIN.DATASET",
    "TRAIN.CHECKPOINT_FILE_PATH",
    "TRAIN.CHECKPOINT_INFLATE",
    "DATA.",
    "MODEL.",
    "RESNET.",
    "OCTCONV.",
    "NONLOCAL.",
    "SLOWFAST.",
    "SOLVER.OPTIMIZING_METHOD",
    "RNG_SEED",
)
# Of these, what may change. The list's fingerprint says more than the place and the form in which
# it is kept.
FREE = (
    "DATA.PATH_TO_DATA_DIR",
    "DATA.PATH_PREFIX",
    "DATA.PATH_LABEL_SEPARATOR",
    "DATA.LIST_FORMAT",
    "DATA.SHARD_CACHE_GB",
    "DATA.SHARD_CACHE_DIR",
    "DATA.TEST_CROP_SIZE",
    "DATA.TEST_SHORT_SIDE",
    "DATA.ENSEMBLE_METHOD",
    "DATA.MAX_BAD_RATIO",
    "MODEL.ACT_CHECKPOINT",
    "OCTCONV.MEMORY_SAVING",
    "OCTCONV.SMOOTHEST_LOW",
)
# What a probe may change too: it solves for its classifier anew, of the videos that there are now.
FREE_IN_PROBES = ("MODEL.NUM_CLASSES", "SOLVER.OPTIMIZING_METHOD", "RNG_SEED")
# Settings that training does not depend on: their changes are not logged.
OF_NO_MATTER = ("OUTPUT_DIR", "TEST.", "LOG_", "TENSORBOARD.", "TRAIN.ENABLE", "TRAIN.AUTO_RESUME")
# Options of a network that change neither its weights nor what it computes from them in a test.
OF_TRAINING = ("dropout_rate", "fc_init_std", "zero_init_final_bn", "memory_saving")
OF_OCTAVE = ("stages", "width_rule", "nonlocal_on")
OF_NONLOCAL = (
    "nonlocal_on",
    "nonlocal_pool",
    "nonlocal_pool_after",
    "nonlocal_instantiation",
)
OF_CLIP = ("num_frames", "crop_size")


@dataclass(frozen=True)
class RunIdentity:
    """The run that a config describes. about: its checkpoints without the training state."""

    cfg: Any
    about: Checkpoint

    def differences(self, checkpoint: Checkpoint) -> list[str]:
        """`SOLVER.BASE_LR 0.01 instead of 0.1`, ... for settings that may differ. Raises
        CheckpointError for those that may not."""
        then, now = settings_in(checkpoint), flat(self.cfg)
        changed = {key: then[key] for key in now if key in then and then[key] != now[key]}
        refused = [change(key, now[key], changed[key]) for key in changed if is_fixed(key)]
        for other in (_other_classes, _other_list, _other_labels):
            refused += other(checkpoint, self.about)
        if not then and checkpoint.network not in ({}, self.about.network):
            refused.append("another network")
        if refused:
            raise CheckpointError(
                f"{checkpoint.path}: of another run ({'; '.join(refused)}); "
                "choose another OUTPUT_DIR (of a folder of videos: --out), or set back what differs"
            )
        free = [key for key in changed if not key.startswith(OF_NO_MATTER) and not is_fixed(key)]
        return [change(key, now[key], changed[key]) for key in free]

    def other_validation(self, checkpoint: Checkpoint) -> str:
        """`16 entries, then 15` if validation has other data than it had, `DATA.TEST_CROP_SIZE ...`
        if it sees images in another crop; "" if neither, or if one side does not say."""
        then, now = checkpoint.training.get("validation"), self.about.training.get("validation")
        said = []
        if isinstance(then, dict) and now and then != now:
            said.append(f"{now['entries']} entries, then {then.get('entries')}")
        had, has = checkpoint.input.crop_size, self.about.input.crop_size
        if self.about.input.num_frames is None and had not in (None, has):
            said.append(change("DATA.TEST_CROP_SIZE", has, had))
        return ", ".join(said)

    def batch_samples(self, checkpoint: Checkpoint) -> int:
        """Samples of a global batch of the run that saved the checkpoint; 0 if it does not say."""
        then = settings_in(checkpoint)
        if not then:
            return 0
        return int(then["TRAIN.BATCH_SIZE"]) // int(then["SOLVER.ACCUM_STEPS"])


def refuse_another_kind(folder: str, kind: str) -> None:
    """Raise CheckpointError if the checkpoints in OUTPUT_DIR are not of a run of this kind,
    "training" or "probe": both keep their result in best.pyth, and one would replace the other's.
    """
    other = "probe" if kind == "training" else "training"
    if _kind_of(f"{folder}/checkpoints") == other:
        raise CheckpointError(
            f"{folder}/checkpoints: of a {other}, which a {kind} would replace; choose another"
            " OUTPUT_DIR (of a folder of videos: --out)"
        )


def refuse_another_probe(cfg: Any) -> None:
    """Raise CheckpointError if OUTPUT_DIR has a probe of another network, start or input, whose
    result this one would replace. Videos and classes may be others."""
    path = f"{cfg.OUTPUT_DIR}/checkpoints/best.pyth"
    then, now = settings_in(Checkpoint.of(read_whole(path) or {}, path)), flat(cfg)
    refused = [
        change(key, now[key], then[key])
        for key in now
        if is_fixed(key) and key not in FREE_IN_PROBES and then.get(key, now[key]) != now[key]
    ]
    if refused:
        raise CheckpointError(
            f"{path}: another probe ({'; '.join(refused)}), which this one would replace; choose"
            " another OUTPUT_DIR (of a folder of videos: --out), or set back what differs"
        )


def _kind_of(folder: str) -> str:
    """ "" for a folder without checkpoints, or with weights from elsewhere."""
    if list_checkpoints(folder):
        return "training"
    found = read_whole(f"{folder}/best.pyth") or {}
    return "training" if "progress" in found else "probe" if "data" in found else ""


def is_fixed(key: str) -> bool:
    """Whether a change of this setting makes another run."""
    return key.startswith(FIXED) and key not in FREE


def flat(cfg: Any) -> dict[str, Any]:
    """`SECTION.NAME` -> value."""
    return dict(leaves(cfg))


def settings_in(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings that a checkpoint was trained with; {} if it holds none that can be read."""
    if not checkpoint.recipe:
        return {}
    try:
        return flat(config_from_text(checkpoint.recipe, checkpoint.path))
    except ConfigError:
        return {}


def _other_classes(checkpoint: Checkpoint, about: Checkpoint) -> list[str]:
    then, now = checkpoint.class_names, about.class_names
    # Names given to classes that had only numbers before are no change of classes.
    unnamed = tuple(numbered_names(len(now)))
    if not then or then == now or (len(then) == len(now) and unnamed in (then, now)):
        return []
    if len(then) != len(now):
        return [f"{len(now)} classes instead of {len(then)}"]
    label = next(i for i, names in enumerate(zip(then, now, strict=True)) if names[0] != names[1])
    kind = "other classes" if sorted(then) != sorted(now) else "another order of the classes"
    return [f"{kind}: class {label} is {short(now[label])!r} instead of {short(then[label])!r}"]


def _other_list(checkpoint: Checkpoint, about: Checkpoint) -> list[str]:
    then, now = checkpoint.training.get("data"), about.training["data"]
    if not isinstance(then, dict) or then.get("fingerprint") == now["fingerprint"]:
        return []
    counts = f"{now['samples']} entries, then {then.get('samples')}"
    return [
        f"another training list ({counts}); a list is known by its paths and labels in their order"
    ]


def _other_labels(checkpoint: Checkpoint, about: Checkpoint) -> list[str]:
    """Labels of the list that are another class now, by the names beside it; checkpoints of earlier
    versions do not say."""
    then, now = checkpoint.training.get("data"), about.training["data"]
    names, count = about.class_names, len(checkpoint.class_names)
    if not isinstance(then, dict) or "classes" not in then or count != len(names):
        return []
    had, has = (data.get("classes") or range(count) for data in (then, now))
    for label, (before, here) in enumerate(zip(had, has, strict=False)):
        if before != here:
            said = f"{short(names[here])!r} instead of {short(names[before])!r}"
            return [f"class_names.txt beside the list makes label {label} {said}"]
    return []


def warn_of_another_list(checkpoint: Checkpoint, train: VideoList, tested: str) -> None:
    """Warn where weights were trained on another list than `train`, which lies beside the tested
    one: after a new division, a test may hold videos of the training."""
    then = checkpoint.training.get("data")
    if isinstance(then, dict) and then.get("fingerprint") != train.fingerprint():
        logger.warning(
            "%s: trained on another list (%s entries) than %s (%d) is now; a test means something"
            " only if that list held no video of %s",
            checkpoint.path, then.get("samples"), train.name, len(train), tested,
        )  # fmt: skip


def warn_of_earlier_training(start: Checkpoint, about: Checkpoint) -> None:
    """Warn where the weights that a run starts from were trained on another list of such classes:
    it may have held videos of this run's test.

    start: the weights' file. about: what this run's checkpoints say.
    """
    then, now = start.training.get("data"), about.training["data"]
    if not isinstance(then, dict) or not set(start.class_names) & set(about.class_names):
        return
    if then.get("fingerprint") != now["fingerprint"]:
        logger.warning(
            "%s: trained on another list (%s entries) than this run (%d); a test of this run means"
            " something only if that list held no video of it",
            start.path, then.get("samples"), now["samples"],
        )  # fmt: skip


def check_tested(checkpoint: Checkpoint, about: Checkpoint) -> None:
    """Raise CheckpointError if a test would use another network or another input than the weights
    were trained with.

    about: the network and input of the test. Sizes of crops may differ: they are the test's own,
    and results.json shows them. Mean and standard deviation are compared to half a gray level
    (`Assumptions`).
    """
    then, now = checkpoint.input, about.input
    wrong = [
        change(f"DATA.{setting}", getattr(now, name), getattr(then, name))
        for name, setting in IN_DATA.items()
        if getattr(then, name) is not None and getattr(then, name) != getattr(now, name)
    ]
    if then.mean is not None and then.reverse_channels != now.reverse_channels:
        wrong.append(
            change("DATA.REVERSE_INPUT_CHANNEL", now.reverse_channels, then.reverse_channels)
        )
    trained, built = _in_use(checkpoint.network), _in_use(about.network)
    wrong += [
        change(key, built[key], trained[key])
        for key in built
        if key in trained and trained[key] != built[key]
    ]
    if trained and checkpoint.multi_label != about.multi_label:
        wrong.append(change("DATA.MULTI_LABEL", about.multi_label, checkpoint.multi_label))
    if wrong:
        raise CheckpointError(
            f"{checkpoint.path}: trained otherwise than these settings say ({'; '.join(wrong)}); "
            "test it with its own (octvideo test --checkpoint), or set back what differs"
        )


def _in_use(network: dict[str, Any]) -> dict[str, Any]:
    """The options that decide what a network computes in a test: without non-local blocks, their
    options do not count, and where there are some is not a matter of the name."""
    options = dict(network)
    if "name" in options:
        options["name"] = str(options["name"]).replace("_nln", "")
    located = [key for key in options if key.startswith("nonlocal_location")]
    for key in located:
        options[key] = options[key] if any(options[key] or ()) else None
    if "num_block_temp_kernel_fast" in options:
        fast = options["num_block_temp_kernel_fast"]
        options["num_block_temp_kernel_fast"] = fast or options.get("num_block_temp_kernel")
    depth = str(options.get("name", "")).rpartition("_r")[2]
    blocks = BLOCKS.get(int(depth) if depth.isdecimal() else 0, ())
    for key in ("num_block_temp_kernel", "num_block_temp_kernel_fast"):
        # Limits beyond the last block of a stage are no limits.
        if isinstance(options.get(key), list | tuple) and blocks:
            options[key] = [min(pair) for pair in zip(options[key], blocks, strict=False)]
    unused: tuple[str, ...] = OF_TRAINING if options.get("alpha") else OF_TRAINING + OF_OCTAVE
    if not any(options[key] for key in located):
        unused += OF_NONLOCAL
    # The usual clip of the network, whichever it is.
    unused += tuple(key for key in OF_CLIP if options.get(key) is None)
    return {key: value for key, value in options.items() if key not in unused}


# Where the settings of a report are those of the test.
OF_THE_TEST = (
    "PATH_TO_DATA_DIR",
    "PATH_PREFIX",
    "LIST_FORMAT",
    "TEST_CROP_SIZE",
    "TEST_SHORT_SIDE",
    "ENSEMBLE_METHOD",
)


def recipe_of(checkpoint: Checkpoint, cfg: Any) -> str:
    """The settings for a report: the training settings in the checkpoint, and those of the test."""
    if not settings_in(checkpoint):
        return str(cfg.dump())
    then = config_from_text(checkpoint.recipe, checkpoint.path)
    then.defrost()
    then.TEST, then.OUTPUT_DIR = cfg.TEST.clone(), cfg.OUTPUT_DIR
    for name in OF_THE_TEST:
        then.DATA[name] = cfg.DATA[name]
    return str(then.dump())


def facts(cfg: Any) -> dict[str, object]:
    """Facts that must be equal on all ranks of a run before it starts: settings and software."""
    return flat(cfg) | {"octvideo": octvideo.__version__, "torch": torch.__version__}


def data_of(videos: Videos) -> dict[str, Any]:
    """How many entries a list for a test or validation has, and the fingerprint of their file names
    and labels; the folder may move."""
    names = [Path(path).name for path in videos.paths]
    pairs = list(zip(names, videos.labels, strict=True))
    return {"fingerprint": digest(pairs), "entries": len(names)}


def digest(values: Any) -> str:
    """16 hex digits of nested plain values."""
    return hashlib.sha256(repr(values).encode(errors="surrogateescape")).hexdigest()[:16]
