"""What a run was made with: its folder is not for other settings, lists or tests."""

import json

import pytest
import torch

from octvideo.assembly.data import numbered_names
from octvideo.assembly.identity import data_of
from octvideo.assembly.tasks import task_of
from octvideo.config import load_config
from octvideo.errors import ConfigError, OctvideoError
from octvideo.lock import only_writer
from octvideo.study import Sweep, run_sweep, trial
from octvideo.study.origin import LISTS, check_folder, claim_folder, made_with, settings_of

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


def finish(folder, **found):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"top1_acc": 50.0} | found))


@pytest.fixture
def lists(tmp_path):
    """A folder of lists of two videos each, which are not there."""
    folder = tmp_path / "lists"
    folder.mkdir()
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text(f"{split}_0.mp4 0\n{split}_1.mp4 1\n")
    return folder


def run_on(lists):
    return load_config(CONFIG, [f"DATA.PATH_TO_DATA_DIR={lists}"])


def results_of(lists, **other):
    """results.json of a run's own test, or of one that differs in `other`."""
    data = data_under_test(run_on(lists))
    protocol = {"list": f"{lists}/test.csv", "views": "10x3", "crop_size": 256, "ensemble": "sum"}
    own = {"data": data, "protocol": protocol | {"checkpoint": "checkpoint_epoch_00001.pyth"}}
    return own | {key: own[key] | other[key] for key in other}


def data_under_test(cfg):
    test = next(iter(task_of(cfg).final_tests(numbered_names(400))))
    return data_of(test.videos)


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
        trial, "_train", lambda config, settings, folder, environment, children: finish(folder)
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


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_run_that_is_done_is_not_for_lists_that_changed(tmp_path, lists, split):
    folder, cfg = tmp_path / "run", run_on(lists)
    claim_folder(folder, made_with(cfg))
    finish(folder)
    claim_folder(folder, made_with(cfg))
    with (lists / f"{split}.csv").open("a") as file:
        file.write("new.mp4 1\n")

    with pytest.raises(
        ConfigError,
        match=rf"{split} list 2 entries \(.*\).* instead of 3 entries .*delete this one",
    ) as refused:
        claim_folder(folder, made_with(cfg))

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"data": {"entries": 6, "fingerprint": "0" * 16}}, "test list 6 entries"),
        ({"data": {"fingerprint": "0" * 16}}, r"test list 2 entries \(0{16}\).* instead of 2 ent"),
        ({"protocol": {"list": "other/test.csv"}}, r"test list .*other/test\.csv instead of"),
        ({"protocol": {"views": "5x3"}}, "test views 5x3 instead of 10x3"),
        ({"protocol": {"crop_size": 224}}, "test crop 224 instead of 256"),
        ({"protocol": {"precision": "bf16"}}, "TEST.PRECISION bf16 instead of fp32"),
        ({"protocol": {"checkpoint": "x/best.pyth"}}, "best.pyth instead of checkpoint_epoch_0000"),
    ],
)
def test_results_of_another_test_are_not_those_of_the_run(tmp_path, lists, other, message):
    folder, cfg = tmp_path / "run", run_on(lists)
    claim_folder(folder, made_with(cfg))
    begin(folder, cfg)
    finish(folder, **results_of(lists))
    claim_folder(folder, made_with(cfg))
    finish(folder, **results_of(lists, **other))

    with pytest.raises(
        ConfigError, match=rf"results\.json: is of another test .*{message}.*; delete this file"
    ) as refused:
        claim_folder(folder, made_with(cfg))

    assert "\n" not in str(refused.value)


def test_results_are_held_to_the_recorded_test_where_the_lists_are_gone(tmp_path, lists):
    folder, cfg = tmp_path / "run", run_on(lists)
    claim_folder(folder, made_with(cfg))
    own = results_of(lists)
    for path in lists.iterdir():
        path.unlink()
    finish(folder, **own)

    check_folder(folder, made_with(cfg), {})
    finish(folder, **own | {"data": {"entries": 6, "fingerprint": "0" * 16}})
    with pytest.raises(ConfigError, match="is of another test"):
        check_folder(folder, made_with(cfg), {})


def test_lists_of_a_run_that_kept_none_are_not_made_up(tmp_path, lists):
    folder, cfg = tmp_path / "run", run_on(lists)
    claim_folder(folder, settings_of(cfg))
    finish(folder)

    claim_folder(folder, made_with(cfg))

    assert not json.loads((folder / "settings.json").read_text()).keys() & set(LISTS)
