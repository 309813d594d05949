"""The data of a config: lists, clips, views, batches, and the preprocessing of inputs."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from octvideo.data.clips.dataset import ClipTransform
from octvideo.data.clips.views import ViewSpec
from octvideo.data.lists.class_names import match_classes, names_beside, read_class_names
from octvideo.data.lists.video_list import VideoList, read_list
from octvideo.data.loading.loader import Dataset, Loader
from octvideo.data.remote import join
from octvideo.data.sampling import ClipRule
from octvideo.data.shards.shard_list import class_names_of, open_shards
from octvideo.data.shards.shard_set import FILE_NAME, has_shards
from octvideo.data.storage.cache import RangeCache
from octvideo.data.storage.ranges import exists
from octvideo.data.transforms import normalize
from octvideo.data.video.index import VideoIndex, index_path, read_index
from octvideo.download import cache_folder
from octvideo.engine.distributed import Processes
from octvideo.errors import ConfigError, DataError, logger
from octvideo.files import is_local, is_there, what_is_missing

# Width / height of a random resized crop, where the settings are silent.
ASPECT = (0.75, 1.3333)
# Videos of a list of which one must be there: a wrong prefix is told before hours of training.
LOOKED_AT = 20
_ENDS_IN_NUMBER = re.compile(r"\s\d+$")  # a folder and its number of frames


def list_path(cfg: Any, split: str) -> str:
    """The list of a split: train.csv, or for shards the description of those in train/."""
    file = f"{split}/{FILE_NAME}" if reads_shards(cfg) else f"{split}.csv"
    return join(cfg.DATA.PATH_TO_DATA_DIR, file)


def reads_shards(cfg: Any) -> bool:
    return bool(cfg.DATA.LIST_FORMAT == "shards")


def final_list_path(cfg: Any) -> str:
    """test.csv, or val.csv where the data has no other test (Kinetics)."""
    path = list_path(cfg, "test")
    is_there = has_shards(path) if reads_shards(cfg) else exists(path)
    return path if is_there else list_path(cfg, "val")


def training_list_beside(cfg: Any, tested: str) -> VideoList | None:
    """train.csv in the folder of a tested list, if that is the folder of the data and it can be
    read. Shards are not looked at."""
    path = list_path(cfg, "train")
    if reads_shards(cfg) or Path(tested).absolute().parent != Path(path).absolute().parent:
        return None
    with suppress(DataError):
        return open_labeled_list(cfg, path)
    return None


def open_list(cfg: Any, path: str) -> VideoList:
    """With DATA.MULTI_LABEL a video's one label is its list of labels, whatever the columns say.
    Without it a list of labels is one label: raises DataError for several, and for none where other
    videos have one."""
    videos = _listed(cfg, path)
    if cfg.DATA.MULTI_LABEL and videos.format in ("video", "frames"):
        videos.format = "multilabel"
    elif not cfg.DATA.MULTI_LABEL and videos.format == "multilabel":
        _refuse_several_labels(videos)
        videos.format = "video" if videos.has_labels else "unlabeled"
    return videos


def _listed(cfg: Any, path: str) -> VideoList:
    data = cfg.DATA
    if reads_shards(cfg):
        num_bytes = int(data.SHARD_CACHE_GB * 1e9)
        folder = data.SHARD_CACHE_DIR or str(cache_folder() / "shards")
        return open_shards(
            path,
            multi_label=data.MULTI_LABEL,
            path_prefix=data.PATH_PREFIX,
            num_classes=cfg.MODEL.NUM_CLASSES,
            cache=RangeCache(folder, num_bytes) if num_bytes else None,
        )
    return read_list(
        path,
        format=(
            "multilabel" if data.MULTI_LABEL and data.LIST_FORMAT == "video" else data.LIST_FORMAT
        ),
        path_prefix=data.PATH_PREFIX,
        separator=data.PATH_LABEL_SEPARATOR or None,
        num_classes=cfg.MODEL.NUM_CLASSES,
        frame_template=data.FRAME_TEMPLATE,
    )


def _refuse_several_labels(videos: VideoList) -> None:
    if found := videos.without_one_label():
        raise DataError(
            f"{videos.name}: {found}; without DATA.MULTI_LABEL each video has one: give it one, or"
            " set DATA.MULTI_LABEL True and MODEL.LOSS_FUNC bce_logit"
        )


def open_labeled_list(cfg: Any, path: str) -> VideoList:
    """The list for training or validation. Raises DataError for a list without labels, and for
    shards of which only some videos have one, which can be tested as a list without."""
    videos = open_list(cfg, path)
    if not cfg.DATA.MULTI_LABEL:
        _refuse_several_labels(videos)
    if not is_labeled(videos):
        raise DataError(
            f"{path}: an unlabeled list can be tested, not trained or validated on; give each line"
            " a label"
        )
    return videos


def require_videos(cfg: Any) -> None:
    """Raise DataError where train.csv or val.csv names no file that is there, of `LOOKED_AT` that
    are spread over it: its paths are wrong. Files at addresses and in shards are not looked at."""
    if cfg.TRAIN.DATASET != "video" or reads_shards(cfg):
        return
    for split in ("train", "val"):
        path = list_path(cfg, split)
        videos = open_list(cfg, path)
        some = videos[:: max(len(videos) // LOOKED_AT, 1)]
        if some and not any(not is_local(one.path) or is_there(one.path) for one in some):
            first = some[0].path
            setting = "LIST_FORMAT (frames)" if _ENDS_IN_NUMBER.search(first) else "PATH_PREFIX"
            raise DataError(
                f"{path}: its videos are missing, {first} ({what_is_missing(first)}); correct its"
                f" paths, or DATA.{setting}"
            )


def is_labeled(videos: VideoList) -> bool:
    """Whether a test of a list measures anything."""
    return videos.format != "unlabeled" and videos.has_labels


def open_index(path: str) -> VideoIndex | None:
    """The index that `octvideo check` wrote beside a list, if any; shards have their own."""
    return read_index(index_path(path)) if index_path(path).is_file() else None


def names_of(cfg: Any, path: str) -> list[str] | None:
    """The names of a list's classes, in label order; None where it has none."""
    return class_names_of(path) if reads_shards(cfg) else names_beside(path)


