"""Every Kinetics file of PySlowFast that configures a network of this package, restated by what its
keys say."""

import logging
from pathlib import Path

import pytest
import torch
import yaml

from octvideo.assembly import build_model
from octvideo.assembly.data import final_views
from octvideo.assembly.start import head_act
from octvideo.assembly.tasks import task_of
from octvideo.config import config_from_text, load_config

FULL = Path(__file__).parents[1] / "golden" / "pyslowfast" / "full_dump.yaml"

CLIP_8X8 = {"NUM_FRAMES": 8, "SAMPLING_RATE": 8, "INPUT_CHANNEL_NUM": [3]}
CLIP_4X16 = {"NUM_FRAMES": 4, "SAMPLING_RATE": 16, "INPUT_CHANNEL_NUM": [3]}
TWO = {"NUM_FRAMES": 32, "SAMPLING_RATE": 2, "INPUT_CHANNEL_NUM": [3, 3]}
TWO_64 = {**TWO, "NUM_FRAMES": 64}
NLN = [[[]], [[1, 3]], [[1, 3, 5]], [[]]]
NLN_TWO = [[[], []], [[1, 3], []], [[1, 3, 5], []], [[], []]]
NLN_R101 = [[[], []], [[], []], [[6, 13, 20], []], [[], []]]
STEPS = {"LR_POLICY": "steps_with_relative_lrs", "STEPS": [0, 94, 154, 196], "MAX_EPOCH": 239}
STEPS["LRS"] = [1, 0.1, 0.01, 0.001, 0.0001, 0.00001]
IN1K = {"LR_POLICY": "steps_with_relative_lrs", "STEPS": [0, 44, 88, 118], "MAX_EPOCH": 118}
IN1K |= {"LRS": [1, 0.1, 0.01, 0.001], "BASE_LR": 0.01}
CAFFE2 = {"ENABLE": False, "CHECKPOINT_TYPE": "caffe2"}
PTV = {"DATASET": "ptvkinetics"}


def kernels(*slow, fast=None):
    return [[a, b] for a, b in zip(slow, fast or slow, strict=True)]


def a_file(arch, data, *, depth=50, nonlocal_location=None, solver=(), train=(), **sections):
    two = arch == "slowfast"
    resnet = {"DEPTH": depth, "TRANS_FUNC": "bottleneck_transform", "ZERO_INIT_FINAL_BN": True}
    resnet["NUM_BLOCK_TEMP_KERNEL"] = kernels(3, 4, 6, 3) if two else [[3], [4], [6], [3]]
    if two:
        resnet["SPATIAL_STRIDES"] = [[1, 1], [2, 2], [2, 2], [2, 2]]
    attention = {"LOCATION": nonlocal_location or [[[]] * (1 + two)] * 4}
    tree = {
        "TRAIN": {"DATASET": "kinetics", "CHECKPOINT_PERIOD": 1, **dict(train)},
        "DATA": data,
        "RESNET": resnet | sections.pop("RESNET", {}),
        "NONLOCAL": attention | {"GROUP": [[1] * (1 + two)] * 4, "INSTANTIATION": "dot_product"},
        "SOLVER": {"LR_POLICY": "cosine", "MAX_EPOCH": 196, "WARMUP_EPOCHS": 34.0, **dict(solver)},
        "MODEL": {"ARCH": arch, "MODEL_NAME": "SlowFast" if two else "ResNet"},
        "NUM_GPUS": 8,
    }
    for section, values in sections.items():
        tree[section] = {**tree.get(section, {}), **values}
    return tree


def slowfast(speed, kernel, data=TWO, **rest):
    return a_file("slowfast", data, SLOWFAST={"ALPHA": speed, "FUSION_KERNEL_SZ": kernel}, **rest)


def r101(*slow, fast=None, **rest):
    return slowfast(
        4, 5, depth=101, RESNET={"NUM_BLOCK_TEMP_KERNEL": kernels(*slow, fast=fast)}, **rest
    )


def with_r101_kernels(arch, **rest):
    return a_file(
        arch, CLIP_8X8, depth=101, RESNET={"NUM_BLOCK_TEMP_KERNEL": [[3], [4], [23], [3]]}, **rest
    )


