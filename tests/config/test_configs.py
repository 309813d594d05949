"""Every file of configs/: it loads, it builds, and a pair differs by alpha alone."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from octvideo.assembly import build_model
from octvideo.assembly.recipe import PUBLISHED, recipe_differences
from octvideo.config import load_config
from octvideo.paper import MACS_G, networks

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "recipes")
OCTAVE = [path for path in FILES if path.name.startswith("oct_")]


def name(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_config_loads_and_its_network_takes_its_inputs(path):
    cfg = load_config(str(path))
    size = cfg.DATA.TRAIN_CROP_SIZE
    shape = (cfg.DATA.NUM_FRAMES, size, size) if cfg.TRAIN.DATASET == "video" else (size, size)

    with torch.device("meta"):
        logits = build_model(cfg)(torch.empty(1, 3, *shape))

    assert logits.shape == (1, cfg.MODEL.NUM_CLASSES or 400)
    assert path.read_text().count("\n") <= 30
    assert f"--cfg configs/{name(path)}.yaml" in path.read_text()


@pytest.mark.parametrize("path", OCTAVE, ids=name)
def test_an_octave_config_is_its_baseline_and_alpha(path):
    own = yaml.safe_load(path.read_text())
    baseline = load_config(str(path.parent / own.pop("_BASE_")))

    assert baseline.OCTCONV.ALPHA == 0
    assert 0 < own.pop("OCTCONV")["ALPHA"] < 1
    # An inflated octave network starts from the image weights of its alpha.
    assert own == (
        {"TRAIN": {"CHECKPOINT_FILE_PATH": "weights/oct_resnet50_a10_imagenet.pth"}}
        if "in1k" in path.stem
        else {}
    )


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name.startswith("kinetics")], ids=name
)
def test_a_kinetics_config_follows_the_published_recipe(path):
    cfg = load_config(str(path))

    assert recipe_differences(cfg) == []
    assert cfg.BN.USE_PRECISE_STATS
    assert cfg.BN.WEIGHT_DECAY == 0
    assert cfg.RESNET.ZERO_INIT_FINAL_BN
    assert (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS, cfg.DATA.TEST_CROP_SIZE) == (
        10,
        3,
        256,
    )
    assert (cfg.SOLVER.LR_POLICY == "cosine") == ("in1k" not in path.stem)


def test_the_iteration_schedule_is_that_of_video_nonlocal_net():
    solver = load_config(str(CONFIGS / "kinetics400" / "i3d_in1k.yaml")).SOLVER

    assert solver.LR_POLICY in PUBLISHED
    # 150k, 100k and 50k iterations at .01, .001 and .0001 (its R50 configs for 8 GPUs).
    assert (solver.MAX_ITER, solver.STEP_ITERS, solver.LRS) == (
        300_000,
        [0, 150_000, 250_000],
        [1, 0.1, 0.01],
    )
    assert solver.SCALE_MOMENTUM


def test_the_index_names_every_config():
    index = (CONFIGS / "README.md").read_text()

    for path in FILES:
        assert f"{name(path)}.yaml" in index


def test_the_index_prints_the_multiply_adds_of_table_6():
    clips = [network for network in networks() if network.table == 6 and network.shape[-1] == 224]
    printed = {
        (network.model, network.options.get("alpha", 0)): network.printed[MACS_G]
        for network in clips
    }

    rows = re.findall(
        r"`(kinetics.*yaml)` \| .* \| ([\d.]+) \|", (CONFIGS / "README.md").read_text()
    )

    assert len(rows) == len([path for path in FILES if path.parent.name.startswith("kinetics")])
    for file, macs in rows:
        cfg = load_config(str(CONFIGS / file))
        model = f"{cfg.MODEL.ARCH}{'_nln' if 'nln' in file else ''}_r50"
        assert float(macs) == printed[model, cfg.OCTCONV.ALPHA], file
