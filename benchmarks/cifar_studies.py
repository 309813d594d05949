"""What benchmarks/cifar10.py compares, and the replication's numbers beside it. A study is a sweep
of one recipe: a table of docs/results_cifar10.md."""

from dataclasses import dataclass

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # Of pixels from 0 to 1.
SOUND, PRINTED = "configs/recipes/cifar10_cosine.yaml", "configs/recipes/cifar10_90_epochs.yaml"
OCTAVE = ("0.5", "0.25", "0.125")
GRID = ("0.75", "0.5", "0.375", "0.25", "0.1875", "0.125", "0.0625")
SMALL_STEM = ("RESNET.STEM=3x3", "RESNET.STEM_POOL=none")
LARGE_STEM = ("RESNET.STEM=7x7", "RESNET.STEM_POOL=max")
# One core, one run at a time; a checkpoint every few minutes, so that a run can stop at any time.
COMMON = (
    "TENSORBOARD.ENABLE=False",
    "LOG_PERIOD=100",
    "DATA_LOADER.NUM_WORKERS=1",
    "TRAIN.KEEP_CHECKPOINTS=1",
    "TRAIN.CHECKPOINT_MINUTES=3.0",
)

SHORT = ("SOLVER.MAX_EPOCH=3", "SOLVER.WARMUP_EPOCHS=0.5")

# Top-1 of the published replication (90 epochs, rate .001, batch 64, one run) by network and alpha.
REPLICATION = {
    ("resnet20_cifar", 0.0): 85.02,
    ("resnet44_cifar", 0.0): 86.05,
    ("resnet56_cifar", 0.0): 86.56,
    ("resnet18", 0.0): 82.80,
    ("resnet34", 0.0): 82.58,
    ("resnet50", 0.0): 79.80,
    ("resnet50", 0.125): 79.82,
    ("resnet50", 0.25): 78.76,
    ("resnet50", 0.5): 76.18,
    ("resnet101", 0.0): 78.35,
    ("resnet101", 0.125): 78.86,
    ("resnet101", 0.25): 76.45,
    ("resnet101", 0.5): 73.63,
    ("resnet152", 0.0): 70.52,
    ("resnet152", 0.125): 75.35,
    ("resnet152", 0.25): 72.92,
    ("resnet152", 0.5): 67.26,
}


@dataclass(frozen=True)
class Study:
    """rows: networks by name, and their settings; the first is what the others are compared with.
    settings: of all rows. seeds: those of a whole table. where: "CPU", or "GPU" for what
    cifar10_gpu.py alone runs. upscale: pictures are shown so many times larger. keep: the weights
    too, for clips.py."""

    name: str
    recipe: str
    rows: dict[str, tuple[str, ...]]
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    where: str = "CPU"
    upscale: int = 1
    keep: bool = False


def network(arch: str, alpha: str = "0", *more: str) -> tuple[str, ...]:
    return (f"MODEL.ARCH={arch}", f"OCTCONV.ALPHA={alpha}", *more)


def family(arch: str, *more: str, alphas: tuple[str, ...] = OCTAVE) -> dict[str, tuple[str, ...]]:
    """A network and its octave forms, by their names: "Oct-ResNet-20 .5"."""
    name = f"ResNet-{arch.removeprefix('resnet').removesuffix('_cifar')}"
    return {name: network(arch, "0", *more)} | {
        f"Oct-{name} {alpha.lstrip('0')}": network(arch, alpha, *more) for alpha in alphas
    }


def deep(*stem: str) -> dict[str, tuple[str, ...]]:
    """The replication's large networks."""
    return (
        family("resnet18", *stem)
        | {"ResNet-34": network("resnet34", "0", *stem)}
        | family("resnet50", *stem)
    )


# In the form of its video network: octave in all stages, widths by int(alpha * C).
MINIATURE = ("RESNET.WIDTH_PER_GROUP=32", "OCTCONV.STAGES=[2,3,4,5]")


# The octave's pooled strides alone.
POOLED = {"ResNet-20, pooled": network("resnet20_cifar", "0", "OCTCONV.DOWNSAMPLE=pool")}


_STUDIES = (
    # What some hours of one core can finish; the others take days of it, or minutes of a GPU.
    Study("short", SOUND, family("resnet20_cifar", alphas=GRID) | POOLED, SHORT),
    Study("small", SOUND, family("resnet20_cifar") | POOLED),
    Study("depth", SOUND, family("resnet56_cifar") | {"ResNet-44": network("resnet44_cifar")}),
    # A thirtieth of the replication's epochs.
    Study(
        "printed",
        PRINTED,
        family("resnet20_cifar") | deep(*LARGE_STEM),
        ("SOLVER.MAX_EPOCH=3", "TRAIN.MIXED_PRECISION=True", "TEST.BATCH_SIZE=500"),
        seeds=(1,),
    ),
    Study(
        "stem",
        SOUND,
        {
            "ResNet-18, stem 7x7": network("resnet18", "0", *LARGE_STEM),
            "ResNet-18, stem 3x3": network("resnet18", "0", *SMALL_STEM),
            "Oct-ResNet-18 .5, stem 7x7": network("resnet18", "0.5", *LARGE_STEM),
            "Oct-ResNet-18 .5, stem 3x3": network("resnet18", "0.5", *SMALL_STEM),
        },
        seeds=(1,),
        where="GPU",
    ),
    Study(
        "deep",
        SOUND,
        deep(*LARGE_STEM) | family("resnet101", *LARGE_STEM) | family("resnet152", *LARGE_STEM),
        seeds=(1,),
        where="GPU",
    ),
    Study(
        "miniature",
        SOUND,
        {
            "ResNet-26": network("resnet26", "0", *MINIATURE),
            "ResNet-26, pooled": network("resnet26", "0", *MINIATURE, "OCTCONV.DOWNSAMPLE=pool"),
        }
        | {
            f"Oct-ResNet-26 {alpha.lstrip('0')}": network("resnet26", alpha, *MINIATURE)
            for alpha in ("0.1", "0.25", "0.5")
        },
        ("SOLVER.MAX_EPOCH=6",),
        where="GPU",
        upscale=2,
        keep=True,
    ),
)
STUDIES = {study.name: study for study in _STUDIES}
