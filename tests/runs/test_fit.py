"""`octvideo.fit`, `octvideo.evaluate` and `octvideo train FOLDER`: from a folder to a network that
names videos."""

import json
import multiprocessing
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import forked_ranks

import octvideo
from octvideo.assembly import settings_of
from octvideo.assembly.data import final_views
from octvideo.assembly.model import build_model
from octvideo.cli import main
from octvideo.config.defaults import DEFAULTS
from octvideo.errors import CheckpointError, ConfigError, DataError, OctvideoError, logger
from octvideo.lock import only_writer
from octvideo.runs.fit import in_words, run_recipe
from octvideo.runs.recipe import Recipe
from octvideo.weights.pretrained import read_weights

NETWORK = {"model": "i3d_r26", "alpha": 0.25, "check": False}
SMALL = "DATA: {TEST_CROP_SIZE: 32, TRAIN_CROP_SIZE: 32, TRAIN_JITTER_SCALES: [36, 48]}"


def test_a_folder_becomes_a_network_a_report_and_a_run_that_continues(my_videos, tiny, caplog):
    seen: dict[str, list] = {"step": [], "epoch": []}
    caplog.set_level("INFO", "octvideo")

    first = octvideo.fit(
        my_videos,
        **NETWORK,
        epochs=2,
        views="2x1",
        on_step=seen["step"].append,
        on_epoch=seen["epoch"].append,
        **tiny(),
    )
    again = octvideo.fit(my_videos, **NETWORK, epochs=3, on_epoch=seen["epoch"].append)

    assert first.finished
    assert Path(first.checkpoint).name == "best.pyth"
    assert first.report.is_file()
    assert first.results["num_videos"] == 2
    assert set(first.results["frame_order"]["orders"]) > {"shuffled", "reversed"}
    assert first.results["protocol"]["views"] == "2x1"
    assert [metrics["epoch"] for metrics in seen["epoch"]] == [1, 2, 3]
    assert {"loss", "top1_err", "lr", "grad_norm", "step"} <= seen["step"][0].keys()
    assert {"val_top1_err", "val_loss", "top1_err"} <= seen["epoch"][-1].keys()
    assert again.config.RESNET.WIDTH_PER_GROUP == 16
    names = [p.name for p in again.recognizer.predict(my_videos / "dark" / "0.mp4", views="1x1")]
    assert sorted(names) == ["dark", "light"]


@pytest.fixture
def run(my_videos, tiny, once):
    """A run of one epoch in the folder "run"; its command without options is `fit(my_videos)`."""
    said = {**NETWORK, "out": "run", "epochs": 1, "views": "1x1"}
    return once("a run", lambda: octvideo.fit(my_videos, **said, **tiny()))


def test_a_command_that_the_run_refuses_leaves_it_as_it_was(run, my_videos, write_clips):
    kept = Path("run/config.yaml").read_bytes()

    with pytest.raises(CheckpointError, match=r"DATA\.NUM_FRAMES 2 instead of 4"):
        octvideo.fit(my_videos, out="run", check=False, epochs=9, DATA={"NUM_FRAMES": 2})
    write_clips(my_videos / "dark", 7, 0)
    with pytest.raises(CheckpointError, match=r"another training list.*videos: --out\)"):
        octvideo.fit(my_videos, out="run", check=False, epochs=9)
    for number in (5, 6):
        (my_videos / "dark" / f"{number}.mp4").unlink()

    assert Path("run/config.yaml").read_bytes() == kept
    again = octvideo.fit(my_videos, out="run", check=False)
    assert again.finished
    assert again.config == run.config


def test_weights_that_were_trained_here_bring_their_network(run, my_videos, caplog, monkeypatch):
    small = {"DATA": {"TRAIN_CROP_SIZE": 32, "TRAIN_JITTER_SCALES": [32, 40]}}

    recipe = Recipe(str(my_videos), out="next", weights=run.checkpoint, settings=small, check=False)
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level("INFO", "octvideo"):
        cfg = recipe.plan().cfg

    trained = read_weights(run.checkpoint).weights
    shapes = {name: tensor.shape for name, tensor in build_model(cfg).state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in trained.items()}
    assert f"i3d_r26, alpha 0.25, from {run.checkpoint}" in caplog.text
    other = replace(recipe, model="i3d_r50").plan().cfg
    assert (other.RESNET.DEPTH, other.RESNET.WIDTH_PER_GROUP, other.OCTCONV.ALPHA) == (50, 64, 0.0)
    assert replace(recipe, alpha=0.5).plan().cfg.OCTCONV.ALPHA == 0.5