def matched_classes(cfg: Any, path: str, names: Sequence[str]) -> list[int] | None:
    """For each label of a list, of training or evaluation, the class of that name among the
    network's `names`; None where one side has no names.

    A list without names of its own has those of TENSORBOARD.CLASS_NAMES_PATH, in training the
    network's; other ones than the network's, as spelled otherwise, tell nothing, and a warning says
    so.
    """
    if list(names) == numbered_names(len(names)):
        return None
    if own := names_of(cfg, path):
        return match_classes(names, own, source=path)
    given = cfg.TENSORBOARD.CLASS_NAMES_PATH
    if not given:
        return None
    try:
        return match_classes(names, read_class_names(given))
    except DataError:
        # Or the file is gone: a checkpoint that is tested may name one of elsewhere.
        logger.warning(
            "%s: its labels are taken in the order of the network's classes, as %s"
            " (TENSORBOARD.CLASS_NAMES_PATH) has other names, or cannot be read",
            *(path, given),
        )
        return None


def numbered_names(count: int) -> list[str]:
    """Names for classes without names."""
    return [f"class {label}" for label in range(count)]


def clip_rule(cfg: Any) -> ClipRule:
    data = cfg.DATA
    return ClipRule(data.NUM_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, data.SAMPLING_RULE)