NOPOOL = {"MODEL_NAME": "ResNet_nopool"}
PTV_ONE, PTV_TWO = {"MODEL_NAME": "PTVResNet"}, {"MODEL_NAME": "PTVSlowFast"}
SCALED = {"BASE_LR_SCALE_NUM_SHARDS": True}
KINETICS = {
    "C2D_8x8_R50": a_file("c2d", CLIP_8X8),
    "C2D_8x8_R50_IN1K": a_file("c2d", CLIP_8X8, solver=IN1K, train={"CHECKPOINT_INFLATE": True}),
    "C2D_NLN_8x8_R50": a_file("c2d", CLIP_8X8, nonlocal_location=NLN),
    "C2D_NLN_8x8_R50_IN1K": a_file("c2d", CLIP_8X8, nonlocal_location=NLN, solver=IN1K),
    "I3D_8x8_R50": a_file("i3d", CLIP_8X8),
    "I3D_8x8_R50_IN1K": a_file("i3d", CLIP_8X8, solver=IN1K),
    "I3D_8x8_R101": with_r101_kernels("i3d"),
    "I3D_NLN_8x8_R50": a_file("i3d", CLIP_8X8, nonlocal_location=NLN),
    "I3D_NLN_8x8_R50_IN1K": a_file("i3d", CLIP_8X8, nonlocal_location=NLN, solver=IN1K),
    "I3D_NLN_8x8_R101": with_r101_kernels(
        "i3d", nonlocal_location=[[[]], [[1, 3]], [[6, 13, 20]], [[]]]
    ),
    "SLOW_4x16_R50": a_file("slow", CLIP_4X16),
    "SLOW_8x8_R50": a_file("slow", CLIP_8X8),
    "SLOW_NLN_4x16_R50": a_file("slow", CLIP_4X16, nonlocal_location=NLN),
    "SLOW_NLN_8x8_R50": a_file("slow", CLIP_8X8, nonlocal_location=NLN),
    "SLOWFAST_4x16_R50": slowfast(8, 5),
    "SLOWFAST_8x8_R50": slowfast(4, 7),
    "SLOWFAST_8x8_R50_stepwise": slowfast(4, 7, solver=STEPS),
    "SLOWFAST_8x8_R50_stepwise_multigrid": slowfast(
        4, 7, solver=STEPS, MULTIGRID={"SHORT_CYCLE": True}
    ),
    "SLOWFAST_NLN_4x16_R50": slowfast(8, 5, nonlocal_location=NLN_TWO),
    "SLOWFAST_NLN_8x8_R50": slowfast(4, 5, nonlocal_location=NLN_TWO),
}
FROM_CAFFE2 = {
    "C2D_NOPOOL_8x8_R50": a_file("c2d", CLIP_8X8, train=CAFFE2, MODEL=NOPOOL),
    "I3D_8x8_R50": a_file("i3d", CLIP_8X8, train=CAFFE2),
    "I3D_NLN_8x8_R50": a_file("i3d", CLIP_8X8, nonlocal_location=NLN, train=CAFFE2),
    "SLOW_4x16_R50": a_file("slow", CLIP_4X16, train=CAFFE2),
    "SLOW_8x8_R50": a_file("slow", CLIP_8X8, train=CAFFE2),
    "SLOWFAST_4x16_R50": slowfast(8, 7, train=CAFFE2),
    "SLOWFAST_8x8_R50": slowfast(4, 5, train=CAFFE2),
    "SLOWFAST_8x8_R101_50_50": r101(3, 4, 6, 3, train=CAFFE2),
    "SLOWFAST_8x8_R101_50_101": r101(3, 4, 6, 3, fast=(3, 4, 23, 3), train=CAFFE2),
    "SLOWFAST_8x8_R101_101_101": r101(3, 4, 23, 3, train=CAFFE2),
    "SLOWFAST_16x8_R101_50_50": r101(3, 4, 6, 3, data=TWO_64, train=CAFFE2),
    "SLOWFAST_NLN_16x8_R101_50_50": r101(
        3, 4, 6, 3, data=TWO_64, nonlocal_location=NLN_R101, train=CAFFE2
    ),
}
OF_PYTORCHVIDEO = {
    "C2D_8x8_R50": a_file("c2d", CLIP_8X8, train=PTV, TEST=PTV, MODEL=PTV_ONE, solver=SCALED),
    "I3D_8x8_R50": a_file("i3d", CLIP_8X8, train=PTV, TEST=PTV, MODEL=PTV_ONE, solver=SCALED),
    "SLOW_8x8_R50": a_file("slow", CLIP_8X8, train=PTV, TEST=PTV, MODEL=PTV_ONE, solver=SCALED),
    "SLOWFAST_8x8_R50": slowfast(4, 7, train=PTV, TEST=PTV, MODEL=PTV_TWO, solver=SCALED),
}


def load(tree):
    return config_from_text(yaml.safe_dump(tree), "theirs.yaml")


def network(tree):
    with torch.device("meta"):
        return build_model(load(tree))


@pytest.mark.parametrize("name", KINETICS)
def test_the_kinetics_files_load(name):
    cfg = load(KINETICS[name])

    assert name.split("_")[0].lower() == cfg.MODEL.ARCH
    assert any(any(stage[0]) for stage in cfg.NONLOCAL.LOCATION) == ("NLN" in name)


@pytest.mark.parametrize("name", FROM_CAFFE2)
def test_the_files_for_caffe2_weights_load(name):
    cfg = load(FROM_CAFFE2[name])

    assert (101 if "R101" in name else 50) == cfg.RESNET.DEPTH