def lists_of(run):
    folder = Path(run.config.DATA.PATH_TO_DATA_DIR)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"epochs": 9}, r"of another run \(.*another training list"),
        ({"weights": "none.pyth"}, "no such file"),
        ({"probe": True, "weights": "best.pyth"}, "of a training, which a probe would replace"),
    ],
)
def test_a_refused_command_leaves_the_lists_that_other_runs_read(
    run, my_videos, write_clips, said, says
):
    lists = lists_of(run)
    shutil.copy(run.checkpoint, "best.pyth")
    (my_videos / "light").rename(my_videos / "Applaus")
    write_clips(my_videos / "dark", 9, 0)

    with pytest.raises(CheckpointError, match=says):
        octvideo.fit(my_videos, out="run", check=False, **said)

    assert lists_of(run) == lists
    assert not list(Path("run").glob("*.unfinished"))


def test_an_error_on_the_way_leaves_the_lists_that_other_runs_read(
    run, my_videos, write_clips, monkeypatch
):
    lists, kept = lists_of(run), Path("run/config.yaml").read_bytes()
    write_clips(my_videos / "dark", 9, 0)
    shutil.rmtree("run/checkpoints")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("octvideo.runs.fit.estimate", stopped)
    with pytest.raises(KeyboardInterrupt):
        octvideo.fit(my_videos, **NETWORK, out="run")

    assert lists_of(run) == lists
    assert Path("run/config.yaml").read_bytes() == kept
    assert not list(Path("run").glob("*.unfinished"))


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_a_dry_run_leaves_lists_that_are_there_and_plans_with_the_new_ones(
    run, my_videos, write_clips, capsys, has_checkpoint
):
    lists, kept = lists_of(run), Path("run/config.yaml").read_bytes()
    write_clips(my_videos / "middle", 9, 90)
    if not has_checkpoint:
        shutil.rmtree("run/checkpoints")
    small = ["RESNET.WIDTH_PER_GROUP=8", "DATA.NUM_FRAMES=2"]

    with pytest.raises(SystemExit) if has_checkpoint else nullcontext():
        main(["train", str(my_videos), "--out", "run", "--dry-run", "--no-check", *small])

    said = capsys.readouterr()
    assert "3 classes" in said.out
    assert "run/lists: a dry run leaves these lists, and config.yaml, as they are" in said.out
    refusal = (
        "the training would be refused: run/checkpoints/checkpoint_epoch_00001.pyth: of another"
    )
    assert (refusal in said.err) == has_checkpoint
    assert ("another training list" in said.err) == has_checkpoint
    assert lists_of(run) == lists
    assert Path("run/config.yaml").read_bytes() == kept


def test_a_run_that_begins_takes_the_videos_as_they_are_now(run, my_videos, write_clips, tiny):
    shutil.rmtree("run/checkpoints")
    write_clips(my_videos / "middle", 5, 90)

    again = octvideo.fit(my_videos, **NETWORK, out="run", epochs=1, views="1x1", **tiny())

    assert again.recognizer.class_names == ["dark", "light", "middle"]
    assert again.results["num_videos"] == 3
    assert lists_of(again)["class_names.txt"] == b"dark\nlight\nmiddle\n"
    trained = read_weights(again.checkpoint)
    assert str(Path("run/lists").absolute()) in trained.recipe
    assert octvideo.load_config("run/config.yaml") == again.config


def test_a_val_that_grew_while_train_did_not_is_said(run, my_videos, write_clips, capsys):
    parts = json.loads(Path("run/lists/parts.json").read_text())
    write_clips(my_videos / "dark", 6, 0)
    parts[str(my_videos / "dark" / "5.mp4")] = "val"
    Path("run/lists/parts.json").write_text(json.dumps(parts))

    octvideo.fit(my_videos, out="run", check=False, epochs=2)

    said = "another validation from here on (3 entries, then 2): best.pyth is chosen anew"
    assert said in capsys.readouterr().out


