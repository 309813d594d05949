"""What benchmarks/experiments.py compares: data sets, networks, settings. A study is a table whose
rows are those of a sweep (`octvideo.study.Sweep`)."""

from dataclasses import dataclass
from typing import NamedTuple

CONFIG = "configs/finetune/i3d.yaml"
OCTAVE = (
    "OCTCONV.DOWNSAMPLE=stride",
    "OCTCONV.SMOOTHEST_LOW=True",
)  # configs/finetune/oct_i3d.yaml
WEIGHTS = "weights/resnet50_imagenet_stride1x1.pth"

CHECKPOINT = "TRAIN.CHECKPOINT_FILE_PATH"
NETWORKS = {
    "C2D": ("MODEL.ARCH=c2d",),
    # Two frames half a frame apart are one frame twice; at the test three of them, each by itself.
    "C2D, one frame": (
        "MODEL.ARCH=c2d",
        "DATA.NUM_FRAMES=2",
        "DATA.SAMPLING_RATE=1",
        "DATA.TARGET_FPS=60",
        "TEST.NUM_ENSEMBLE_VIEWS=3",
    ),
    "I3D": ("MODEL.ARCH=i3d",),
    # With the pools that octave networks have between their stages.
    "I3D, pooled": ("MODEL.ARCH=i3d", "OCTCONV.DOWNSAMPLE=pool"),
    "I3D-NL": (
        "MODEL.ARCH=i3d",
        "NONLOCAL.LOCATION=[[[]],[[1,3]],[[1,3,5]],[[]]]",
        "NONLOCAL.INSTANTIATION=softmax",
    ),
    # 4 and 16 frames: with 32 a run takes twice as long.
    "SlowFast": (
        "MODEL.ARCH=slowfast",
        "DATA.NUM_FRAMES=16",
        "DATA.SAMPLING_RATE=4",
        "SLOWFAST.ALPHA=4",
    ),
}

CLIP = "SOLVER.CLIP_GRAD_L2NORM=1.0"

# How Oct-I3D may be brought to what I3D reaches from the same weights.
VARIANTS = {
    "": (),
    "4 x lr": ("SOLVER.BASE_LR=0.04",),
    "half the lr": ("SOLVER.BASE_LR=0.005",),
    "2 x epochs": ("SOLVER.MAX_EPOCH=12",),
    "BN statistics measured anew": ("BN.USE_PRECISE_STATS=True",),
    "BN statistics measured first": ("BN.PRECISE_STATS_AT_START=True",),
    # With frozen batch norms and gradients as they are vanilla I3D does not train either.
    "gradients clipped": (CLIP,),
    "gradients clipped, BN frozen": (CLIP, "MODEL.FROZEN_BN=True"),
    "gradients clipped, BN statistics measured first and frozen": (
        CLIP,
        "MODEL.FROZEN_BN=True",
        "BN.PRECISE_STATS_AT_START=True",
    ),
    "stem and res2 frozen": ("MODEL.FREEZE_STAGES=[1,2]",),
    "widths by int": ("OCTCONV.WIDTH_RULE=int",),
}
# How vanilla kernels are divided; "": as configs/finetune does it, the smoothest channels low, and
# strides.
DIVIDED = {
    "": (),
    "pooled": ("OCTCONV.DOWNSAMPLE=pool",),
    "as they come": ("OCTCONV.SMOOTHEST_LOW=False",),
    "as they come, pooled": ("OCTCONV.SMOOTHEST_LOW=False", "OCTCONV.DOWNSAMPLE=pool"),
}
FOLDS = 10  # of the 20 sequences: one of each of the two sets


class Row(NamedTuple):
    """start: "imagenet", the ResNet-50 of WEIGHTS inflated (and divided, for alpha > 0), or
    "scratch"."""

    network: str
    alpha: float
    start: str
    variant: str = ""
    divided: str = ""

    @property
    def label(self) -> str:
        """Oct-I3D .1"""
        return (
            f"Oct-{self.network} {self.alpha:g}".replace("0.", ".") if self.alpha else self.network
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.label, self.start, self.variant, self.divided)))

    @property
    def name(self) -> str:
        """Oct-I3D .1, imagenet"""
        return ", ".join(self.names)

    @property
    def vanilla(self) -> "Row":
        """What it is held against."""
        return self._replace(alpha=0.0, divided="")

    def settings(self, study: "Study", weights: str = "") -> tuple[str, ...]:
        """What it has beside `study.settings`. weights: the file that "imagenet" starts from."""
        octave = OCTAVE if self.alpha else ()
        start = study.scratch if self.start == "scratch" else (f"{CHECKPOINT}={weights}",)
        network = (*NETWORKS[self.network], f"OCTCONV.ALPHA={self.alpha}")
        return (*octave, *start, *network, *VARIANTS[self.variant], *DIVIDED[self.divided])


