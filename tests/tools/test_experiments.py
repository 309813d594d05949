"""The harness of benchmarks/: its table of runs, what it skips, and its arithmetic. No network is
trained."""

import functools
import importlib
import json
from dataclasses import replace

import pytest
import torch

from octvideo.assembly.model import build_model
from octvideo.config import load_config
from octvideo.study import trial
from octvideo.study.children import TrialError


@pytest.fixture
def experiments(repo, monkeypatch):
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    return importlib.import_module("experiments")


@pytest.fixture
def study(experiments):
    """Two networks on a set of two recordings."""
    rows = tuple(experiments.Row("I3D", alpha, "scratch") for alpha in (0.0, 0.5))
    return experiments.Study("small", "clips", 64, rows, settings=("TRAIN.BATCH_SIZE=2",))


@pytest.fixture
def data(tmp_path):
    """clips/ with its lists; four files of the recordings 1 to 4."""
    folder = tmp_path / "data" / "clips"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text("a.avi 0\nb.avi 1\n")
    (folder / "test.csv").write_text("c.avi 0\nd.avi 1\n")
    (folder / "sequences.csv").write_text(
        "file,label,set,sequence,frames\na.avi,0,1,1,9\nb.avi,1,1,2,9\n"
    )
    (folder / "classes.txt").write_text("wave\nclap\n")
    with (folder / "sequences.csv").open("a") as file:
        file.write("c.avi,0,1,3,9\nd.avi,1,1,4,9\n")
    return tmp_path / "data"


def content(study, top1):
    """top1: by alpha, one number per seed."""
    runs = [
        {**row._asdict(), "seed": seed, "split": "test", "top1": value, "gflops": 2.0, "loss": 1.5}
        for row in study.rows
        for seed, value in enumerate(top1[row.alpha], 1)
    ]
    return {"clip_seconds": {"I3D, scratch": 0.0305}, "runs": runs}


def test_every_row_of_every_study_is_a_recipe_for_a_network(repo, experiments):
    networks = {}
    for study in experiments.STUDIES.values():
        for row in study.rows:
            words = [*study.settings, *row.settings(study)]
            networks[row.network, row.alpha] = load_config(str(repo / experiments.CONFIG), words)

    for (name, alpha), cfg in networks.items():
        with torch.device("meta"):
            model = build_model(cfg)

        assert model.config["alpha"] == alpha, name


def test_no_two_rows_of_a_study_are_the_same(experiments):
    for study in experiments.STUDIES.values():
        assert len(set(study.rows)) == len(study.rows)


@pytest.fixture
def trained(monkeypatch, experiments):
    """Runs that take no time: the rows and seeds that were run; the third fails, once."""
    done = []

    def train(config, settings, folder, environment, children):
        values = dict(word.split("=", 1) for word in settings)
        done.append((float(values["OCTCONV.ALPHA"]), int(values["RNG_SEED"])))
        if len(done) == 3:
            raise TrialError("no room")
        folder.mkdir(parents=True, exist_ok=True)
        network = {"name": "i3d", "gflops_per_view": 1.0, "parameters": 9}
        found = {
            "top1_acc": 50.0,
            "top1_interval": [40, 60],
            "num_videos": 2,
            "log_loss": 0.28768207,
        }
        (folder / "results.json").write_text(json.dumps(found | {"protocol": {"network": network}}))

    monkeypatch.setattr(trial, "_train", train)
    monkeypatch.setattr(experiments, "measure_times", lambda sweep, out: None)
    monkeypatch.setattr(
        experiments, "extract", lambda *_: dict.fromkeys(("a.avi", "b.avi", "c.avi", "d.avi"), 9)
    )
    return done


def test_a_series_continues_and_leaves_a_record_of_each_run(
    experiments, study, data, trained, tmp_path
):
    sweep = experiments.sweep_of(study, data, tmp_path / "out", [1, 2])
    run = functools.partial(
        experiments.run, study, sweep, tmp_path / "out/small", tmp_path / "results"
    )
    records = tmp_path / "results" / "small.json"

    with pytest.raises(TrialError):
        run()
    first = experiments.read_study(records)["runs"]
    run()
    runs = experiments.read_study(records)["runs"]

    assert trained == [(0.0, 1), (0.5, 1), (0.0, 2), (0.0, 2), (0.5, 2)]
    assert len(first) == 2
    assert [(run["alpha"], run["seed"]) for run in runs] == [(0, 1), (0, 2), (0.5, 1), (0.5, 2)]
    assert {run["split"] for run in runs} == {"test"}
    assert runs[0]["loss"] == 0.2877


def test_times_are_recorded_of_all_rows_together(
    experiments, study, data, trained, tmp_path, monkeypatch
):
    trained += [None] * 3  # so that none fails
    records = tmp_path / "results" / "small.json"

    def times(*only):
        sweep = experiments.sweep_of(study, data, tmp_path / "out", [3], only)
        ms = dict.fromkeys(sweep.rows, 100.0 + len(only))
        monkeypatch.setattr(experiments, "measured_times", lambda sweep, out: ms)
        experiments.run(study, sweep, tmp_path / f"out{len(only)}", tmp_path / "results")
        return experiments.read_study(records)["clip_seconds"]

    some = times(study.rows[0].name)
    together = times()

    assert some == {}
    assert together == {row.name: 0.1 for row in study.rows} == times(study.rows[0].name)