def test_a_second_run_from_the_first_one_s_weights_keeps_its_training_videos_out_of_the_test(
    my_videos, write_clips, tiny, capsys
):
    first = octvideo.fit(my_videos, **NETWORK, epochs=1, views="1x1", **tiny())
    trained = Path(first.config.DATA.PATH_TO_DATA_DIR, "train.csv").read_text().splitlines()
    for name, brightness in (("dark", 0), ("light", 180)):
        write_clips(my_videos / name, 15, brightness)

    second = octvideo.fit(
        my_videos,
        **NETWORK,
        weights=first.checkpoint,
        out="second",
        epochs=1,
        views="1x1",
        **tiny(),
    )

    lists = Path(second.config.DATA.PATH_TO_DATA_DIR)
    assert lists == Path("second/lists").absolute()
    for held in ("val.csv", "test.csv"):
        assert not set(trained) & set((lists / held).read_text().splitlines())
    assert f"{first.checkpoint}: trained on another list (6 entries)" in capsys.readouterr().out


def test_a_command_that_waits_for_another_leaves_its_run_as_it_was(my_videos, tiny):
    with (
        only_writer("run"),
        pytest.raises(OctvideoError, match="in use by"),
    ):
        octvideo.fit(my_videos, **NETWORK, out="run", **tiny())

    assert not Path("run/config.yaml").exists()


def test_a_dry_run_chooses_for_a_run_to_come_and_not_for_one_that_is_there(run, my_videos, capsys):
    kept = Path("run/config.yaml").read_bytes()

    main(["train", str(my_videos), "--out", "run", "--dry-run", "--no-check", "--epochs", "9"])
    resumed = (
        "would resume from run/checkpoints/checkpoint_epoch_00001.pyth, with SOLVER.MAX_EPOCH 9"
    )
    assert resumed in capsys.readouterr().out
    assert Path("run/config.yaml").read_bytes() == kept

    shutil.rmtree("run/checkpoints")
    small = ["RESNET.WIDTH_PER_GROUP=8", "DATA.NUM_FRAMES=2", "SOLVER.MAX_EPOCH=9"]
    main(["train", str(my_videos), "--out", "run", "--dry-run", "--no-check", *small])
    assert octvideo.load_config("run/config.yaml").SOLVER.MAX_EPOCH == 9


def test_evaluate_says_what_the_run_s_own_test_said(my_videos, tiny, tmp_path):
    run = octvideo.fit(my_videos, **NETWORK, epochs=1, views="2x1", **tiny())
    tests = f"{run.config.DATA.PATH_TO_DATA_DIR}/test.csv"

    of_path = octvideo.evaluate(run.checkpoint, tests, views="2x1", out=tmp_path / "kept")
    of_recognizer = octvideo.evaluate(run.recognizer, tests, views="2x3", diagnose=True)

    assert of_path["log_loss"] == run.results["log_loss"]
    assert (tmp_path / "kept" / "report.html").is_file()
    assert of_recognizer["num_videos"] == of_path["num_videos"]
    assert of_recognizer["frame_order"]["verdict"]


def evaluate_of_a_rank(checkpoint):
    DEFAULTS["DATA_LOADER"]["NUM_WORKERS"] = 0  # of this process
    print(octvideo.evaluate(checkpoint, "mine.csv", views="1x1")["num_videos"], "scored")


def test_two_ranks_evaluate_in_one_folder_of_their_own_and_leave_nothing(
    my_videos, tiny_checkpoint, tmp_path, monkeypatch
):
    Path("mine.csv").write_text(f"{my_videos}/dark/0.mp4 0\n{my_videos}/light/0.mp4 1\n")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    both = forked_ranks(2, evaluate_of_a_rank, str(tiny_checkpoint), outputs=tmp_path / "said")

    said = [rank.communicate() for rank in both]
    assert [rank.returncode for rank in both] == [0, 0], said
    assert all("2 scored" in text for text in said)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(("crops", "short_side"), [(1, 40), (3, 32)])
def test_a_test_a_recognizer_and_a_prediction_see_the_same_short_side(
    my_videos, tiny, tmp_path, crops, short_side
):
    views, scales = f"2x{crops}", {"TRAIN_JITTER_SCALES": [40, 48]}
    run = octvideo.fit(
        my_videos, **NETWORK, epochs=1, views=views, **tiny(DATA=tiny()["DATA"] | scales)
    )
    tests = f"{run.config.DATA.PATH_TO_DATA_DIR}/test.csv"

    found = octvideo.evaluate(run.recognizer, tests, views=views, out=tmp_path / "again")

    sizes = [
        (r["protocol"]["short_side"], r["protocol"]["crop_size"]) for r in (run.results, found)
    ]
    assert sizes == [(short_side, 32)] * 2
    assert found["log_loss"] == pytest.approx(run.results["log_loss"], abs=1e-5)
    predicted = run.recognizer.predict(Path(tests).read_text().split()[0], views=views)
    scores = np.load(tmp_path / "again" / "scores.npz")["scores"][0]
    assert sorted(p.probability for p in predicted) == pytest.approx(sorted(scores), abs=1e-4)