@dataclass(frozen=True)
class Study:
    """short_side: of the frames that are read. settings: of all rows; scratch: more, of those
    without image weights.

    parts: "test": train.csv and test.csv as they are. "folds": groups of recordings, each tested on
    in turn; those of folds.csv where the set has one.
        "held out": a third of the recordings of train.csv, so that settings are chosen without the test list.
    """

    name: str
    videos: str
    short_side: int
    rows: tuple[Row, ...]
    settings: tuple[str, ...]
    scratch: tuple[str, ...] = ()
    parts: str = "test"

    @property
    def all_settings(self) -> dict[str, list[str]]:
        """What tells runs of one table from those of another."""
        return {"all rows": list(self.settings), "from scratch": list(self.scratch)}


def size(crop: int, largest: int) -> tuple[str, ...]:
    """Training crops of short sides crop..largest, test crops of short side crop."""
    return (
        f"DATA.TRAIN_JITTER_SCALES=[{crop},{largest}]",
        f"DATA.TRAIN_CROP_SIZE={crop}",
        f"DATA.TEST_CROP_SIZE={crop}",
    )


# The weights' own normalization and stride; one core, one look at the test list.
COMMON = (
    "RESNET.STRIDE_1X1=True",
    "DATA.MEAN=[0.45,0.45,0.45]",
    "DATA.STD=[0.225,0.225,0.225]",
    "TRAIN.MIXED_PRECISION=True",
    "TRAIN.EVAL_PERIOD=1000",
    "TRAIN.CHECKPOINT_PERIOD=1000",
    "BN.USE_PRECISE_STATS=False",
    "BN.NUM_BATCHES_PRECISE=10",
    "DATA.LIST_FORMAT=frames",
    "DATA_LOADER.NUM_WORKERS=1",
    "TENSORBOARD.ENABLE=False",
)
UT = (
    *COMMON,
    *size(80, 96),
    "TRAIN.BATCH_SIZE=8",
    "SOLVER.WARMUP_EPOCHS=0",
    "TEST.NUM_ENSEMBLE_VIEWS=3",
    "TEST.NUM_SPATIAL_CROPS=1",
)
# Mirrored, a swipe to the left is one to the right. 8 frames with 7 between them: the whole clip of
# 60.
GESTURES = (
    *COMMON,
    *size(56, 60),
    "DATA.RANDOM_FLIP=False",
    "DATA.SAMPLING_RATE=7",
    "TRAIN.BATCH_SIZE=8",
    "TEST.NUM_ENSEMBLE_VIEWS=1",
    "TEST.NUM_SPATIAL_CROPS=3",
)
# Clips of 24 to 205 frames, 81 in the middle; shuffled and reversed frames are tested beside them.
EGO = (
    *COMMON,
    *size(80, 96),
    "DATA.RANDOM_FLIP=False",
    "DATA.SAMPLING_RATE=10",
    "TRAIN.BATCH_SIZE=8",
    "TEST.NUM_ENSEMBLE_VIEWS=1",
    "TEST.NUM_SPATIAL_CROPS=3",
    "TEST.DIAGNOSE=True",
)
# A small network: an hour of one core is what there is. SGD at .01 and .05 had learned nothing
# after 100 steps of 16.
SMALL = (
    "RESNET.DEPTH=26",
    "RESNET.WIDTH_PER_GROUP=32",
    "OCTCONV.DOWNSAMPLE=",
    "MODEL.DROPOUT_RATE=0.0",
    "SOLVER.OPTIMIZING_METHOD=adamw",
    "SOLVER.BASE_LR=0.001",
    "SOLVER.BASE_BATCH_SIZE=0",
    "SOLVER.WARMUP_EPOCHS=0",
    "SOLVER.MAX_EPOCH=12",
)

