"""What a run was made with: its folder is not for other settings."""

import json

import pytest
import torch

from octvideo.config import load_config
from octvideo.errors import ConfigError, OctvideoError
from octvideo.lock import only_writer
from octvideo.study import Sweep, run_sweep, trial
from octvideo.study.origin import check_folder, claim_folder, settings_of

CONFIG = "kinetics400/i3d"
FAST, SLOW = (load_config(CONFIG, [f"SOLVER.BASE_LR={rate}"]) for rate in (0.1, 0.01))


def begin(folder, cfg):
    """A checkpoint, as training leaves it: with the number of the data's classes."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.NUM_CLASSES, cfg.OUTPUT_DIR = 7, str(folder)
    content = {"model_state": {}, "cfg": cfg.dump()}
    torch.save(content, folder / "checkpoints" / "checkpoint_epoch_00001.pyth")


def finish(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"top1_acc": 50.0}))


@pytest.mark.parametrize("done", [lambda folder: begin(folder, FAST), finish])
def test_a_run_that_has_begun_or_is_done_keeps_its_settings(tmp_path, done):
    claim_folder(tmp_path, settings_of(FAST))
    done(tmp_path)

    claim_folder(tmp_path, settings_of(load_config(CONFIG, ["DATA_LOADER.NUM_WORKERS=1"])))
    with pytest.raises(
        ConfigError, match=r"SOLVER\.BASE_LR 0\.1 instead of 0\.01; .* delete this one"
    ) as refused:
        claim_folder(tmp_path, settings_of(SLOW))

    assert "\n" not in str(refused.value)


def test_a_run_that_left_nothing_may_get_other_settings(tmp_path):
    claim_folder(tmp_path, settings_of(FAST))

    claim_folder(tmp_path, settings_of(SLOW))

    finish(tmp_path)
    check_folder(tmp_path, settings_of(SLOW), {})


def test_a_run_of_another_process_does_not_get_other_settings(tmp_path):
    claim_folder(tmp_path, settings_of(FAST))

    with only_writer(str(tmp_path)):
        claim_folder(tmp_path, settings_of(FAST))
        with pytest.raises(OctvideoError, match="in use by"):
            claim_folder(tmp_path, settings_of(SLOW))

    finish(tmp_path)
    check_folder(tmp_path, settings_of(FAST), {})


def test_without_a_record_the_checkpoint_says_what_a_run_was_made_with(tmp_path):
    counting = load_config(CONFIG, ["SOLVER.BASE_LR=0.1", "MODEL.NUM_CLASSES=0"])
    begin(tmp_path, counting)

    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LR 0\.1 instead of 0\.01"):
        claim_folder(tmp_path, settings_of(SLOW))
    claim_folder(tmp_path, settings_of(counting))

    assert json.loads((tmp_path / "settings.json").read_text()) == settings_of(counting)


def test_a_setting_younger_than_the_record_had_its_default(tmp_path):
    finish(tmp_path)
    record = settings_of(FAST)
    del record["OCTCONV.DOWNSAMPLE"]
    (tmp_path / "settings.json").write_text(json.dumps(record))

    check_folder(tmp_path, settings_of(FAST), {})
    with pytest.raises(ConfigError, match=r"OCTCONV\.DOWNSAMPLE"):
        check_folder(tmp_path, settings_of(FAST) | {"OCTCONV.DOWNSAMPLE": "pool"}, {})


def test_many_differences_are_counted(tmp_path):
    claim_folder(tmp_path, settings_of(FAST))
    finish(tmp_path)

    with pytest.raises(ConfigError, match=r", [1-9]\d* more; a run has"):
        claim_folder(tmp_path, settings_of(load_config("demo/oct_i3d")))


def test_a_damaged_record_is_told(tmp_path):
    finish(tmp_path)
    (tmp_path / "settings.json").write_text("[1")

    with pytest.raises(ConfigError, match=r"settings\.json: is damaged .* delete its folder"):
        check_folder(tmp_path, settings_of(FAST), {})


def test_a_sweep_of_an_earlier_version_goes_on_with_the_settings_that_it_shared(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "kinetics400").mkdir(parents=True)
    monkeypatch.setattr(
        trial, "_train", lambda config, settings, folder, environment: finish(folder)
    )
    words, told = ["OCTCONV.ALPHA=0,.1", "RNG_SEED=1"], []
    sweep = Sweep.of(CONFIG, words)
    # A later sweep varied the rate in the same folder, at alpha 0.
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": settings_of(FAST)}))
    for alpha in ("0", ".1"):
        finish(tmp_path / "runs" / f"OCTCONV.ALPHA={alpha},RNG_SEED=1")

    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_EPOCH 196 instead of 40"):
        run_sweep(Sweep.of(CONFIG, [*words, "SOLVER.MAX_EPOCH=40"]), tmp_path)
    run_sweep(sweep, tmp_path, report=told.append)

    assert len(told) == 2
    assert len(list(tmp_path.rglob("settings.json"))) == 2
