"""What a config becomes: networks, schedules, frozen parts, the recipe line."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from forked import forked_ranks
from PIL import Image
from torch import nn

import octvideo.checkpoint
from octvideo.assembly import (
    build_model,
    build_trainer,
    dry_run,
    final_test,
    ranks,
    train,
    validator,
)
from octvideo.assembly import data as build_data
from octvideo.assembly import recipe as build_recipe
from octvideo.assembly.dry_run import GeneratedSamples, GeneratedVideos, say_what_is_there
from octvideo.assembly.model import name_settings, network_settings
from octvideo.assembly.tasks import task_of, with_counted_classes
from octvideo.assembly.weights import frozen_parts
from octvideo.checkpoint import Checkpoint
from octvideo.complexity import count
from octvideo.config import config_from_text, load_config
from octvideo.engine.distributed import Processes
from octvideo.errors import CheckpointError, ConfigError
from octvideo.layers import OctConv3d
from octvideo.models import create_model
from octvideo.models.registry import MODELS, resolved
from octvideo.report.known_problems import Installation

CONFIGS = Path(__file__).parents[2] / "configs"
EVERY_CONFIG = [  # the deepest have layers by the hundred: slow at any width
    pytest.param(
        path, id=name, marks=[pytest.mark.slow] if re.search("resnet(101|152)", name) else []
    )
    for path in sorted(CONFIGS.glob("*/*.yaml"))
    if (name := f"{path.parent.name}/{path.stem}") and path.parent.name != "recipes"
]
KINETICS = CONFIGS / "kinetics400"
NARROW = """
    RESNET.WIDTH_PER_GROUP=8 MODEL.NUM_CLASSES=4 DATA.NUM_FRAMES=8 DATA.TRAIN_CROP_SIZE=32 DATA.TEST_CROP_SIZE=32
    DATA.TRAIN_JITTER_SCALES=[32,32] DATA_LOADER.NUM_WORKERS=0 TENSORBOARD.ENABLE=false
