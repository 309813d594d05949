"""Data as a config asks for it: what is trained on, what is evaluated, and how pixels become a network's input."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from octvideo.checkpoint import InputSpec
from octvideo.data.clips.dataset import ClipDataset, ClipTransform
from octvideo.data.clips.views import VideoViews, ViewSpec
from octvideo.data.images.dataset import ImageDataset, image_class_names, open_images
from octvideo.data.images.transforms import PaddedCrop, RandomResizedCrop, Transform
from octvideo.data.lists.class_names import match_classes, names_beside, read_class_names
from octvideo.data.lists.video_list import VideoList, read_list
from octvideo.data.loading.loader import Dataset, Loader
from octvideo.data.remote import join
from octvideo.data.sampling import ClipRule
from octvideo.data.transforms import normalize
from octvideo.data.video.index import VideoIndex, index_path, read_index
from octvideo.engine.distributed import Processes
from octvideo.errors import ConfigError, DataError

VIDEO = "kinetics"

# Of a random resized crop, where the settings are silent: its share of the area, its width / height.
AREA, ASPECT = (0.08, 1.0), (0.75, 1.3333)


def list_path(cfg: Any, split: str) -> str:
    return join(cfg.DATA.PATH_TO_DATA_DIR, f"{split}.csv")


def final_list_path(cfg: Any) -> str:
    """test.csv, or val.csv where the data has no other test (Kinetics)."""
    path = list_path(cfg, "test")
    return path if Path(path).is_file() else list_path(cfg, "val")


def open_list(cfg: Any, path: str) -> VideoList:
    data = cfg.DATA
    return read_list(
        path,
        format="multilabel"
        if data.MULTI_LABEL and data.LIST_FORMAT == "video"
        else data.LIST_FORMAT,
        path_prefix=data.PATH_PREFIX,
        separator=data.PATH_LABEL_SEPARATOR or None,
        num_classes=cfg.MODEL.NUM_CLASSES,
        frame_template=data.FRAME_TEMPLATE,
    )


def open_labelled_list(cfg: Any, path: str) -> VideoList:
    """For training and validation. Raises DataError for a list without labels."""
    videos = open_list(cfg, path)
    if videos.format == "unlabelled":
        raise DataError(
            f"{path}: an unlabelled list can be tested, not trained or validated on; give each line a label"
        )
    return videos


def open_index(path: str) -> VideoIndex | None:
    """What tools/check_videos.py found of a list's files, where it has been run."""
    return read_index(index_path(path)) if index_path(path).is_file() else None


def class_names(cfg: Any) -> list[str]:
    """From TENSORBOARD.CLASS_NAMES_PATH, else from the data, else "class 0", ...

    The data's names are class_names.txt beside the training list, or the folders of pictures.
    """
    path, count = cfg.TENSORBOARD.CLASS_NAMES_PATH, cfg.MODEL.NUM_CLASSES
    names = (read_class_names(path) if path else _names_of_data(cfg)) or numbered_names(count)
    if len(names) != count:
        source = path or cfg.DATA.PATH_TO_DATA_DIR
        raise ConfigError(
            f"{source}: {len(names)} class names for MODEL.NUM_CLASSES {count}; make them equal"
        )
    return names


def with_counted_classes(cfg: Any) -> Any:
    """The settings, MODEL.NUM_CLASSES 0 replaced by the number of classes that the data names."""
    if cfg.MODEL.NUM_CLASSES:
        return cfg
    path = cfg.TENSORBOARD.CLASS_NAMES_PATH
    names = read_class_names(path) if path else _names_of_data(cfg)
    if not names:
        raise ConfigError(
            f"{cfg.DATA.PATH_TO_DATA_DIR or 'DATA.PATH_TO_DATA_DIR'}: no class_names.txt to count the classes in "
            "(MODEL.NUM_CLASSES is 0); make the lists with tools/make_lists.py, or set MODEL.NUM_CLASSES"
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.NUM_CLASSES = len(names)
    cfg.freeze()
    return cfg


def input_shape(cfg: Any) -> tuple[int, ...]:
    """Of a training sample: (3, T, H, W), or (3, H, W) of an image."""
    size = cfg.DATA.TRAIN_CROP_SIZE
    return (3, cfg.DATA.NUM_FRAMES, size, size) if cfg.TRAIN.DATASET == VIDEO else (3, size, size)


def _names_of_data(cfg: Any) -> list[str]:
    if cfg.TRAIN.DATASET != VIDEO:
        return list(image_class_names(cfg.DATA.PATH_TO_DATA_DIR))
    return names_beside(list_path(cfg, "train")) or []


def numbered_names(count: int) -> list[str]:
    """What classes are called that nobody has named."""
    return [f"class {label}" for label in range(count)]


def clip_rule(cfg: Any) -> ClipRule:
    data = cfg.DATA
    return ClipRule(data.NUM_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, data.SAMPLING_RULE)


def train_dataset(cfg: Any) -> Dataset:
    data = cfg.DATA
    if cfg.TRAIN.DATASET != VIDEO:
        source = open_images(data.PATH_TO_DATA_DIR, "train", cfg.MODEL.NUM_CLASSES)
        return ImageDataset(source, _image_transform(cfg), seed=cfg.RNG_SEED)
    transform = ClipTransform(
        data.TRAIN_CROP_SIZE,
        jitter_scales=tuple(data.TRAIN_JITTER_SCALES),
        flip=data.RANDOM_FLIP,
        color_jitter=data.COLOR_JITTER,
        inverse_uniform=data.INV_UNIFORM_SAMPLE,
        area=tuple(data.TRAIN_JITTER_SCALES_RELATIVE) or None,
        aspect=tuple(data.TRAIN_JITTER_ASPECT_RELATIVE) or ASPECT,
    )
    path = list_path(cfg, "train")
    return ClipDataset(
        open_labelled_list(cfg, path),
        rule=clip_rule(cfg),
        transform=transform,
        seed=cfg.RNG_SEED,
        multilabel_classes=cfg.MODEL.NUM_CLASSES if data.MULTI_LABEL else None,
        index=open_index(path),
    )


def train_loader(cfg: Any, dataset: Dataset, procs: Processes) -> Loader:
    """Batches of one process and one accumulation step: TRAIN.BATCH_SIZE is what they sum to."""
    parts = procs.world_size * cfg.SOLVER.ACCUM_STEPS
    if cfg.TRAIN.BATCH_SIZE % parts:
        raise ConfigError(
            f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} is not divisible by {procs.world_size} processes x "
            f"{cfg.SOLVER.ACCUM_STEPS} accumulation steps; it is global"
        )
    return Loader(
        dataset,
        batch_size=cfg.TRAIN.BATCH_SIZE // parts,
        num_workers=cfg.DATA_LOADER.NUM_WORKERS,
        seed=cfg.RNG_SEED,
        rank=procs.rank,
        world_size=procs.world_size,
        timeout_seconds=cfg.DATA_LOADER.TIMEOUT,
        max_bad_ratio=cfg.DATA.MAX_BAD_RATIO,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY and procs.device.type == "cuda",
    )


