"""What a run was made with: its folder is not for other settings, lists or tests."""

import json

import pytest
import torch

from octvideo import hub
from octvideo.assembly.data import numbered_names
from octvideo.assembly.identity import data_of
from octvideo.assembly.tasks import task_of
from octvideo.config import load_config
from octvideo.errors import CheckpointError, ConfigError, OctvideoError
from octvideo.lock import only_writer
from octvideo.study import Sweep, origin, run_sweep, trial
from octvideo.study.origin import FOUND, check_folder, claim_folder, made_with, settings_of

CONFIG = "kinetics400/i3d"
FAST, SLOW = (load_config(CONFIG, [f"SOLVER.BASE_LR={rate}"]) for rate in (0.1, 0.01))


def begin(folder, cfg):
    """A checkpoint, as training leaves it: with the number of the data's classes."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.NUM_CLASSES, cfg.OUTPUT_DIR = cfg.MODEL.NUM_CLASSES or 7, str(folder)
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


@pytest.mark.parametrize("is_done", [False, True])
def test_a_run_that_was_continued_with_other_settings_is_not_the_recorded_one(tmp_path, is_done):
    claim_folder(tmp_path, settings_of(FAST))
    begin(tmp_path, SLOW)
    if is_done:
        finish(tmp_path)

    # Part of its training had the one rate, part the other.
    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LR 0\.01 instead of 0\.1; .*delete this"):
        claim_folder(tmp_path, settings_of(FAST))
    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LR 0\.1 instead of 0\.01"):
        claim_folder(tmp_path, settings_of(SLOW))


def test_settings_of_the_test_in_a_checkpoint_are_not_held_against_a_recorded_run(tmp_path):
    claim_folder(tmp_path, settings_of(FAST))
    begin(tmp_path, load_config(CONFIG, ["SOLVER.BASE_LR=0.1", "TEST.ENABLE=False"]))

    claim_folder(tmp_path, settings_of(FAST))


def test_a_torn_checkpoint_says_nothing_of_its_run_and_the_one_before_it_does(tmp_path):
    begin(tmp_path, SLOW)
    (tmp_path / "checkpoints" / "checkpoint_epoch_00002.pyth").write_bytes(b"PK")

    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LR 0\.01 instead of 0\.1"):
        claim_folder(tmp_path, settings_of(FAST))


def test_a_run_that_kept_its_best_checkpoint_alone_is_one_that_has_begun(tmp_path):
    begin(tmp_path, FAST)
    folder = tmp_path / "checkpoints"
    (folder / "checkpoint_epoch_00001.pyth").rename(folder / "best.pyth")

    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LR 0\.1 instead of 0\.01"):
        claim_folder(tmp_path, settings_of(SLOW))


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


@pytest.mark.parametrize("said", [{"precision": "bf16"}, {}])
def test_the_precision_that_a_run_chose_by_itself_is_of_its_own_test(tmp_path, lists, said):
    words = [f"DATA.PATH_TO_DATA_DIR={lists}", "TEST.OPTIMIZE=true", "TEST.PRECISION=auto"]
    folder, cfg = tmp_path / "run", load_config(CONFIG, words)
    claim_folder(folder, made_with(cfg))
    begin(folder, cfg)
    finish(folder, **results_of(lists, protocol=said))

    claim_folder(folder, made_with(cfg))


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

    assert not json.loads((folder / "settings.json").read_text()).keys() & set(FOUND)


@pytest.fixture
def start(tmp_path):
    """A file of weights that a run starts from; what is in it does not matter."""
    path = tmp_path / "best.pyth"
    path.write_bytes(b"weights")
    return path


def run_from(start):
    return load_config(CONFIG, [f"TRAIN.CHECKPOINT_FILE_PATH={start}"])


def refuse_other_weights(folder, cfg):
    with pytest.raises(
        ConfigError, match=r"start weights \w{16} instead of \w{16}; .*delete this one"
    ):
        claim_folder(folder, made_with(cfg))


@pytest.mark.parametrize("is_published", [False, True])
def test_a_run_is_not_for_start_weights_that_were_replaced(tmp_path, start, is_published):
    if is_published:
        (tmp_path / "published").mkdir()
        start = start.rename(tmp_path / "published" / "model.safetensors")
    folder, cfg = tmp_path / "run", run_from(start.parent if is_published else start)
    claim_folder(folder, made_with(cfg))
    finish(folder)
    claim_folder(folder, made_with(cfg))
    start.write_bytes(b"others!")

    refuse_other_weights(folder, cfg)


def test_start_weights_on_the_hub_may_not_move_on(tmp_path, start, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda address, file_name: start)
    folder, cfg = tmp_path / "run", run_from("hf://user/name")
    claim_folder(folder, made_with(cfg))
    finish(folder)
    start.write_bytes(b"others!")

    refuse_other_weights(folder, cfg)


def test_start_weights_that_are_gone_or_have_a_public_name_are_known_by_their_setting(
    tmp_path, start, monkeypatch
):
    def unreachable(address, file_name):
        raise CheckpointError(f"{address}: cannot be reached")

    monkeypatch.setattr(hub, "fetch", unreachable)
    folder, cfg = tmp_path / "run", run_from(start)
    claim_folder(folder, made_with(cfg))
    finish(folder)
    start.unlink()

    claim_folder(folder, made_with(cfg))

    assert "start weights" in json.loads((folder / "settings.json").read_text())
    for other in (start, "hf://user/name", "i3d_r50_k400", ""):
        assert "start weights" not in made_with(run_from(other))


def test_start_weights_of_a_run_that_kept_no_digest_are_not_made_up(tmp_path, start):
    folder, cfg = tmp_path / "run", run_from(start)
    claim_folder(folder, settings_of(cfg))
    finish(folder)

    claim_folder(folder, made_with(cfg))
    start.write_bytes(b"others!")
    claim_folder(folder, made_with(cfg))

    assert "start weights" not in json.loads((folder / "settings.json").read_text())


def test_start_weights_are_read_once_for_all_runs_of_a_check(start, monkeypatch):
    read = []
    monkeypatch.setattr(origin, "hash_of", lambda path: read.append(path) or "0" * 64)
    known = {}

    for rate in (0.1, 0.01):
        made_with(
            load_config(CONFIG, [f"TRAIN.CHECKPOINT_FILE_PATH={start}", f"SOLVER.BASE_LR={rate}"]),
            known,
        )

    assert read == [str(start)]


@pytest.mark.parametrize("done", [begin, lambda folder, cfg: finish(folder)])
def test_a_run_is_not_for_another_number_of_classes(tmp_path, lists, done):
    names = lists / "class_names.txt"
    names.write_text("".join(f"{number}\n" for number in range(7)))
    words = [f"DATA.PATH_TO_DATA_DIR={lists}", "MODEL.NUM_CLASSES=0"]
    folder, cfg = tmp_path / "run", load_config(CONFIG, words)
    claim_folder(folder, made_with(cfg))
    done(folder, cfg)
    claim_folder(folder, made_with(cfg))
    names.write_text(names.read_text() + "more\n")

    with pytest.raises(ConfigError, match="classes 7 instead of 8"):
        claim_folder(folder, made_with(cfg))