@pytest.mark.parametrize("name", OF_PYTORCHVIDEO)
def test_the_files_of_pytorchvideos_networks_load_and_average_logits(name):
    cfg = load(OF_PYTORCHVIDEO[name])

    assert cfg.TRAIN.DATASET == cfg.TEST.DATASET == "video"
    assert head_act(cfg) == "softmax_of_mean"


def test_a_slowfast_has_its_non_local_blocks_in_the_slow_pathway():
    names = {
        name
        for name, _ in network(KINETICS["SLOWFAST_NLN_4x16_R50"]).named_modules()
        if name.endswith("attend")
    }

    places = {"res3.nonlocal1", "res3.nonlocal3"} | {f"res4.nonlocal{i}" for i in (1, 3, 5)}
    assert names == {f"slow.{place}.attend" for place in places}


def test_pathways_have_temporal_kernels_of_their_own():
    model = network(FROM_CAFFE2["SLOWFAST_8x8_R101_50_101"])

    def temporal(pathway):
        return [block.reduce.conv.kernel_size[0] for block in pathway.res4]

    assert temporal(model.slow) == [3] * 6 + [1] * 17
    assert temporal(model.fast) == [3] * 23


def test_c2d_without_a_pool_keeps_its_frames():
    model = network(FROM_CAFFE2["C2D_NOPOOL_8x8_R50"])

    assert model.config["name"] == "c2d_nopool_r50"
    assert model.features(torch.empty(1, 3, 8, 32, 32, device="meta"))[0].shape[2] == 8


def test_a_dump_of_all_their_settings_loads(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)

    cfg = load_config(str(FULL))

    assert (cfg.MODEL.ARCH, cfg.MIXUP.CUTMIX_ALPHA, cfg.SOLVER.MAX_EPOCH) == ("slowfast", 1.0, 300)
    assert len(caplog.records) == 2


def test_one_crop_is_the_middle_of_the_jitters_shortest_side():
    data = {**CLIP_8X8, "TRAIN_JITTER_SCALES": [256, 320], "TEST_CROP_SIZE": 224}
    one = load(a_file("i3d", data, TEST={"NUM_SPATIAL_CROPS": 1}))
    three = load(a_file("i3d", data))

    assert (final_views(one).short_side, final_views(one).crop_size) == (256, 224)
    assert (final_views(three).short_side, final_views(three).crop_size) == (224, 224)
    assert final_views(one).crops(256, 340) == [(16, 58)]
    assert task_of(one).input_spec().short_side == 256
    assert task_of(three).input_spec().short_side == 224


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "softmax"),
        ({"HEAD_ACT": "sigmoid"}, "sigmoid"),
        ({"MODEL_NAME": "PTVResNet", "HEAD_ACT": "sigmoid"}, "sigmoid_of_mean"),
    ],
)
def test_what_scores_are_made_with_is_the_files_choice(settings, expected):
    assert head_act(load(a_file("i3d", CLIP_8X8, MODEL=settings))) == expected


def test_what_is_fixed_here_may_be_written_as_yacs_reads_it():
    aug = {"AUG": {"ENABLE": "None"}, "TEST": {"NUM_TEMPORAL_CLIPS": "()"}}

    load(a_file("i3d", CLIP_8X8 | {"INPUT_CHANNEL_NUM": "(3, 3)"}, **aug))


def test_a_data_set_may_be_capitalized_as_there():
    cfg = load(a_file("i3d", CLIP_8X8, train={"DATASET": "Kinetics"}))

    assert cfg.TRAIN.DATASET == "video"


@pytest.mark.parametrize(
    ("scaled", "expected"),
    [
        (False, "so that its run is TRAIN.BATCH_SIZE 128"),
        (True, "its run is TRAIN.BATCH_SIZE 128, SOLVER.BASE_LR 0.4, SOLVER.WARMUP_START_LR 0.04"),
    ],
)
def test_the_batch_of_several_machines_is_said(scaled, expected, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    solver = {"BASE_LR_SCALE_NUM_SHARDS": scaled}
    tree = a_file("i3d", CLIP_8X8, solver=solver, train={"BATCH_SIZE": 32})

    cfg = load({**tree, "NUM_SHARDS": 4})

    assert cfg.TRAIN.BATCH_SIZE == 32
    assert expected in caplog.text
    caplog.clear()
    load({**tree, "NUM_SHARDS": 1})
    assert "its run is" not in caplog.text


def test_machines_on_a_command_line_are_of_the_launcher(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    text = yaml.safe_dump(a_file("i3d", CLIP_8X8))

    config_from_text(text, "theirs.yaml", ["NUM_GPUS", "2", "NUM_SHARDS", "3"])

    assert "command line: not used: NUM_GPUS, NUM_SHARDS; start a process per GPU" in caplog.text
    assert "torchrun --nproc_per_node 2" in caplog.text
    assert "command line: with NUM_SHARDS 3" in caplog.text