""".split()  # noqa: SIM905 - as on a command line
IMAGES = """
TRAIN: {DATASET: imagenet, BATCH_SIZE: 2, EVAL_PERIOD: 1}
TEST: {DATASET: imagenet, BATCH_SIZE: 3, IMAGE_CROP_SIZES: [32, 48]}
DATA: {TRAIN_JITTER_SCALES: [36, 36], TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32, COLOR_JITTER: 0.4, PCA_NOISE: 0.1}
MODEL: {ARCH: resnet20_cifar, NUM_CLASSES: 2, DROPOUT_RATE: 0}
OCTCONV: {ALPHA: 0.25}
SOLVER: {MAX_EPOCH: 1, BASE_LR: 0.01}
DATA_LOADER: {NUM_WORKERS: 0}
TENSORBOARD: {ENABLE: false}
"""


pytestmark = pytest.mark.usefixtures("one_thread_per_run")


def tiny(*settings):
    return load_config(str(KINETICS / "i3d.yaml"), [*NARROW, "RESNET.DEPTH=26", *settings])


def trainer(cfg, num_samples=4):
    samples = GeneratedSamples((3, 8, 32, 32), 4, num_samples)
    procs = Processes()
    return build_trainer(cfg, procs, build_data.train_loader(cfg, samples, procs), None)


def meta_model(cfg):
    with torch.device("meta"):
        return build_model(cfg)


# --- Networks


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["OCTCONV.ALPHA=0.5"], {"alpha": 0.5, "stages": None, "width_rule": None}),
        (
            ["OCTCONV.STAGES=[2,3,4]", "OCTCONV.WIDTH_RULE=int"],
            {"stages": [2, 3, 4], "width_rule": "int"},
        ),
        (["OCTCONV.DOWNSAMPLE=pool"], {"downsample": "pool"}),
        (
            ["RESNET.STRIDE_1X1=true", "RESNET.STEM_POOL_PADDING=0"],
            {"stride_1x1": True, "stem_pool_padding": 0},
        ),
        (["NONLOCAL.LOCATION=[[[]],[[1]],[[]],[[]]]"], {"nonlocal_location": [[], [1], [], []]}),
        (
            ["RESNET.NUM_BLOCK_TEMP_KERNEL=[[1],[1],[1],[1]]"],
            {"num_block_temp_kernel": [1, 1, 1, 1]},
        ),
        (["MODEL.ARCH=slowfast", "SLOWFAST.ALPHA=4"], {"name": "slowfast_r26", "speed_ratio": 4}),
    ],
)
def test_a_setting_reaches_the_network(settings, expected):
    config = meta_model(tiny(*settings)).config

    assert {name: config[name] for name in expected} == expected


def test_an_option_of_its_own_is_checked_as_a_setting_is():
    with pytest.raises(
        ConfigError, match=r"crop_size is 200\.0; it is a whole number of at least 1"
    ):
        meta_model(tiny('MODEL.OPTIONS=["crop_size=2e2"]'))


@pytest.mark.parametrize("saving", [True, False])
def test_every_octave_convolution_is_told_to_save_memory(saving):
    model = meta_model(tiny("OCTCONV.ALPHA=0.5", f"OCTCONV.MEMORY_SAVING={saving}"))

    assert {
        module.memory_saving for module in model.modules() if isinstance(module, OctConv3d)
    } == {saving}


def test_an_image_network_goes_by_its_name():
    cfg = load_config(
        str(KINETICS / "i3d.yaml"),
        [
            "TRAIN.DATASET=imagenet",
            "TEST.DATASET=imagenet",
            "MODEL.ARCH=resnet18",
            "OCTCONV.ALPHA=0.25",
        ],
    )

    assert meta_model(cfg)(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 400)


# --- Training


def test_frozen_stages_neither_train_nor_count_statistics():
    built = trainer(tiny("MODEL.FREEZE_STAGES=[1,2]", "TRAIN.BATCH_SIZE=2"))

    assert not any(p.requires_grad for p in built.model.stem.parameters())
    assert not any(p.requires_grad for p in built.model.res2.parameters())
    assert all(p.requires_grad for p in built.model.res3.parameters())
    assert built.model.stem in built.frozen


@pytest.mark.parametrize(
    ("arch", "stages", "message"),
    [
        ("densenet121", [1, 2], r"densenet121 has no part 'res2': freeze some of \[1\]"),
        ("resnet20_cifar", [5], r"has no part 'res5': freeze some of \[1, 2, 3, 4\]"),
        ("ptv:x3d_xs", [1], "ptv:x3d_xs has no part 'stem': leave it out"),
    ],
)
def test_a_stage_that_the_network_does_not_have_is_not_frozen_in_silence(arch, stages, message):
    cfg = tiny("MODEL.FREEZE_STAGES=" + str(stages)).clone()
    cfg.defrost()
    cfg.MODEL.ARCH = arch
    with torch.device("meta"):
        model = create_model(arch)

    with pytest.raises(ConfigError, match=message):
        frozen_parts(cfg, model)


def test_frozen_stages_are_those_of_both_pathways():
    cfg = tiny("MODEL.ARCH=slowfast", "MODEL.FREEZE_STAGES=[1,3]")

    parts = frozen_parts(cfg, meta_model(cfg))

    assert parts == ["slow.stem", "slow.res3", "fast.stem", "fast.res3"]


def test_an_option_without_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"'bn_eps='; an option of i3d_r26 is NAME=VALUE"):
        meta_model(tiny('MODEL.OPTIONS=["bn_eps="]'))


def test_an_option_may_be_a_number_with_an_exponent():
    images = {section: {"DATASET": "imagenet"} for section in ("TRAIN", "TEST")}
    model = {"MODEL": {"ARCH": "mobilenet_v2", "OPTIONS": ["bn_eps=1e-3"]}}

    cfg = config_from_text(yaml.safe_dump(images | model), "of images")

    assert meta_model(cfg).config["bn_eps"] == 1e-3


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("name=x", "'name=x'; set MODEL.ARCH instead"),
        ("memory_saving=true", "set OCTCONV.MEMORY_SAVING instead"),
        ("num_classes=5", "set MODEL.NUM_CLASSES instead"),
        (" alpha =0.5", "set OCTCONV.ALPHA instead"),
        ("octavize={alpha: 0.25}", "i3d_r26 has no such option"),
        ("crop_sise=32", "i3d_r26 has no such option; did you mean crop_size"),
    ],
)
def test_an_option_that_a_setting_decides_or_that_there_is_not_is_refused(entry, says):
    with pytest.raises(ConfigError, match=says):
        meta_model(tiny(f"MODEL.OPTIONS=['{entry}']"))


def test_an_option_may_differ_from_a_setting_of_the_clips():
    assert meta_model(tiny('MODEL.OPTIONS=["crop_size=64"]')).config["crop_size"] == 64


def test_names_of_networks_are_settings():
    assert name_settings("slowfast_r101") == {
        "MODEL": {"ARCH": "slowfast"},
        "RESNET": {"DEPTH": 101},
    }
    assert name_settings("x3d_m") == {"MODEL": {"ARCH": "ptv:x3d_m"}}


NONLOCAL = {"nonlocal_location": [[], [0], [1], []], "nonlocal_pool": (1, 1, 1)}
FAST = {"num_block_temp_kernel_fast": (1, 2, 3, 1), "nonlocal_location_fast": [[], [0], [], []]}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("i3d_r26", {"alpha": 0.25, "width_per_group": 16, "crop_size": 32, "num_classes": 7}),
        ("i3d_r101", {"stem_strides_t": (2, 2), "downsample": "pool", "fc_init_std": 1e-5}),
        ("c2d_nopool_r50", {"num_block_temp_kernel": (1, 0, 2, 1), "stages": (2, 3, 4)}),
        ("i3d_nln_r50", {}),
        ("i3d_nln_r50", NONLOCAL),
        ("slowfast_r26", {"speed_ratio": 4, "slow_frames": "every"}),
        ("slowfast_r50", NONLOCAL | FAST),
        ("slowfast_r50", FAST),
        ("ptv:csn_r101", {"num_frames": None, "builder_options": {"stem_dim_out": 16}}),
        ("preact_resnet50", {"alpha": 0.5, "width_per_group": 16}),
        ("mobilenet_v2", {"width": 0.75}),
    ],
)
def test_a_network_has_settings_that_build_it_again(name, options):
    with torch.device("meta"):
        network = create_model(name, **options).config
    of_images = {"TRAIN": {"DATASET": "imagenet"}, "TEST": {"DATASET": "imagenet"}}
    data = {} if MODELS[name].takes_clips else of_images

    cfg = config_from_text(yaml.safe_dump(network_settings(network) | data), "of a network")

    built = meta_model(cfg).config
    silent = {"nonlocal_location": [[]] * 4, "nonlocal_location_fast": [[]] * 4}
    said = {key: silent.get(key) if value is None else value for key, value in network.items()}
    assert built == said


def test_batch_norm_has_no_weight_decay():
    built = trainer(tiny("TRAIN.BATCH_SIZE=2"))

    decays = {
        id(p): group["weight_decay"]
        for group in built.step.optimizer.param_groups
        for p in group["params"]
    }
    for module in built.model.modules():
        if isinstance(module, nn.BatchNorm3d):
            assert decays[id(module.weight)] == decays[id(module.bias)] == 0
        elif isinstance(module, nn.Conv3d):
            assert decays[id(module.weight)] == 1e-4


def test_a_batch_is_shared_by_processes_and_accumulation_steps():
    cfg = tiny("TRAIN.BATCH_SIZE=12", "SOLVER.ACCUM_STEPS=3")
    loader = build_data.train_loader(
        cfg, GeneratedSamples((3, 8, 32, 32), 4, 24), Processes(rank=1, world_size=2)
    )

    assert loader.batch_size == 2
    with pytest.raises(ConfigError, match="not divisible by 8 processes x 3 accumulation steps"):
        build_data.train_loader(
            cfg, GeneratedSamples((3, 8, 32, 32), 4, 24), Processes(world_size=8)
        )


@pytest.mark.parametrize(
    ("settings", "world_size"),
    [(["TRAIN.BATCH_SIZE=1"], 1), (["TRAIN.BATCH_SIZE=4", "SOLVER.ACCUM_STEPS=2"], 2)],
)
def test_mixup_of_one_clip_at_a_time_is_refused(settings, world_size):
    samples, procs = GeneratedSamples((3, 8, 32, 32), 4, 24), Processes(world_size=world_size)
    cfg = tiny("MIXUP.ENABLE=true", *settings)

    with pytest.raises(ConfigError, match=r"one clip; MIXUP mixes a clip with another: raise"):
        build_data.train_loader(cfg, samples, procs)
    smoothed = tiny("MIXUP.ENABLE=true", "MIXUP.ALPHA=0", "MIXUP.CUTMIX_ALPHA=0", *settings)
    assert build_data.train_loader(smoothed, samples, procs).batch_size == 1


def test_a_dry_run_does_not_hide_a_batch_that_training_refuses():
    cfg = tiny("MIXUP.ENABLE=true", "TRAIN.BATCH_SIZE=1")

    with pytest.raises(ConfigError, match="MIXUP mixes a clip with another"):
        dry_run(cfg, Processes())


def test_a_checkpoint_says_what_its_weights_assume():
    meta = trainer(tiny("TRAIN.BATCH_SIZE=2")).snapshots.about.contents()["meta"]

    assert meta["model"]["name"] == "i3d_r26"
    assert meta["class_names"] == ["class 0", "class 1", "class 2", "class 3"]
    assert meta["preprocessing"]["mean"] == [0.45, 0.45, 0.45]
    assert meta["preprocessing"]["num_frames"] == 8
    assert json.dumps(meta)


@pytest.mark.usefixtures("_determinism_as_before")
def test_deterministic_runs_are_the_same_to_the_bit(tmp_path):
    def metrics_of(name):
        settings = [
            "TRAIN.BATCH_SIZE=2",
            "OCTCONV.ALPHA=0.5",
            "SOLVER.MAX_EPOCH=1",
            "SOLVER.WARMUP_EPOCHS=0",
        ]
        cfg = tiny(
            *settings,
            "TRAIN.DETERMINISTIC=true",
            "BN.NUM_BATCHES_PRECISE=1",
            f"OUTPUT_DIR={tmp_path / name}",
        )
        trainer(cfg).train()
        assert torch.are_deterministic_algorithms_enabled()
        return (tmp_path / name / "metrics.jsonl").read_bytes()

    assert metrics_of("one") == metrics_of("other")


def test_validation_counts_errors_over_one_view_of_each_video():
    cfg = tiny()
    videos = GeneratedVideos(build_data.validation_views(cfg), num_classes=4, num_videos=2)
    model = build_model(cfg).eval()
    model.window_scores = lambda x, act: torch.eye(4)[torch.zeros(len(x), dtype=torch.int64)]

    errors = validator(cfg, videos, Processes())(model)

    assert (errors["top1_err"], errors["top5_err"]) == (50.0, 0.0)
    assert errors["loss"] > 40  # the wrong one was certain


def test_a_validation_says_which_videos_it_could_not_read(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    cfg = tiny()
    videos = GeneratedVideos(build_data.validation_views(cfg), num_classes=4, num_videos=2)
    one, other = videos.read([0, 1])
    videos.read = lambda _: [one, replace(other, problem="No such file")]

    validator(cfg, videos, Processes())(build_model(cfg).eval())

    assert (
        "validation: 1 of 2 videos cannot be read, the first generated video 1 (No such file"
        in (caplog.text)
    )


# --- Schedules and recipes


def test_a_cosine_counts_epochs_and_warms_up():
    schedule = build_recipe.build_schedule(
        load_config(str(KINETICS / "i3d.yaml")), steps_per_epoch=100
    )

    assert schedule.lr(0) == pytest.approx(0.01)
    assert schedule.lr(98) == pytest.approx(0.05)
    assert schedule.lr(196) == pytest.approx(0.0)


def test_an_iteration_schedule_steps_where_the_paper_does():
    cfg = load_config(str(KINETICS / "i3d_in1k.yaml"))

    schedule = build_recipe.build_schedule(cfg, steps_per_epoch=3666)

    assert schedule.per_iteration
    places = (0, 149_999, 150_000, 250_000, 299_999)
    assert [schedule.lr(i) for i in places] == pytest.approx([0.01, 0.01, 0.001, 0.0001, 0.0001])


def test_a_warmup_beyond_the_last_iteration_is_refused():
    cfg = tiny("SOLVER.MAX_ITER=99", "SOLVER.WARMUP_EPOCHS=10")

    assert build_recipe.build_schedule(cfg, steps_per_epoch=9).warmup == 90
    with pytest.raises(
        ConfigError, match=r"is 10, 100 iterations of this data, beyond SOLVER\.MAX_"
    ):
        build_recipe.build_schedule(cfg, steps_per_epoch=10)


def test_the_rate_follows_the_batch_where_a_base_batch_is_given():
    cfg = tiny("TRAIN.BATCH_SIZE=16", "SOLVER.BASE_BATCH_SIZE=64")

    assert build_recipe.effective_lr(cfg) == pytest.approx(0.025)
    line = build_recipe.describe_recipe(cfg, steps_per_epoch=10, world_size=2)
    assert "batch 16 (2 processes x 8), lr 0.025 (0.1 scaled from batch 64) cosine" in line
    assert "196 epochs x 10 iterations (1960), warm-up 34 epochs from 0.0025" in line


@pytest.mark.parametrize(
    ("steps", "rates", "says"),
    [
        (
            [0, 94, 154, 196],
            [1, 0.1, 0.01, 0.001, 1e-4],
            "(never reached: [0.001, 0.0001] of SOLVER",
        ),
        ([0, 94], [1, 0.1], "steps_with_relative_lrs, 196 epochs"),
    ],
)
def test_rates_beyond_the_last_step_are_said(steps, rates, says):
    settings = [f"SOLVER.STEPS={steps}", f"SOLVER.LRS={rates}"]
    cfg = tiny("SOLVER.LR_POLICY=steps_with_relative_lrs", *settings)

    line = build_recipe.describe_recipe(cfg, steps_per_epoch=10, world_size=1)

    assert says in line
    assert "never reached" not in build_recipe.describe_recipe(tiny(*settings), 10, 1)


def test_the_last_rate_follows_the_batch_too():
    rates = ["TRAIN.BATCH_SIZE=4", "SOLVER.BASE_BATCH_SIZE=64", "SOLVER.COSINE_END_LR=0.01"]

    schedule = build_recipe.build_schedule(tiny(*rates), steps_per_epoch=10)

    assert schedule.lr(schedule.length) == pytest.approx(0.01 / 16)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], ""),
        (
            ["TRAIN.BATCH_SIZE=16"],
            "TRAIN.BATCH_SIZE 16 instead of 64; SOLVER.BASE_BATCH_SIZE 64 scales the rate",
        ),
        (["TRAIN.BATCH_SIZE=16", "SOLVER.BASE_BATCH_SIZE=64"], ""),
        (["SOLVER.MAX_EPOCH=100"], "not the published recipe: SOLVER.MAX_EPOCH 100 instead of 196"),
        (["MODEL.NUM_CLASSES=6", "SOLVER.MAX_EPOCH=100"], ""),
    ],
)
def test_a_run_that_leaves_the_published_recipe_says_where(settings, expected):
    warning = build_recipe.recipe_warning(load_config(str(KINETICS / "i3d.yaml"), settings))

    assert expected in warning
    assert bool(warning) == bool(expected)


CPU_OF_AVX2 = Installation((2, 9, 0), (9, 10, 2), frozenset({"avx2"}))
CPU_OF_AMX = Installation((2, 13, 0), None, frozenset({"amx_bf16"}))


@pytest.mark.parametrize(
    ("settings", "device", "here", "said"),
    [
        ([], "cpu", CPU_OF_AVX2, []),
        (["TRAIN.MIXED_PRECISION=true"], "cpu", CPU_OF_AMX, []),
        (["TRAIN.MIXED_PRECISION=true"], "cpu", CPU_OF_AVX2, ["this CPU has neither AMX nor"]),
        (
            ["TRAIN.MIXED_PRECISION=true", "TRAIN.AMP_DTYPE=float16"],
            "cpu",
            CPU_OF_AVX2,
            ["float16"],
        ),
        (["TRAIN.MIXED_PRECISION=true"], "cuda", CPU_OF_AVX2, ["leave cuDNN out"]),
        (["TRAIN.MIXED_PRECISION=true", "MODEL.COMPUTE_IN_2D=true"], "cuda", CPU_OF_AVX2, []),
    ],
)
def test_half_precision_that_is_slow_here_is_told_with_what_to_set(
    monkeypatch, settings, device, here, said
):
    monkeypatch.setattr(Installation, "here", lambda: here)

    found = build_recipe.precision_warnings(tiny(*settings), torch.device(device))

    assert len(found) == len(said)
    assert all(words in line for words, line in zip(said, found, strict=True))


def test_training_that_starts_in_slow_half_precision_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(Installation, "here", lambda: CPU_OF_AVX2)

    trainer(tiny("TRAIN.MIXED_PRECISION=true", "TRAIN.BATCH_SIZE=2"))

    (line,) = [m for m in caplog.messages if "TRAIN.MIXED_PRECISION is True (bfloat16)" in m]
    assert "leave TRAIN.MIXED_PRECISION false" in line


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ["SOLVER.MAX_EPOCH=100", "TRAIN.EMA_DECAY=0.999"],
            "is still 37% the weights at the start; 0.995405 leaves 1% of",
        ),
        (["SOLVER.MAX_ITER=90000", "TRAIN.EMA_DECAY=0.9999"], ""),
        (["SOLVER.MAX_EPOCH=100", "TRAIN.EMA_DECAY=0.99"], ""),
        ([], ""),
    ],
)
def test_an_average_that_keeps_the_weights_at_the_start_is_warned_of(settings, expected):
    cfg = load_config("kinetics400/i3d", settings)

    warning = build_recipe.average_warning(cfg, 10)

    assert expected in warning
    assert bool(warning) == bool(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ["SOLVER.WARMUP_EPOCHS=2"],
            "WARMUP_START_LR 0.01 is above SOLVER.BASE_LR 0.001: the rate falls during the warm-up",
        ),
        (["SOLVER.WARMUP_EPOCHS=2", "SOLVER.WARMUP_START_LR=0.001"], ""),
        (["SOLVER.WARMUP_EPOCHS=0"], ""),
        (
            ["SOLVER.WARMUP_EPOCHS=0", "SOLVER.COSINE_END_LR=0.1"],
            "COSINE_END_LR 0.1 is above SOLVER.BASE_LR 0.001: the rate rises to the end",
        ),
    ],
)
def test_a_rate_that_goes_the_wrong_way_is_warned_of(settings, expected):
    cfg = load_config("kinetics400/i3d", ["SOLVER.BASE_LR=0.001", *settings])

    warning = build_recipe.schedule_warning(cfg)

    assert expected in warning
    assert bool(warning) == bool(expected)


# --- Dry runs


@pytest.mark.parametrize("file", EVERY_CONFIG)
def test_every_config_dry_runs_on_a_narrow_network(file, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no `make demo` has left its clips
    dry_run(load_config(str(file), NARROW), Processes())

    assert "two training and two evaluation steps went through" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    [
        ["DATA.MULTI_LABEL=true", "MODEL.LOSS_FUNC=bce_logit"],
        ["MIXUP.ENABLE=true", "MIXUP.LABEL_SMOOTH_VALUE=0.1", "MODEL.CLASS_WEIGHTS=[1,1,2,2]"],
        ["MODEL.FROZEN_BN=true", "MODEL.ACT_CHECKPOINT=true", "BN.USE_PRECISE_STATS=false"],
        ["TRAIN.MIXED_PRECISION=true", "TRAIN.EMA_DECAY=0.9", "SOLVER.CLIP_GRAD_L2NORM=1"],
        [
            "SOLVER.OPTIMIZING_METHOD=adamw",
            "TRAIN.CHANNELS_LAST=false",
            "DATA.REVERSE_INPUT_CHANNEL=true",
        ],
        ["OCTCONV.MEMORY_SAVING=true", "BN.NORM_TYPE=sync_batchnorm", "SOLVER.ACCUM_STEPS=2"],
    ],
    ids=["multi-label", "mixup", "frozen", "amp", "adamw", "memory-saving"],
)
def test_every_way_to_train_dry_runs(settings, capsys):
    dry_run(tiny("OCTCONV.ALPHA=0.5", *settings), Processes())

    assert "two training and two evaluation steps went through" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_line_says_that_a_compiled_network_saves_no_memory_of_ours(caplog):
    saving = ["OCTCONV.ALPHA=0.5", "OCTCONV.MEMORY_SAVING=true", "TRAIN.BATCH_SIZE=2"]
    trainer(tiny(*saving))
    assert not any("MEMORY_SAVING" in m for m in caplog.messages)

    trainer(tiny(*saving, "TRAIN.COMPILE=true"))

    assert any("MEMORY_SAVING changes nothing with TRAIN.COMPILE" in m for m in caplog.messages)


@pytest.mark.parametrize("file", ["class_names.txt", "given.txt"])
def test_a_dry_run_counts_the_classes_where_they_have_names(file, tmp_path, capsys):
    (tmp_path / file).write_text("cut\npour\nstir\n")
    settings = [
        "MODEL.NUM_CLASSES=0",
        f"DATA.PATH_TO_DATA_DIR={tmp_path}",
        *([f"TENSORBOARD.CLASS_NAMES_PATH={tmp_path / file}"] if file == "given.txt" else []),
    ]

    dry_run(tiny(*settings), Processes())

    assert "two training and two evaluation steps went through" in capsys.readouterr().out


def test_class_weights_are_compared_with_the_classes_that_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("octvideo.assembly.tasks.VideoTask.count_classes", lambda self: 3)
    weighted = "MODEL.CLASS_WEIGHTS=[1,2,2]"

    assert with_counted_classes(tiny("MODEL.NUM_CLASSES=0", weighted)).MODEL.NUM_CLASSES == 3
    with pytest.raises(ConfigError, match=r"CLASS_WEIGHTS has 2 .* MODEL.NUM_CLASSES 3"):
        with_counted_classes(tiny("MODEL.NUM_CLASSES=0", "MODEL.CLASS_WEIGHTS=[1,2]"))


def test_a_dry_run_takes_as_many_classes_as_weights_or_refuses_them(tmp_path, capsys):
    settings = [
        "MODEL.NUM_CLASSES=0",
        "MODEL.CLASS_WEIGHTS=[1,2,2]",
        f"DATA.PATH_TO_DATA_DIR={tmp_path}",
    ]
    dry_run(tiny(*settings), Processes())
    assert "evaluation steps went through" in capsys.readouterr().out

    (tmp_path / "class_names.txt").write_text("cut\npour\n")
    with pytest.raises(ConfigError, match="CLASS_WEIGHTS has 3 entries"):
        dry_run(tiny(*settings), Processes())


def test_a_dry_run_without_class_names_takes_two_classes(tmp_path, capsys):
    dry_run(tiny("MODEL.NUM_CLASSES=0", f"DATA.PATH_TO_DATA_DIR={tmp_path}"), Processes())

    assert "two training and two evaluation steps went through" in capsys.readouterr().out


def a_checkpoint(folder, **training):
    """The path of one of `tiny()`."""
    path = folder / "checkpoints" / "checkpoint_epoch_00001.pyth"
    path.parent.mkdir()
    known = {"class_names": ("a", "b", "c", "d"), "recipe": tiny().dump(), "training": training}
    Checkpoint(state={"weight": torch.zeros(1)}, **known).write(str(path))
    return path


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["SOLVER.BASE_LR=0.5"], "resume from {}, with SOLVER.BASE_LR 0.5 instead of 0.1\n"),
        (["MODEL.NUM_CLASSES=0"], "resume from {}\n"),
    ],
)
def test_a_dry_run_says_that_a_training_would_resume(settings, said, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    caplog.set_level("INFO", "octvideo")
    path = a_checkpoint(tmp_path, progress={}, data={"fingerprint": "ab", "samples": 1})

    say_what_is_there(tiny(f"OUTPUT_DIR={tmp_path}", *settings))

    assert f"{caplog.messages[-1]}\n".startswith(f"the training would {said.format(path)}")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("OCTCONV.ALPHA=0.5", "{}: of another run (OCTCONV.ALPHA 0.5 instead of 0.0)"),
        ("TRAIN.AUTO_RESUME=false", "{} is in the way"),
    ],
)
def test_a_dry_run_refuses_the_checkpoints_that_a_training_would_refuse(settings, said, tmp_path):
    path = a_checkpoint(tmp_path, progress={}, data={"fingerprint": "ab", "samples": 1})

    with pytest.raises(CheckpointError) as refusal:
        say_what_is_there(tiny(f"OUTPUT_DIR={tmp_path}", settings))

    assert str(refusal.value).startswith(f"the training would be refused: {said.format(path)}")


def test_a_dry_run_beside_the_weights_of_another_program_tries_its_steps_and_refuses(
    tmp_path, capsys
):
    path = a_checkpoint(tmp_path)

    said = f"the training would be refused: {path}: of another program's training"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        dry_run(tiny(f"OUTPUT_DIR={tmp_path}"), Processes())

    assert "two training and two evaluation steps went through" in capsys.readouterr().out


def dry_run_of_a_rank():
    cfg = tiny()
    with ranks(cfg) as procs:
        dry_run(cfg, procs)


def test_two_ranks_dry_run_in_one_folder_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    both = forked_ranks(2, dry_run_of_a_rank, outputs=tmp_path / "said")

    said = [rank.communicate() for rank in both]
    assert [rank.returncode for rank in both] == [0, 0], said
    assert "two training and two evaluation steps went through" in said[0]
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
def test_a_network_of_full_width_and_depth_dry_runs_on_a_cpu(capsys):
    quarter = ["DATA.TRAIN_CROP_SIZE=112", "DATA.TEST_CROP_SIZE=128"]

    dry_run(load_config(str(KINETICS / "oct_i3d.yaml"), quarter), Processes())

    assert "two training and two evaluation steps went through" in capsys.readouterr().out


@pytest.fixture
def image_config(tmp_path):
    """Two classes of two 40 x 36 images each, to train and to validate on."""
    for split in ("train", "val"):
        for i, name in enumerate(("cat", "dog")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for k in range(2):
                Image.new("RGB", (40, 36), (90 * i, 40 * k, 7)).save(folder / f"{k}.png")
    (tmp_path / "mine.yaml").write_text(IMAGES + f"OUTPUT_DIR: {tmp_path / 'run'}\n")
    return load_config(str(tmp_path / "mine.yaml"), [f"DATA.PATH_TO_DATA_DIR={tmp_path / 'data'}"])


def test_an_image_network_trains_and_tests_in_the_same_engine(image_config, tmp_path, monkeypatch):
    dry_run(image_config, Processes())
    assert train(image_config, Processes())
    reads: list[str] = []
    read = octvideo.checkpoint.read_torch_file
    monkeypatch.setattr(
        "octvideo.checkpoint.read_torch_file", lambda path: reads.append(path) or read(path)
    )

    summary = final_test(image_config, Processes())

    assert len(reads) == 1
    assert summary["crop_sizes"].keys() == {"32", "48"}
    assert summary["top1_acc"] == summary["crop_sizes"]["32"]["top1_acc"]
    assert isinstance(summary["top1_acc"], float)
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == summary
    assert (tmp_path / "run" / "report.html").is_file()
    assert summary["class_names"] == ["cat", "dog"]


def test_an_image_checkpoint_says_the_view_by_which_it_was_chosen(image_config):
    task = task_of(image_config)

    seen = task.input_spec()

    assert (seen.short_side, seen.crop_size) == (36, 32)
    assert task.validation().spec == task.validation_spec()
    assert task.validation_spec().short_side == seen.short_side
    assert task.validation_spec().crop_size == seen.crop_size


def test_what_an_image_file_says_of_its_blocks_is_no_contradiction_to_settings_that_leave_it_open(
    image_config,
):
    model = build_model(image_config)
    described = Checkpoint(state=model.state_dict(), network=resolved(model.config))
    assert described.network != model.config

    assert final_test(image_config, Processes(), described)["num_videos"] == 4

    other = described.network | {"downsample": "stride"}
    with pytest.raises(CheckpointError, match="downsample pool instead of stride"):
        final_test(image_config, Processes(), replace(described, network=other))


def test_the_cost_and_the_engine_of_a_test_are_of_its_own_crop(image_config, monkeypatch):
    cfg = image_config.clone()
    cfg.defrost()
    cfg.TEST.IMAGE_CROP_SIZES, cfg.TEST.OPTIMIZE = [48, 40], True
    model, prepared = build_model(cfg), []
    monkeypatch.setattr(
        "octvideo.assembly.start.optimize",
        lambda network, example, **_: prepared.append(tuple(example.shape)) or network,
    )

    protocol = final_test(cfg, Processes(), Checkpoint(state=model.state_dict()))["protocol"]

    assert protocol["crop_size"] == 48
    cost = count(model, (3, 48, 48)).macs
    assert protocol["network"]["gflops_per_view"] == round(cost / 1e9, 3)
    assert prepared == [(1, 3, 48, 48), (1, 3, 40, 40)]


def test_an_image_that_cannot_be_read_counts_as_wrong_and_is_listed(image_config, tmp_path):
    assert train(image_config, Processes())
    (tmp_path / "data" / "val" / "dog" / "1.png").write_bytes(b"torn")

    summary = final_test(image_config, Processes())

    assert (summary["num_videos"], summary["num_unread"]) == (4, 1)
    assert [Path(row["path"]).name for row in summary["unread"]] == ["1.png"]
    assert summary["top5_acc"] == 75.0