def test_a_file_and_what_is_loaded_of_it_are_evaluated_alike_with_other_crops(my_videos, tiny):
    data = tiny()["DATA"] | {"TRAIN_JITTER_SCALES": [40, 48], "ENSEMBLE_METHOD": "max"}
    run = octvideo.fit(my_videos, **NETWORK, epochs=1, views="2x3", **tiny(DATA=data))
    tests = f"{run.config.DATA.PATH_TO_DATA_DIR}/test.csv"

    of_path, of_recognizer = (
        octvideo.evaluate(model, tests, views="2x1") for model in (run.checkpoint, run.recognizer)
    )

    assert of_recognizer["log_loss"] == of_path["log_loss"]
    protocol = of_path["protocol"]
    assert (protocol["short_side"], protocol["ensemble"]) == (32, "max")
    assert run.recognizer.view_spec("2x1").short_side == 32


@pytest.mark.parametrize("recipe", ["", SMALL])
def test_a_short_side_that_weights_assume_holds_for_every_number_of_crops(tiny_checkpoint, recipe):
    wider = replace(read_weights(str(tiny_checkpoint)), recipe=recipe)
    wider = replace(wider, input=replace(wider.input, short_side=40))

    found = [
        final_views(settings_of(wider, [f"TEST.NUM_SPATIAL_CROPS={crops}"])) for crops in (1, 3)
    ]

    assert [(spec.short_side, spec.crop_size) for spec in found] == [(40, 32)] * 2


@pytest.mark.parametrize(
    ("changed", "short_side"),
    [
        (["DATA.TEST_CROP_SIZE=48"], 48),
        (["DATA.TRAIN_JITTER_SCALES=[44,48]", "TEST.NUM_SPATIAL_CROPS=1"], 44),
        (["DATA.TEST_SHORT_SIDE", "34"], 34),
    ],
)
def test_the_short_side_of_a_checkpoint_gives_way_to_sizes_of_a_command(
    tiny_checkpoint, changed, short_side
):
    checkpoint = replace(read_weights(str(tiny_checkpoint)), recipe=SMALL)

    assert final_views(settings_of(checkpoint, changed)).short_side == short_side


@pytest.mark.parametrize(
    ("model", "views", "says"),
    [
        (torch.nn.Identity(), "10x3", "evaluate got a Identity"),
        ("x.pyth", "10x2", "crops being 1 or 3"),
        ("x.onnx", "10x3", r"x\.onnx: an exported network.*give the checkpoint"),
    ],
)
def test_evaluate_refuses_in_one_line(model, views, says):
    with pytest.raises(ConfigError, match=says):
        octvideo.evaluate(model, "val.csv", views=views)


@pytest.fixture
def probe_of(my_videos, tiny, tiny_checkpoint):
    """probe_of(**more): a probe with the tiny checkpoint's features."""
    return lambda **more: octvideo.fit(
        my_videos, **NETWORK, weights=tiny_checkpoint, probe=True, **tiny(**more)
    )


@pytest.fixture
def probe(probe_of, once):
    """One in the folder "run"."""
    return once("a probe", lambda: probe_of(out="run"))


def test_a_probe_computes_features_once_and_is_exact_to_resume(probe_of, monkeypatch):
    run = probe_of()
    first = octvideo.load(run.checkpoint).model.head.fc.weight.detach().clone()
    features = sorted(Path(run.folder, "features").rglob("rank_*.jsonl"))
    before = [path.read_bytes() for path in features]

    Path(run.checkpoint).unlink()
    again = probe_of()

    assert len(features) == 2  # of train.csv and val.csv
    assert [path.read_bytes() for path in features] == before
    assert torch.equal(octvideo.load(again.checkpoint).model.head.fc.weight, first)


def test_a_probe_trains_the_classifier_alone_and_predicts(probe, my_videos, tiny_checkpoint):
    model, start = probe.recognizer.model, torch.load(tiny_checkpoint)["model_state"]
    body = {k: v for k, v in model.state_dict().items() if not k.startswith("head.fc")}
    assert all(torch.equal(value, start[name]) for name, value in body.items())
    assert probe.results["protocol"]["views"] == "3x1"
    assert probe.results["top1_acc"] == 100.0
    assert probe.recognizer.predict(my_videos / "light" / "3.mp4")[0].name == "light"
    assert octvideo.load_config("run/config.yaml") == probe.config