_STUDIES = (
    Study(
        "ut_interaction",
        "ut_interaction",
        112,
        (
            Row("I3D", 0.0, "imagenet"),
            Row("I3D", 0.1, "imagenet"),
            Row("C2D", 0.0, "imagenet"),
            Row("C2D", 0.1, "imagenet"),
            Row("I3D", 0.2, "imagenet"),
            Row("I3D", 0.5, "imagenet"),
            Row("I3D-NL", 0.0, "imagenet"),
            Row("I3D-NL", 0.1, "imagenet"),
            Row("I3D", 0.0, "imagenet", "2 x epochs"),
            Row("I3D", 0.1, "imagenet", "BN statistics measured first"),
            Row("I3D", 0.1, "imagenet", divided="as they come, pooled"),
            Row("I3D", 0.1, "imagenet", "BN statistics measured first", "as they come, pooled"),
            Row("I3D", 0.1, "imagenet", "2 x epochs", divided="as they come, pooled"),
            Row("I3D", 0.2, "imagenet", divided="as they come, pooled"),
            Row("I3D", 0.5, "imagenet", divided="as they come, pooled"),
            Row("C2D", 0.1, "imagenet", divided="as they come, pooled"),
            Row("I3D-NL", 0.1, "imagenet", divided="as they come, pooled"),
        ),
        (*UT, "SOLVER.MAX_EPOCH=6"),
    ),
    Study(
        "ut_interaction_folds",
        "ut_interaction",
        112,
        (Row("I3D", 0.0, "imagenet"), Row("I3D", 0.1, "imagenet")),
        (*UT, "SOLVER.MAX_EPOCH=6"),
        parts="folds",
    ),
    Study(
        "fine_tuning",
        "ut_interaction",
        112,
        (
            Row("I3D", 0.0, "imagenet"),
            *(Row("I3D", 0.1, "imagenet", divided=way) for way in DIVIDED),
            *(Row("I3D", 0.1, "imagenet", variant) for variant in list(VARIANTS)[1:]),
            *(
                Row("I3D", 0.0, "imagenet", variant)
                for variant in VARIANTS
                if CLIP in VARIANTS[variant]
            ),
        ),
        (*UT, "SOLVER.MAX_EPOCH=6"),
        parts="held out",
    ),
    Study(
        "hand_gesture",
        "hand_gesture",
        72,
        (
            Row("I3D", 0.0, "scratch"),
            Row("I3D, pooled", 0.0, "scratch"),
            Row("I3D", 0.1, "scratch"),
            Row("I3D", 0.2, "scratch"),
            Row("I3D", 0.5, "scratch"),
            Row("C2D", 0.0, "scratch"),
            Row("C2D, one frame", 0.0, "scratch"),
            Row("SlowFast", 0.0, "scratch"),
            Row("SlowFast", 0.1, "scratch"),
            Row("I3D", 0.0, "imagenet"),
            Row("I3D", 0.1, "imagenet"),
            Row("I3D", 0.2, "imagenet"),
            Row("I3D", 0.5, "imagenet"),
            Row("C2D", 0.0, "imagenet"),
            Row("SlowFast", 0.0, "imagenet"),
            Row("SlowFast", 0.1, "imagenet"),
            Row("I3D", 0.1, "imagenet", divided="pooled"),
            Row("SlowFast", 0.1, "imagenet", divided="pooled"),
        ),
        (*GESTURES, "SOLVER.WARMUP_EPOCHS=0", "SOLVER.MAX_EPOCH=4"),
        SMALL,
    ),
    Study(
        "egogestar",
        "egogestar",
        112,
        tuple(
            Row(network, alpha, start)
            for start in ("imagenet", "scratch")
            for network, alpha in (
                ("I3D", 0.0),
                ("I3D", 0.1),
                ("I3D", 0.5),
                ("C2D", 0.0),
                ("C2D, one frame", 0.0),
                ("SlowFast", 0.0),
                ("SlowFast", 0.1),
            )
        ),
        (*EGO, "SOLVER.WARMUP_EPOCHS=0", "SOLVER.MAX_EPOCH=12"),
        SMALL,
        parts="folds",
    ),
)
STUDIES = {study.name: study for study in _STUDIES}