def clip_transform(cfg: Any) -> ClipTransform:
    data = cfg.DATA
    return ClipTransform(
        data.TRAIN_CROP_SIZE,
        jitter_scales=tuple(data.TRAIN_JITTER_SCALES),
        flip=data.RANDOM_FLIP,
        color_jitter=data.COLOR_JITTER,
        inverse_uniform=data.INV_UNIFORM_SAMPLE,
        area=tuple(data.TRAIN_JITTER_SCALES_RELATIVE) or None,
        aspect=tuple(data.TRAIN_JITTER_ASPECT_RELATIVE) or ASPECT,
    )


def clips_per_pass(cfg: Any, world_size: int) -> int:
    """Clips or images of one process and one accumulation step: TRAIN.BATCH_SIZE is what they sum
    to. Raises ConfigError if it cannot be shared, or if MIXUP would find one alone."""
    batch, parts = cfg.TRAIN.BATCH_SIZE, world_size * cfg.SOLVER.ACCUM_STEPS
    shares = f"{world_size} processes x {cfg.SOLVER.ACCUM_STEPS} accumulation steps"
    if batch % parts:
        raise ConfigError(f"TRAIN.BATCH_SIZE {batch} is not divisible by {shares}; it is global")
    if batch == parts and mixes(cfg):
        raise ConfigError(
            f"TRAIN.BATCH_SIZE {batch} gives each of {shares} one clip; MIXUP mixes a clip with"
            f" another: raise TRAIN.BATCH_SIZE to {2 * batch} or set MIXUP.ENABLE False"
        )
    return int(batch // parts)


def mixes(cfg: Any) -> bool:
    """Whether MIXUP mixes clips; with both shares 0 it smooths labels only."""
    mixup = cfg.MIXUP
    return bool(mixup.ENABLE and mixup.PROB and (mixup.ALPHA or mixup.CUTMIX_ALPHA))


def train_loader(cfg: Any, dataset: Dataset, procs: Processes) -> Loader:
    """Batches of `clips_per_pass`."""
    return Loader(
        dataset,
        batch_size=clips_per_pass(cfg, procs.world_size),
        num_workers=cfg.DATA_LOADER.NUM_WORKERS,
        seed=cfg.RNG_SEED,
        rank=procs.rank,
        world_size=procs.world_size,
        timeout_seconds=cfg.DATA_LOADER.TIMEOUT,
        max_bad_ratio=cfg.DATA.MAX_BAD_RATIO,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY and procs.device.type == "cuda",
    )


def validation_views(cfg: Any) -> ViewSpec:
    """One view: the center crop of the middle clip at the training size."""
    data = cfg.DATA
    return ViewSpec(
        clip_rule(cfg),
        1,
        1,
        short_side=data.TRAIN_JITTER_SCALES[0],
        crop_size=data.TRAIN_CROP_SIZE,
        center=True,
    )


def final_views(cfg: Any) -> ViewSpec:
    """NUM_ENSEMBLE_VIEWS x NUM_SPATIAL_CROPS crops of `final_short_side`."""
    test = cfg.TEST
    return ViewSpec(
        clip_rule(cfg),
        test.NUM_ENSEMBLE_VIEWS,
        test.NUM_SPATIAL_CROPS,
        short_side=final_short_side(cfg),
        crop_size=cfg.DATA.TEST_CROP_SIZE,
    )


def final_short_side(cfg: Any) -> int:
    """DATA.TEST_SHORT_SIDE; for 0 PySlowFast's choice: the crop's, for one crop the jitter's."""
    data = cfg.DATA
    one_crop = cfg.TEST.NUM_SPATIAL_CROPS == 1
    chosen = data.TRAIN_JITTER_SCALES[0] if one_crop else data.TEST_CROP_SIZE
    return int(data.TEST_SHORT_SIDE or chosen)


def preparation(cfg: Any) -> Callable[[Tensor], Tensor]:
    """uint8 (N, 3, [T,] H, W) on the device -> the network's input."""
    data = cfg.DATA

    def prepare(inputs: Tensor) -> Tensor:
        ordered = inputs.flip(1) if data.REVERSE_INPUT_CHANNEL else inputs
        return normalize(ordered, data.MEAN, data.STD)

    return prepare