def test_a_probe_without_labels_to_validate_on_is_refused_before_its_features(probe_of, my_videos):
    lists = {
        "train.csv": "dark/0.mp4 0\nlight/0.mp4 1\n",
        "val.csv": "path\ndark/1.mp4\n",
        "class_names.txt": "dark\nlight\n",
    }
    for name, text in lists.items():
        (my_videos / name).write_text(text)

    with pytest.raises(DataError, match=r"val\.csv: an unlabeled list can be tested, not trained"):
        probe_of(out="run")

    assert not Path("run/features").exists()
    assert not Path("run/config.yaml").exists()


def test_a_probe_does_not_replace_what_a_training_left(run, my_videos, tiny, tiny_checkpoint):
    trained = Path(run.checkpoint).read_bytes()
    probe = {"out": "run", "probe": True, "weights": tiny_checkpoint, **NETWORK}

    with pytest.raises(CheckpointError, match="of a training, which a probe would replace"):
        octvideo.fit(my_videos, **probe, **tiny())
    for path in Path("run/checkpoints").glob("checkpoint_*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"of a training.*--out\)"):
        octvideo.fit(my_videos, **probe, **tiny())

    assert Path(run.checkpoint).read_bytes() == trained
    assert not Path("run/features").exists()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"model": "c2d_r26"}, r"another probe \(MODEL\.ARCH c2d instead of i3d\), which this one"),
        ({"alpha": 0.0}, r"OCTCONV\.ALPHA 0\.0 instead of 0\.25"),
        ({"weights": "other.pyth"}, r"FILE_PATH other\.pyth instead of .*best\.pyth.*; choose"),
        ({"DATA": {"SAMPLING_RATE": 1}}, r"DATA\.SAMPLING_RATE 1 instead of 2"),
    ],
)
def test_a_probe_does_not_replace_another_one(probe, my_videos, tiny_checkpoint, other, says):
    before = contents_of(probe)
    shutil.copy(tiny_checkpoint, "other.pyth")

    with pytest.raises(CheckpointError, match=says):
        octvideo.fit(my_videos, check=False, probe=True, out="run", **other)

    assert contents_of(probe) == before


@pytest.mark.usefixtures("probe")
def test_a_probe_goes_on_with_other_views_more_videos_and_more_classes(my_videos, write_clips):
    write_clips(my_videos / "middle", 5, 90)

    again = octvideo.fit(my_videos, check=False, probe=True, out="run", views="1x1")

    assert again.results["protocol"]["views"] == "1x1"
    assert len(again.recognizer.class_names) == 3


def contents_of(run):
    return [Path(run.checkpoint).read_bytes(), Path(run.folder, "config.yaml").read_bytes()]


def test_a_training_does_not_replace_what_a_probe_left(probe, my_videos, tiny):
    kept = contents_of(probe)

    with pytest.raises(CheckpointError, match="of a probe, which a training would replace"):
        octvideo.fit(my_videos, **NETWORK, out="run", epochs=1, **tiny())

    assert contents_of(probe) == kept


def test_the_command_does_what_fit_does(my_videos, tiny, capsys):
    settings = [
        f"{section}.{name}={value}"
        for section, values in tiny().items()
        if isinstance(values, dict)
        for name, value in values.items()
    ]
    words = ["train", str(my_videos), "--model", "i3d_r26", "--epochs", "1", "--views", "1x1"]

    main([*words, "--out", "run", *settings])

    out = capsys.readouterr().out
    assert "i3d_r26, from scratch" in out
    assert "on this core about " in out
    assert json.loads(out.splitlines()[-1])["split"] == "test_final"


def test_a_dry_run_says_how_long_it_would_take_and_trains_nothing(my_videos, capsys):
    words = ["--dry-run", "--no-check", "RESNET.WIDTH_PER_GROUP=8", "DATA.NUM_FRAMES=2"]

    main(["train", str(my_videos), "--out", "run", *words])

    out = capsys.readouterr().out
    assert "training" in out.splitlines()[-1]
    assert "`--size small` about" in out
    assert not Path("run/checkpoints").exists()


def test_the_estimate_counts_the_views_and_the_second_pass_of_the_frame_order(
    my_videos, capsys, monkeypatch
):
    for name, value in {
        "_step_seconds": 0.0,
        "_view_seconds": 1.0,
        "_decode_seconds": (0.5, 1),
    }.items():
        monkeypatch.setattr(f"octvideo.assembly.estimate.{name}", lambda *_, v=value: v)
    words = ["--dry-run", "--no-check", "RESNET.WIDTH_PER_GROUP=8", "DATA.NUM_FRAMES=2"]

    main(["train", str(my_videos), "--out", "run", *words])

    # 10 x 3 views and one of each order, decoded twice.
    assert "test 35 seconds" in capsys.readouterr().out


