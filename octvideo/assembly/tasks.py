"""The differences between videos and images: their data, their input, and their evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octvideo.assembly import data as build_data
from octvideo.checkpoint import InputSpec
from octvideo.config.check import first_problem
from octvideo.data.clips.dataset import ClipDataset
from octvideo.data.clips.views import VideoViews, ViewSpec, view_batches
from octvideo.data.images.dataset import ImageDataset, image_class_names, open_images
from octvideo.data.images.transforms import CenterCrop, PaddedCrop, RandomResizedCrop, Transform
from octvideo.data.images.views import ONE_FRAME, ImageViews
from octvideo.data.lists.class_names import read_class_names
from octvideo.data.loading.loader import Dataset
from octvideo.errors import ConfigError, DataError
from octvideo.files import is_local, what_is_missing

AREA = (0.08, 1.0)
"""Share of an image that a random resized crop has, where the settings are silent."""

CALIBRATION_PAIRS = 16
DEMO = "demo_data"  # of configs/demo

Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class FinalTest:
    """One evaluation of the final test. title: "" if there is only one; source: the list or the
    folder that is evaluated."""

    title: str
    videos: VideoViews | ImageViews
    source: str


class Task(ABC):
    """The data, the training and the evaluation of a config. Made by `task_of`."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    @abstractmethod
    def input_shape(self, size: int = 0) -> tuple[int, ...]:
        """The shape of one sample, with DATA.TRAIN_CROP_SIZE or `size` as height and width."""

    @abstractmethod
    def input_spec(self) -> InputSpec:
        """The input that weights assume, with DATA.TEST_CROP_SIZE and the short side beside it."""

    @abstractmethod
    def names_of_data(self) -> list[str]:
        """The class names of the data, in label order; [] if it has none."""

    @abstractmethod
    def train_dataset(self) -> Dataset: ...

    @abstractmethod
    def validation_spec(self) -> ViewSpec:
        """The one view in which validation sees a video or an image."""

    @abstractmethod
    def validation(self) -> VideoViews | ImageViews:
        """The data on which training is validated."""

    @abstractmethod
    def final_tests(self, names: Sequence[str], source: str = "") -> Iterator[FinalTest]:
        """The evaluations of the final test. names: the model's classes. source: used in place of
        the data's own."""

    @abstractmethod
    def preparation(self) -> Prepare:
        """uint8 views (N, 3, T, H, W) of an evaluation, on the device, to the network's input."""

    @abstractmethod
    def remedy(self) -> str:
        """The way to make the data's folder, for the error if it is missing."""

    @property
    def batch_size(self) -> int:
        """Videos or images per forward pass of an evaluation."""
        return 1

    def class_names(self) -> list[str]:
        """From TENSORBOARD.CLASS_NAMES_PATH, else from the data, else "class 0", ...

        The data's names are class_names.txt beside the training list, or the folders of images.
        """
        path, count = self.cfg.TENSORBOARD.CLASS_NAMES_PATH, self.cfg.MODEL.NUM_CLASSES
        names = self.given_names() or build_data.numbered_names(count)
        if len(names) != count:
            source = path or self.cfg.DATA.PATH_TO_DATA_DIR
            raise ConfigError(
                f"{source}: {len(names)} class names for MODEL.NUM_CLASSES {count}; make them equal"
            )
        return names

    def count_classes(self) -> int:
        """The number of class names. Raises ConfigError without any."""
        names = self.given_names()
        if not names:
            folder = self.cfg.DATA.PATH_TO_DATA_DIR
            if not folder:
                raise ConfigError(
                    "DATA.PATH_TO_DATA_DIR is not set; name a folder that `octvideo lists` made"
                    " (`octvideo train FOLDER` takes class folders of videos)"
                )
            raise ConfigError(
                f"{folder}: no class_names.txt to count the classes in (MODEL.NUM_CLASSES is 0);"
                " make the lists with `octvideo lists`, or set MODEL.NUM_CLASSES"
            )
        return len(names)

    def given_names(self) -> list[str]:
        """Those of TENSORBOARD.CLASS_NAMES_PATH, else of the data; [] without any."""
        path = self.cfg.TENSORBOARD.CLASS_NAMES_PATH
        return read_class_names(path) if path else self.names_of_data()

    def tested_shape(self) -> tuple[int, ...]:
        """The shape of a view of the final test; of several, of the first, which results show."""
        return self.input_shape(self.cfg.DATA.TEST_CROP_SIZE)

    def calibration(self) -> Tensor:
        """Inputs (N, ...) of training and validation data, as the final test prepares its own."""
        raise ConfigError("TEST.PRECISION int8 is calibrated on videos; take bf16 for images")