def test_records_of_other_settings_are_not_mixed_with_these(
    experiments, study, data, trained, tmp_path
):
    experiments.write_study(
        tmp_path / "small.json", {"settings": ["TRAIN.BATCH_SIZE=4"], "runs": []}
    )
    sweep = experiments.sweep_of(study, data, tmp_path / "out", [1])

    with pytest.raises(SystemExit, match=r"small.json was made with other settings"):
        experiments.run(study, sweep, tmp_path / "out", tmp_path)

    assert not trained


def test_frames_of_another_size_are_not_taken_for_these(
    experiments, study, data, trained, tmp_path
):
    studies = (study, replace(study, short_side=72))
    sweeps = [experiments.sweep_of(one, data, tmp_path, [1]) for one in studies]

    folders = [next(word for word in sweep.fixed if "PATH_PREFIX" in word) for sweep in sweeps]

    assert len(set(folders)) == 2


def test_folds_test_every_clip_once_and_keep_recordings_apart(experiments, study, data):
    folds = list(experiments.splits(replace(study, parts="folds"), data / "clips"))

    assert sorted(path for _, _, test in folds for path, _ in test) == [
        "a.avi",
        "b.avi",
        "c.avi",
        "d.avi",
    ]
    assert all(len(train) == 3 and not set(train) & set(test) for _, train, test in folds)


def test_folds_that_a_set_comes_with_are_taken(experiments, study, data):
    (data / "clips" / "folds.csv").write_text(
        "path,label,number,fold\na.avi,0,1,0\nb.avi,1,1,0\nc.avi,0,2,3\nd.avi,1,2,3\n"
    )

    folds = list(experiments.splits(replace(study, parts="folds"), data / "clips"))

    first, second = [("a.avi", "0"), ("b.avi", "1")], [("c.avi", "0"), ("d.avi", "1")]
    assert folds == [("fold 1 of 2", second, first), ("fold 2 of 2", first, second)]


def test_settings_are_chosen_without_the_test_list(experiments, study, data):
    (data / "clips" / "train.csv").write_text("a.avi 0\nb.avi 1\nc.avi 0\n")
    (data / "clips" / "test.csv").write_text("d.avi 1\n")

    parts = list(experiments.splits(replace(study, parts="held out"), data / "clips"))

    assert parts == [("held out", [("a.avi", "0"), ("b.avi", "1")], [("c.avi", "0")])]


def test_a_table_has_mean_spread_and_the_difference_within_seeds(experiments, study):
    lines = experiments.table(
        study, content(study, {0.0: [50.0, 60.0, 70.0], 0.5: [51.0, 62.0, 73.0]})
    ).splitlines()

    assert lines[2] == "| I3D | scratch | 2.00 | 30 | 50.0, 60.0, 70.0 | 60.0 ± 10.0 |  | 1.50 |"
    # 1, 2, 3: standard deviation 1, and Student's t of two degrees of freedom is 4.303.
    assert (
        lines[3]
        == "| Oct-I3D .5 | scratch | 2.00 |  | 51.0, 62.0, 73.0 | 62.0 ± 11.0 | +2.0 (-0 to +4) |"
        " 1.50 |"
    )


def test_differences_are_means_over_the_seeds_of_a_part(experiments, study):
    found = content(study, {0.0: [50.0, 60.0], 0.5: [51.0, 64.0]})
    split = [dict(run, split="other", top1=run["top1"] + 4 * run["alpha"]) for run in found["runs"]]
    found["runs"] += split

    # 1 and 4 points in one part, 3 and 6 in the other: 2.5 and 4.5.
    assert "| +3.5 (-9 to +16) |" in experiments.table(study, found)


def test_many_pairs_have_an_interval_as_well(experiments):
    # 20 differences of +-1: standard deviation 1.026, Student's t of 19 degrees of freedom 2.093.
    assert experiments.difference([1.0, -1.0] * 10) == "+0.0 (-0 to +0)"
    assert experiments.difference([10.0, -10.0] * 10) == "+0.0 (-5 to +5)"


def test_one_seed_has_no_interval_and_a_row_without_runs_no_line(experiments, study):
    text = experiments.table(study, content(study, {0.0: [50.0], 0.5: []}))

    assert text.splitlines()[2:] == ["| I3D | scratch | 2.00 | 30 | 50.0 | 50.0 |  | 1.50 |"]


def test_videos_that_a_test_could_not_read_are_said_wherever_its_accuracy_is(
    experiments, study, tmp_path
):
    found = content(study, {0.0: [50.0, 60.0], 0.5: []})
    found["runs"][1] |= {"num_unread": 1, "videos": 9}

    text = experiments.table(study, found)
    experiments.write_means(study, found, tmp_path)

    network = found["runs"][1]["network"]
    assert text.endswith(f"count as wrong: 1 of 9 in {network}, seed 2, test")
    counts = [json.loads(path.read_text())["num_unread"] for path in tmp_path.glob("*.json")]
    assert sorted(counts) == [0, 1]


def test_means_are_drawn_by_the_tradeoff_tool(experiments, study, tmp_path):
    from octvideo.study import draw_runs

    experiments.write_means(study, content(study, {0.0: [50.0, 60.0], 0.5: [40.0]}), tmp_path)

    assert draw_runs(sorted(tmp_path.glob("*.json")), tmp_path)[0].stat().st_size > 1000


def test_the_tables_of_the_page_are_those_of_the_records(repo, experiments):
    page = (repo / "docs" / "results_tables.md").read_text()

    for path in (repo / "benchmarks" / "results").glob("*.json"):
        if study := experiments.STUDIES.get(path.stem):
            assert experiments.table(study, experiments.read_study(path)) in page, (
                f"paste what `python benchmarks/experiments.py table {path.stem}` prints"
            )