def test_the_estimate_of_a_probe_is_that_of_its_features(
    my_videos, tiny, tiny_checkpoint, capsys, monkeypatch
):
    monkeypatch.setattr("octvideo.assembly.estimate._view_seconds", lambda *_: 1.0)
    monkeypatch.setattr("octvideo.assembly.estimate._decode_seconds", lambda *_: (0.5, 1))
    said = {**NETWORK, "weights": str(tiny_checkpoint), "probe": True, "out": "run"}

    run_recipe(Recipe(str(my_videos), **said, settings=tiny()), only_estimate=True)

    lists = [Path(f"run/lists/{split}.csv").read_text() for split in ("train", "val")]
    videos = sum(text.count(".mp4") for text in lists)
    said_of_time = f"(features {3.5 * videos:.0f} seconds, test"  # 3 x 1 views, decoded once
    assert said_of_time in capsys.readouterr().out


UNLABELED = {
    "train.csv": "dark/0.mp4 0\nlight/0.mp4 1\n",
    "val.csv": "path\ndark/1.mp4\n",
    "class_names.txt": "dark\nlight\n",
}


@pytest.mark.parametrize(
    ("settings", "lists", "says"),
    [
        ({"MODEL": {"CLASS_WEIGHTS": [1, 3]}}, {}, "in a probe all videos count alike"),
        (
            {"MODEL": {"ARCH": "x3d_xs"}, "RESNET": {}},
            {},
            r"x3d_xs: a probe trains a layer head\.fc",
        ),
        ({}, UNLABELED, r"val\.csv: an unlabeled list can be tested, not trained"),
        ({}, UNLABELED | {"train.csv": "gone.mp4 0\n"}, "its videos are missing"),
    ],
    ids=["weights", "classifier", "labels", "videos"],
)
def test_a_dry_run_of_a_probe_refuses_what_the_probe_would(
    my_videos, tiny, tiny_checkpoint, settings, lists, says
):
    for name, text in lists.items():
        (my_videos / name).write_text(text)
    said = {**NETWORK, "weights": str(tiny_checkpoint), "probe": True, "out": "run"}

    with pytest.raises(OctvideoError, match=says):
        run_recipe(Recipe(str(my_videos), **said, settings=tiny(**settings)), only_estimate=True)

    assert not Path("run/config.yaml").exists()


@pytest.mark.parametrize("kind", ["probe", "training"])
def test_a_dry_run_refuses_the_folder_of_another_kind_of_run(
    kind, my_videos, tiny, tiny_checkpoint
):
    best = Path("run/checkpoints/best.pyth")
    best.parent.mkdir(parents=True)
    # What a training leaves tells how far it was, what a probe leaves does not.
    meta = {"data": {}} if kind == "training" else {"data": {}, "progress": {}}
    torch.save(torch.load(tiny_checkpoint) | meta, best)
    said = {**NETWORK, "weights": str(tiny_checkpoint), "probe": kind == "probe", "out": "run"}

    with pytest.raises(CheckpointError, match=f", which a {kind} would replace"):
        run_recipe(Recipe(str(my_videos), **said, settings=tiny()), only_estimate=True)


@pytest.mark.parametrize("words", [[], ["my_videos", "--cfg", "demo/i3d"]])
def test_a_folder_or_a_config_is_wanted(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", *words])

    assert "give a FOLDER of videos or --cfg FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 seconds"),
        (40, "40 seconds"),
        (359, "6 minutes"),
        (9000, "2.5 hours"),
        (3e5, "3.5 days"),
    ],
)
def test_durations_are_in_words(seconds, words):
    assert in_words(seconds) == words


def test_names_of_the_package_come_when_they_are_asked_for():
    assert octvideo.load_config("kinetics400/i3d", OCTCONV={"ALPHA": 0.1}).OCTCONV.ALPHA == 0.1
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = octvideo.fitt


def test_a_worker_that_imports_the_script_says_where_fit_belongs(my_videos, monkeypatch, capsys):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)

    with pytest.raises(SystemExit):
        octvideo.fit(my_videos)

    assert 'call it below `if __name__ == "__main__":`' in capsys.readouterr().err