def validation_views(cfg: Any) -> ViewSpec:
    """One view: the middle of the middle clip at the training size."""
    data = cfg.DATA
    return ViewSpec(
        clip_rule(cfg),
        1,
        1,
        short_side=data.TRAIN_JITTER_SCALES[0],
        crop_size=data.TRAIN_CROP_SIZE,
        centre=True,
    )


def final_views(cfg: Any) -> ViewSpec:
    """NUM_ENSEMBLE_VIEWS clips x NUM_SPATIAL_CROPS crops; the short side is the crop's, of one crop the jitter's."""
    test, size = cfg.TEST, cfg.DATA.TEST_CROP_SIZE
    one_crop = test.NUM_SPATIAL_CROPS == 1
    return ViewSpec(
        clip_rule(cfg),
        test.NUM_ENSEMBLE_VIEWS,
        test.NUM_SPATIAL_CROPS,
        short_side=cfg.DATA.TRAIN_JITTER_SCALES[0] if one_crop else size,
        crop_size=size,
    )


def open_videos(
    cfg: Any, path: str, spec: ViewSpec, model_names: list[str], *, labelled: bool = False
) -> VideoViews:
    """The videos of a list for an evaluation; labels are matched by name where both sides have class names.

    labelled: refuse a list without labels, as validation must.
    """
    list_names = names_beside(path)
    matched = None
    if list_names and model_names != numbered_names(len(model_names)):
        matched = match_classes(model_names, list_names, source=path)
    return VideoViews(
        open_labelled_list(cfg, path) if labelled else open_list(cfg, path),
        spec,
        classes=matched,
        index=open_index(path),
        num_workers=cfg.DATA_LOADER.NUM_WORKERS,
        timeout_seconds=cfg.DATA_LOADER.TIMEOUT,
    )


def preparation(cfg: Any) -> Callable[[Tensor], Tensor]:
    """uint8 (N, 3, [T,] H, W) on the device -> the network's input."""
    data = cfg.DATA

    def prepare(inputs: Tensor) -> Tensor:
        ordered = inputs.flip(1) if data.REVERSE_INPUT_CHANNEL else inputs
        return normalize(ordered, data.MEAN, data.STD)

    return prepare


def input_spec(cfg: Any) -> InputSpec:
    """What a checkpoint's weights assume of their input. An image network's assume nothing of time."""
    data = cfg.DATA
    pixels = InputSpec(
        tuple(data.MEAN), tuple(data.STD), data.REVERSE_INPUT_CHANNEL, crop_size=data.TEST_CROP_SIZE
    )
    if cfg.TRAIN.DATASET != VIDEO:
        return replace(pixels, short_side=data.TRAIN_JITTER_SCALES[0])
    return replace(
        pixels,
        num_frames=data.NUM_FRAMES,
        sampling_rate=data.SAMPLING_RATE,
        sampling_rule=data.SAMPLING_RULE,
        target_fps=data.TARGET_FPS,
        short_side=data.TEST_CROP_SIZE,
    )


def _image_transform(cfg: Any) -> Transform:
    data = cfg.DATA
    size, colours = data.TRAIN_CROP_SIZE, (data.RANDOM_FLIP, data.COLOR_JITTER, data.PCA_NOISE)
    if cfg.TRAIN.DATASET == "cifar10":
        return PaddedCrop(size, 4, *colours)
    area = tuple(data.TRAIN_JITTER_SCALES_RELATIVE) or AREA
    aspect = tuple(data.TRAIN_JITTER_ASPECT_RELATIVE) or ASPECT
    return RandomResizedCrop(size, area, aspect, *colours)