class VideoTask(Task):
    """Videos of lists: clips to train on, clips x crops to evaluate."""

    def input_shape(self, size: int = 0) -> tuple[int, ...]:
        data = self.cfg.DATA
        side = size or data.TRAIN_CROP_SIZE
        return (3, data.NUM_FRAMES, side, side)

    def input_spec(self) -> InputSpec:
        data = self.cfg.DATA
        return replace(
            _pixels(data),
            num_frames=data.NUM_FRAMES,
            sampling_rate=data.SAMPLING_RATE,
            sampling_rule=data.SAMPLING_RULE,
            target_fps=data.TARGET_FPS,
            # A run that tests nothing may have crops that do not fit.
            short_side=max(build_data.final_short_side(self.cfg), data.TEST_CROP_SIZE),
        )

    def remedy(self) -> str:
        command = "shard LIST" if build_data.reads_shards(self.cfg) else "lists ..."
        folder = self.cfg.DATA.PATH_TO_DATA_DIR
        return f"`octvideo {command} --out {folder}` makes it from videos (--help shows how)"

    def names_of_data(self) -> list[str]:
        return build_data.names_of(self.cfg, build_data.list_path(self.cfg, "train")) or []

    def train_dataset(self) -> Dataset:
        cfg, data = self.cfg, self.cfg.DATA
        path = build_data.list_path(cfg, "train")
        return ClipDataset(
            build_data.open_labeled_list(cfg, path),
            rule=build_data.clip_rule(cfg),
            transform=build_data.clip_transform(cfg),
            seed=cfg.RNG_SEED,
            multilabel_classes=cfg.MODEL.NUM_CLASSES if data.MULTI_LABEL else None,
            backend=data.DECODER,
            index=build_data.open_index(path),
            classes=build_data.matched_classes(cfg, path, self.class_names()),
        )

    def validation_spec(self) -> ViewSpec:
        return build_data.validation_views(self.cfg)

    def validation(self) -> VideoViews:
        path = build_data.list_path(self.cfg, "val")
        return self._open(path, self.validation_spec(), self.class_names(), labeled=True)

    def final_tests(self, names: Sequence[str], source: str = "") -> Iterator[FinalTest]:
        path = source or build_data.final_list_path(self.cfg)
        yield FinalTest("", self._open(path, build_data.final_views(self.cfg), names), path)

    def preparation(self) -> Prepare:
        return build_data.preparation(self.cfg)

    def calibration(self) -> Tensor:
        """Middle clips, alternately of a training video, to set int8's ranges, and of a validation
        video, to check them.

        On clips that the network was fitted to, int8 looks better than it is.
        """
        clips = [self._middle_clips(split) for split in ("train", "val")]
        pairs = [torch.stack(pair) for pair in zip(*clips, strict=False)]
        return self.preparation()(torch.cat(pairs))

    def _middle_clips(self, split: str) -> list[Tensor]:
        """The middle clips of 16 videos spread over the list, without unreadable ones."""
        spec = replace(build_data.final_views(self.cfg), num_clips=1, num_crops=1, center=True)
        path = build_data.list_path(self.cfg, split)
        videos = self._open(path, spec, self.class_names())
        step = max(len(videos.paths) // CALIBRATION_PAIRS, 1)
        clips = [
            next(view_batches(video.frames, video.clips, spec, 1))[0]
            for video in videos.read(range(0, len(videos.paths), step)[:CALIBRATION_PAIRS])
            if not video.problem
        ]
        if not clips:
            raise ConfigError(f"{path}: TEST.PRECISION int8 found no video that can be read")
        return clips

    def _open(
        self, path: str, spec: ViewSpec, names: Sequence[str], *, labeled: bool = False
    ) -> VideoViews:
        """names: the classes of the network. labeled: refuse a list without labels."""
        cfg = self.cfg
        open_list = build_data.open_labeled_list if labeled else build_data.open_list
        videos = open_list(cfg, path)
        return VideoViews(
            videos,
            spec,
            classes=build_data.matched_classes(cfg, path, names) if videos.has_labels else None,
            backend="pyav" if cfg.DATA.DECODER == "auto" else cfg.DATA.DECODER,
            index=build_data.open_index(path),
            num_workers=cfg.DATA_LOADER.NUM_WORKERS,
            timeout_seconds=cfg.DATA_LOADER.TIMEOUT,
        )


class ImageTask(Task):
    """Folders of images: random resized crops to train on, center crops to evaluate."""

    def input_shape(self, size: int = 0) -> tuple[int, ...]:
        side = size or self.cfg.DATA.TRAIN_CROP_SIZE
        return (3, side, side)

    def tested_shape(self) -> tuple[int, ...]:
        return self.input_shape(self.cfg.TEST.IMAGE_CROP_SIZES[0])

    def input_spec(self) -> InputSpec:
        """Nothing of time; the sizes are those of validation, as tests show several crops."""
        data = self.cfg.DATA
        return replace(_pixels(data), short_side=data.TRAIN_JITTER_SCALES[0])

    def remedy(self) -> str:
        return "put train/<class>/<picture> and val/<class>/<picture> there"

    def names_of_data(self) -> list[str]:
        return list(image_class_names(self.cfg.DATA.PATH_TO_DATA_DIR))

    def train_dataset(self) -> Dataset:
        cfg = self.cfg
        folder, names = cfg.DATA.PATH_TO_DATA_DIR, self.class_names()
        source = open_images(folder, "train", cfg.MODEL.NUM_CLASSES, names)
        return ImageDataset(source, self.transform(), seed=cfg.RNG_SEED)

    def transform(self) -> Transform:
        data = self.cfg.DATA
        area = tuple(data.TRAIN_JITTER_SCALES_RELATIVE) or AREA
        aspect = tuple(data.TRAIN_JITTER_ASPECT_RELATIVE) or build_data.ASPECT
        return RandomResizedCrop(data.TRAIN_CROP_SIZE, area, aspect, *_colors(data))

    def validation_spec(self) -> ViewSpec:
        sizes = self.cfg.DATA.TRAIN_JITTER_SCALES[0], self.cfg.DATA.TEST_CROP_SIZE
        return ViewSpec(ONE_FRAME, 1, 1, *sizes, center=True)

    def validation(self) -> ImageViews:
        """DATA.TEST_CROP_SIZE in the middle of a short side of DATA.TRAIN_JITTER_SCALES[0]."""
        return self._open(self.cfg.DATA.TEST_CROP_SIZE, self.class_names())

    def final_tests(self, names: Sequence[str], source: str = "") -> Iterator[FinalTest]:
        """A center crop of each of TEST.IMAGE_CROP_SIZES."""
        folder = source or self.cfg.DATA.PATH_TO_DATA_DIR
        for size in self.cfg.TEST.IMAGE_CROP_SIZES:
            yield FinalTest(str(size), self._open(size, names, folder), folder)

    def preparation(self) -> Prepare:
        prepare = build_data.preparation(self.cfg)
        return lambda views: prepare(views.squeeze(2))

    @property
    def batch_size(self) -> int:
        return int(self.cfg.TEST.BATCH_SIZE)

    def _open(self, crop_size: int, names: Sequence[str], folder: str = "") -> ImageViews:
        """The validation images; the short side is in proportion to the crop."""
        cfg, data = self.cfg, self.cfg.DATA
        short_side = round(crop_size * data.TRAIN_JITTER_SCALES[0] / data.TEST_CROP_SIZE)
        return ImageViews(
            open_images(folder or data.PATH_TO_DATA_DIR, "val", cfg.MODEL.NUM_CLASSES, names),
            CenterCrop(crop_size, short_side=short_side),
            num_workers=cfg.DATA_LOADER.NUM_WORKERS,
            timeout_seconds=cfg.DATA_LOADER.TIMEOUT,
        )


class Cifar10Task(ImageTask):
    """CIFAR-10's batches: padded crops to train on."""

    def remedy(self) -> str:
        return "put data_batch_1 ... data_batch_5 and test_batch of CIFAR-10 (python) there"

    def transform(self) -> Transform:
        return PaddedCrop(self.cfg.DATA.TRAIN_CROP_SIZE, 4, *_colors(self.cfg.DATA))


TASKS: dict[str, type[Task]] = {"video": VideoTask, "imagenet": ImageTask, "cifar10": Cifar10Task}


def task_of(cfg: Any) -> Task:
    """The task that TRAIN.DATASET names."""
    return TASKS[cfg.TRAIN.DATASET](cfg)


def require_data_folder(cfg: Any) -> None:
    """Raise DataError if DATA.PATH_TO_DATA_DIR is a local folder that does not exist."""
    folder = cfg.DATA.PATH_TO_DATA_DIR
    if folder and is_local(folder) and not Path(folder).is_dir():
        what = "is no folder" if Path(folder).exists() else what_is_missing(folder, "folder")
        remedy = "`octvideo demo-data` writes it" if folder == DEMO else task_of(cfg).remedy()
        raise DataError(f"{folder}: {what}; {remedy}, or set DATA.PATH_TO_DATA_DIR")


def with_counted_classes(cfg: Any, known: object = None) -> Any:
    """The settings with a MODEL.NUM_CLASSES of 0 replaced by `known`, which weights say, else by
    the number of the data's classes. Raises ConfigError where it contradicts another setting."""
    if cfg.MODEL.NUM_CLASSES:
        return cfg
    count, cfg = known if isinstance(known, int) else task_of(cfg).count_classes(), cfg.clone()
    cfg.defrost()
    cfg.MODEL.NUM_CLASSES = count
    cfg.freeze()
    if problem := first_problem(cfg):
        raise ConfigError(problem)
    return cfg


def _pixels(data: Any) -> InputSpec:
    return InputSpec(
        tuple(data.MEAN), tuple(data.STD), data.REVERSE_INPUT_CHANNEL, crop_size=data.TEST_CROP_SIZE
    )


def _colors(data: Any) -> tuple[bool, float, float]:
    return data.RANDOM_FLIP, data.COLOR_JITTER, data.PCA_NOISE
