"""`octvideo sweep`: which runs there are, that they continue, and the table of what they found."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import start_forked
from torch import nn

from octvideo.cli.main import main
from octvideo.config import load_config
from octvideo.data.video.encode import write_video
from octvideo.errors import ConfigError, DataError, OctvideoError
from octvideo.lock import only_writer
from octvideo.report.tradeoff import draw_tradeoff
from octvideo.study import (
    Sweep,
    children,
    measure_times,
    read_rows,
    run_sweep,
    summary,
    sweep,
    trial,
    write_tables,
)
from octvideo.study.children import Children, TrialError, share
from octvideo.study.origin import claim_folder, made_with
from octvideo.study.statistics import difference, independent, interval, spread
from octvideo.study.sweep import measured_times, split_values
from octvideo.study.tables import comma_separated, latex, markdown

CONFIG = "kinetics400/i3d"
WORDS = ["OCTCONV.ALPHA=0,.1", "RNG_SEED=1,2,3", "TRAIN.BATCH_SIZE=8"]
TOP1 = {"0": [50.0, 60.0, 70.0], ".1": [51.0, 62.0, 73.0]}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """The folder that CONFIG names, empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "kinetics400").mkdir(parents=True)
    return tmp_path / "data" / "kinetics400"


@pytest.fixture
def trained(monkeypatch):
    """Runs that take no time: which they were, in their order."""
    done = []

    def train(config, settings, folder, environment, children):
        found = {"OCTCONV.ALPHA": "0"} | dict(word.split("=") for word in settings)
        done.append((found["OCTCONV.ALPHA"], found["RNG_SEED"]))
        alpha = float(found["OCTCONV.ALPHA"])
        more = 2 if alpha and found.get("DATA.PATH_TO_DATA_DIR") == "two" else 0
        network = {"name": "i3d_r50", "alpha": alpha, "parameters": 9, "gflops_per_view": 2 - alpha}
        results = {
            "top1_acc": TOP1[found["OCTCONV.ALPHA"]][int(found["RNG_SEED"]) - 1] + more,
            "protocol": {"network": network},
        }
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(results))

    monkeypatch.setattr(trial, "_train", train)
    return done


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,.1,.2", ("0", ".1", ".2")),
        ("[1,2],[3]", ("[1,2]", "[3]")),
        ("'a,b',c", ("'a,b'", "c")),
        ("adamw", ("adamw",)),
        ("", ("",)),
    ],
)
def test_commas_outside_brackets_divide_values(text, values):
    assert split_values(text) == values


def test_every_combination_is_run_with_every_seed_and_pairs_are_within_seeds(trained, tmp_path):
    sweep = Sweep.of(CONFIG, WORDS)

    run_sweep(sweep, tmp_path, report=lambda line: None)
    table = write_tables(sweep, tmp_path)
    assert "without" not in table

    assert trained == [(alpha, seed) for seed in "123" for alpha in ("0", ".1")]
    assert table.splitlines()[2:] == [
        "| 0 | 2.00 |  | 50.0, 60.0, 70.0 | 60.0 ± 10.0 |  |",
        # 1, 2, 3: standard deviation 1, and Student's t of two degrees of freedom is 4.303.
        "| .1 | 1.90 |  | 51.0, 62.0, 73.0 | 62.0 ± 11.0 | +2.0 (-0.5 to +4.5) |",
    ]
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["difference"] == ""
    assert float(rows[1]["low"]) == pytest.approx(2 - 4.303 / 3**0.5)
    assert r"60.0 $\pm$ 10.0" in (tmp_path / "table.tex").read_text()
    assert (tmp_path / "tradeoff.png").stat().st_size > 10_000


def test_rows_are_networks_of_several_settings_and_folds_repeat_a_run(trained, tmp_path):
    (tmp_path / "rows.yaml").write_text(
        "I3D: [OCTCONV.ALPHA=0]\nOct-I3D, pooled: [OCTCONV.ALPHA=.1, OCTCONV.DOWNSAMPLE=pool]\n"
    )
    for fold in ("one", "two"):
        (tmp_path / fold).mkdir()
    words = ["--paired", "DATA.PATH_TO_DATA_DIR", "DATA.PATH_TO_DATA_DIR=one,two", "RNG_SEED=1,2"]
    files = ["--rows", str(tmp_path / "rows.yaml"), "--out", str(tmp_path / "out")]

    main(["sweep", "--cfg", CONFIG, *words, *files, "--no-times"])

    assert trained == [(alpha, seed) for seed in "12" for _ in range(2) for alpha in ("0", ".1")]
    assert (tmp_path / "out" / "table.md").read_text().splitlines()[::3] == [
        "| network | GFLOPs | ms per view | top-1 of each run | mean | against the first |",
        # 1 and 2 points in the first fold, 3 and 4 in the second: two values, 1.5 and 3.5.
        "| Oct-I3D, pooled | 1.90 |  | 51.0, 53.0, 62.0, 64.0 | 57.5 ± 6.5 | +2.5 (-10.2 to +15.2) |",
    ]
    (tmp_path / "rows.yaml").write_text("I3D: x\n")
    with pytest.raises(ConfigError, match=r"rows.yaml: I3D: 'x' is no list of settings"):
        read_rows(str(tmp_path / "rows.yaml"))


def test_the_picture_of_a_sweep_with_several_labels_shows_map(trained, monkeypatch, tmp_path):
    one = Sweep.of(CONFIG, ["RNG_SEED=1"])
    run_sweep(one, tmp_path, report=lambda line: None)
    (results,) = tmp_path.glob("runs/*/results.json")
    found = json.loads(results.read_text())
    results.write_text(json.dumps({"map": 0.25, "protocol": found["protocol"]}))
    drawn = []
    monkeypatch.setattr(
        summary, "draw_tradeoff", lambda *a, **k: drawn.append(draw_tradeoff(*a, **k)) or drawn[0]
    )

    write_tables(one, tmp_path)

    assert drawn[0].axes[0].get_ylabel() == "mAP, %"


def test_a_run_is_compared_only_where_the_first_network_has_one_too(trained, tmp_path):
    sweep = Sweep.of(CONFIG, WORDS)
    run_sweep(sweep, tmp_path, report=lambda line: None)
    (tmp_path / "runs" / sweep.variants[0].folder(("RNG_SEED=2",)) / "results.json").unlink()

    first, second = summary.lines_of(sweep, tmp_path)

    assert first.scores == [50.0, 70.0]
    assert second.scores == [51.0, 62.0, 73.0]
    assert second.against == [1.0, 3.0]


def test_seeds_of_one_fold_are_one_value_and_without_folds_one_each():
    folds = {"one": [1.0, 2.0], "two": [3.0, 4.0, 5.0]}
    pairs = [(fold, value) for fold, values in folds.items() for value in values]

    assert independent(pairs) == [1.5, 4.0]
    assert independent(pairs[:2]) == [1.0, 2.0]
    assert independent([("one", 1.0), ("two", 3.0)]) == [1.0, 3.0]
    assert independent([]) == []


def test_an_interval_of_folds_and_seeds_misses_the_truth_one_time_in_twenty():
    draw, missed = np.random.default_rng(0), 0
    for _ in range(2000):
        folds = draw.normal(size=4)
        seeds = draw.normal(size=(3, 4)) + folds
        pairs = [(fold, value) for row in seeds for fold, value in enumerate(row.tolist())]
        _, low, high = interval(independent(pairs))
        missed += not low <= 0 <= high

    assert 0.035 < missed / 2000 < 0.065


def test_a_sweep_goes_on_where_it_was_and_takes_more_values(trained, tmp_path):
    first = Sweep.of(CONFIG, ["OCTCONV.ALPHA=0,.1", "RNG_SEED=1"])
    run_sweep(first, tmp_path, report=lambda line: None)

    more = ["OCTCONV.ALPHA=0,.1", "RNG_SEED=1,2", "DATA_LOADER.NUM_WORKERS=1"]
    run_sweep(Sweep.of(CONFIG, more), tmp_path, report=lambda line: None)

    assert trained == [("0", "1"), (".1", "1"), ("0", "2"), (".1", "2")]
    with pytest.raises(ConfigError, match=r"holds a run with SOLVER\.MAX_EPOCH 196 instead of 40;"):
        run_sweep(Sweep.of(CONFIG, ["OCTCONV.ALPHA=0,.1", "SOLVER.MAX_EPOCH=40"]), tmp_path)


def test_a_network_that_was_changed_under_its_name_is_refused_and_no_table_shows_it(
    trained, tmp_path
):
    out = tmp_path / "out"
    rows = {"I3D": ["OCTCONV.ALPHA=0"], "mine": ["OCTCONV.ALPHA=.1"]}
    run_sweep(Sweep.of(CONFIG, ["RNG_SEED=1"], rows), out, report=lambda line: None)
    rows["mine"] = ["OCTCONV.ALPHA=.1", "OCTCONV.DOWNSAMPLE=pool"]
    changed = Sweep.of(CONFIG, ["RNG_SEED=1"], rows)

    for use in (run_sweep, write_tables):
        with pytest.raises(
            ConfigError, match=r"mine,RNG_SEED=1: .* OCTCONV\.DOWNSAMPLE '' instead"
        ):
            use(changed, out)

    assert len(trained) == 2
    assert not (out / "table.md").exists()


def test_seeds_are_not_added_to_runs_of_other_data_and_no_table_shows_both(trained, data, tmp_path):
    for split in ("train", "val"):
        (data / f"{split}.csv").write_text("a.mp4 0\nb.mp4 1\n")
    run_sweep(Sweep.of(CONFIG, ["RNG_SEED=1"]), tmp_path, report=lambda line: None)
    with (data / "train.csv").open("a") as file:
        file.write("c.mp4 1\n")
    more = Sweep.of(CONFIG, ["RNG_SEED=1,2"])

    for use in (run_sweep, write_tables):
        with pytest.raises(ConfigError, match=r"RNG_SEED=1: .* train list 2 .* instead of 3"):
            use(more, tmp_path)

    assert trained == [("0", "1")]


def test_a_setting_that_a_sweep_between_varied_is_not_forgotten(trained, tmp_path):
    for words in (["OCTCONV.ALPHA=0,.1"], ["SOLVER.BASE_LR=.05,.01"]):
        run_sweep(Sweep.of(CONFIG, words), tmp_path, report=lambda line: None)

    with pytest.raises(ConfigError, match=r"ALPHA=0,RNG_SEED=1: holds a run with SOLVER\.BASE_LR"):
        run_sweep(Sweep.of(CONFIG, ["OCTCONV.ALPHA=0,.1", "SOLVER.BASE_LR=.01"]), tmp_path)

    assert len(trained) == 4


def test_a_network_is_timed_anew_when_its_settings_change(monkeypatch, tmp_path):
    timed = []
    monkeypatch.setattr(sweep, "_forward", lambda cfg, device: timed.append(cfg) or int)
    before, after = (
        Sweep.of(CONFIG, [f"DATA.TEST_CROP_SIZE={side}", "OCTCONV.ALPHA=0,.1"])
        for side in (224, 256)
    )
    seeds = Sweep.of(CONFIG, ["DATA.TEST_CROP_SIZE=224", "OCTCONV.ALPHA=0,.1", "RNG_SEED=1,2"])

    measure_times(before, tmp_path)

    assert measured_times(seeds, tmp_path).keys() == {"OCTCONV.ALPHA=0", "OCTCONV.ALPHA=.1"}
    assert measured_times(after, tmp_path) == {}
    measure_times(after, tmp_path)
    assert [cfg.DATA.TEST_CROP_SIZE for cfg in timed] == [224, 224, 256, 256]


@pytest.fixture
def timed(monkeypatch):
    """Networks that take no time: the alphas of those that were timed, by measurement."""
    done = []

    def measure(calls, rounds, device):
        done.append([call() for call in calls.values()])
        return {label: [float(len(done))] * rounds for label in calls}

    monkeypatch.setattr(sweep, "_forward", lambda cfg, device: lambda: cfg.OCTCONV.ALPHA)
    monkeypatch.setattr(sweep, "interleaved", measure)
    return done


def alphas(values):
    return Sweep.of(CONFIG, [f"OCTCONV.ALPHA={values}"])


def test_a_network_that_is_added_is_timed_in_turns_with_all_others(timed, tmp_path):
    for values in ("0,.1", "0,.1", "0,.2", "0,.1,.2"):
        measure_times(alphas(values), tmp_path)

    assert timed == [[0, 0.1], [0, 0.2], [0, 0.1, 0.2]]
    assert set(measured_times(alphas("0,.1,.2"), tmp_path).values()) == {3000.0}


def test_times_of_another_machine_or_of_other_threads_are_shown_until_all_are_timed_here(
    timed, tmp_path, monkeypatch
):
    networks = alphas("0,.1")
    threads = torch.get_num_threads()
    measure_times(networks, tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    before = measured_times(networks, tmp_path)

    measure_times(networks, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    measure_times(networks, tmp_path)
    measure_times(networks, tmp_path)

    assert set(before.values()) == {1000.0}
    assert set(measured_times(networks, tmp_path).values()) == {3000.0}
    assert timed == [[0, 0.1]] * 3


def test_an_image_network_is_timed_at_the_crop_of_its_test(monkeypatch):
    monkeypatch.setattr(sweep, "build_model", lambda cfg: nn.Identity())
    images = ["TRAIN.DATASET=imagenet", "TEST.DATASET=imagenet", "MODEL.ARCH=resnet18"]
    cfg = load_config(CONFIG, [*images, "TEST.IMAGE_CROP_SIZES=[48,32]"])

    assert sweep._forward(cfg, "cpu")().shape == (1, 3, 48, 48)


@pytest.mark.parametrize(
    ("given", "count", "shares"),
    [
        (None, 2, ["0", "1", "0"]),
        ("2,3", 2, ["2", "3", "2"]),
        ("GPU-8932f937, GPU-6ac1", 2, ["GPU-8932f937", "GPU-6ac1", "GPU-8932f937"]),
        ("5,-1,3", 1, [None] * 3),  # CUDA reads up to the first that it does not have
        ("", 0, [None] * 3),
    ],
)
def test_runs_beside_each_other_share_the_gpus_that_were_given(monkeypatch, given, count, shares):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    assert [share(slot, 3).get("CUDA_VISIBLE_DEVICES") for slot in range(3)] == shares
    assert "CUDA_VISIBLE_DEVICES" not in share(0, 1)


def test_runs_beside_each_other_share_the_cores_where_a_process_has_no_mask(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    assert share(0, 3)["OMP_NUM_THREADS"] == "2"


def test_several_runs_at_a_time_find_the_same(trained, tmp_path):
    sweep = Sweep.of(CONFIG, WORDS)

    run_sweep(sweep, tmp_path, jobs=3, keep=False, report=lambda line: None)

    assert sorted(trained) == sorted((a, s) for a in ("0", ".1") for s in "123")
    assert not list(tmp_path.rglob("checkpoints"))
    assert "62.0 ± 11.0" in write_tables(sweep, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["OCTCONV.ALPHA=0,2"], "OCTCONV.ALPHA"),
        (["OCTCONV.ALFA=0,1"], r"did you mean OCTCONV\.ALPHA"),
        (["OCTCONV.ALPHA=0,0"], "each value once"),
        (["RNG_SEED=1,,2"], "each value once"),
        (["TEST.ENABLE=False"], "trains and tests"),
        (["TEST.CHECKPOINT_FILE_PATH=a.pyth"], r"a\.pyth: .*all runs.*; leave it out"),
        (["TEST.CHECKPOINT_FILE_PATH=a.pyth,b.pyth"], r"a\.pyth: .*all runs"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(trained, words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_sweep(Sweep.of(CONFIG, words), tmp_path)

    assert not trained


def test_weights_for_the_test_that_a_config_names_can_be_left_out(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("MODEL: {ARCH: i3d}\nTEST: {CHECKPOINT_FILE_PATH: a.pyth}\n")

    sweep = Sweep.of(str(config), ["TEST.CHECKPOINT_FILE_PATH="])

    assert sweep.settings(sweep.variants[0]).TEST.CHECKPOINT_FILE_PATH == ""


def test_a_folder_that_is_not_there_is_told_before_anything_runs(trained, data, tmp_path):
    data.rmdir()

    with pytest.raises(DataError, match="data/kinetics400: there is no such folder"):
        run_sweep(Sweep.of(CONFIG, WORDS), tmp_path)

    assert not trained


@pytest.mark.parametrize("word", ["OCTCONV.ALPHA=.2", "RNG_SEED=7"])
def test_a_row_cannot_fix_what_varies_for_all_rows(word):
    key = word.partition("=")[0]
    with pytest.raises(ConfigError, match=f"row B: {key} is varied for all rows; give it once"):
        Sweep.of(CONFIG, ["OCTCONV.ALPHA=0,.1"], {"A": [], "B": ["MODEL.DEPTH=50", word]})


def test_a_test_without_labels_is_told_before_anything_runs(trained, data, tmp_path):
    (data / "test.csv").write_text("path\na.mp4\n")

    with pytest.raises(ConfigError, match=r"test.csv has no labels, .*; give it labels, or remove"):
        run_sweep(Sweep.of(CONFIG, WORDS), tmp_path)

    assert not trained


def test_results_of_a_test_without_labels_are_not_compared():
    with pytest.raises(ConfigError, match=r"test.csv has no labels"):
        trial.metric({"task": "unlabelled", "num_videos": 3})


def test_a_run_that_fails_is_named_with_the_end_of_its_log(monkeypatch, tmp_path):
    def failing(self, command, environment, log):
        log.write("epoch 1\nerror: no room\n")
        return 2

    monkeypatch.setattr(Children, "run", failing)
    sweep = Sweep.of(CONFIG, ["OCTCONV.ALPHA=0,.1"])

    with pytest.raises(TrialError, match=r"status 2; .*\.log ends with: error: no room"):
        run_sweep(sweep, tmp_path)

    assert write_tables(sweep, tmp_path) == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_stopped_leaves_no_run_behind(monkeypatch, tmp_path, number):
    started, ended = [], []

    class Sleeping(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **options)
            started.append(self)
            os.kill(os.getpid(), number)

    def stopped(*_):
        ended.append(started[0].returncode)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Sleeping)
    before = signal.signal(signal.SIGTERM, stopped)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_sweep(Sweep.of(CONFIG, ["OCTCONV.ALPHA=0,.1"]), tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert [process.returncode for process in started] == [-signal.SIGTERM]
    assert ended == ([-signal.SIGTERM] if number == signal.SIGTERM else [])


def test_a_run_that_outlived_its_sweep_is_named_as_long_as_it_works(trained, tmp_path):
    sweep = Sweep.of(CONFIG, ["OCTCONV.ALPHA=0"])
    (run,) = sweep.runs
    folder = tmp_path / "runs" / run[1].folder(run[0])
    claim_folder(folder, made_with(sweep.settings(run[1], run[0])))

    with (
        only_writer(str(folder)),
        pytest.raises(OctvideoError, match=rf"in use by .*, process {os.getpid()} on .*; wait for"),
    ):
        run_sweep(sweep, tmp_path, report=lambda line: None)

    assert not trained
    run_sweep(sweep, tmp_path, report=lambda line: None)
    assert trained == [("0", "1")]


def test_results_that_are_damaged_are_told_in_a_line(trained, tmp_path):
    one = Sweep.of(CONFIG, ["OCTCONV.ALPHA=0"])
    run_sweep(one, tmp_path, report=lambda line: None)
    (results,) = tmp_path.rglob("results.json")
    results.write_text(results.read_text()[:20])

    with pytest.raises(ConfigError, match=r"results.json: is damaged .*; delete this file"):
        run_sweep(one, tmp_path)


def test_names_of_folders_are_of_any_file_system_and_differ():
    sweep = Sweep.of(CONFIG, ["TRAIN.CHECKPOINT_FILE_PATH=/a/b.pyth,/a-b.pyth"])

    names = [variant.folder(("RNG_SEED=1",)) for variant in sweep.variants]

    assert len(set(names)) == 2
    assert all("/" not in name for name in names)


def test_statistics_of_few_runs():
    assert spread([50.0]) == "50.0"
    assert interval([2.0]) == (2.0, 2.0, 2.0)
    assert difference([]) == ""
    assert difference([2.0]) == "+2.0"
    assert difference([1.0, 2.0, 3.0], 1) == "+2.0 (-0.5 to +4.5)"
    # Rounded to 1e-4, as in results.json: nothing tells how far two seeds differ.
    assert difference([5.0, 5.0], 1) == difference([61.3 - 56.3, 45.0 - 40.0], 1) == "+5.0"
    # 20 differences of +-1: standard deviation 1.026, Student's t of 19 degrees of freedom 2.093.
    assert interval([1.0, -1.0] * 10)[2] == pytest.approx(2.093 * 1.026 / 20**0.5, abs=1e-3)


def test_tables_escape_what_their_form_would_read():
    assert markdown("a | b", [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    assert r"OCT\_A & 50\%" in latex(["a", "b"], [["OCT_A", "50%"]])
    assert comma_separated(["a", "b"], [["=1", None]]) == "a,b\n'=1,\n"


@pytest.mark.slow
def test_the_command_trains_tests_and_writes_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(children, "subprocess", SimpleNamespace(Popen=start_forked))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for i in range(4):
        frames = np.random.default_rng(i).integers(0, 255, (10, 40, 48, 3), np.uint8)
        write_video(tmp_path / "data" / f"{i}.mp4", frames)
    for split in ("train", "val", "test"):
        (tmp_path / "data" / f"{split}.csv").write_text(
            "".join(f"{i}.mp4 {i % 2}\n" for i in range(4))
        )
    (tmp_path / "mine.yaml").write_text(
        "MODEL: {ARCH: i3d, NUM_CLASSES: 2}\nRESNET: {DEPTH: 26, WIDTH_PER_GROUP: 8}\nDATA:"
        " {NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32,"
        f" TEST_CROP_SIZE: 32, PATH_TO_DATA_DIR: {tmp_path / 'data'}}}\nTRAIN: {{BATCH_SIZE:"
        " 2}\nSOLVER: {BASE_LR: 0.01, MAX_EPOCH: 1}\nTEST: {NUM_ENSEMBLE_VIEWS: 2,"
        " NUM_SPATIAL_CROPS: 1}\nDATA_LOADER: {NUM_WORKERS: 0}\nTENSORBOARD: {ENABLE:"
        " false}\n"
    )
    words = ["sweep", "--cfg", str(tmp_path / "mine.yaml"), "OCTCONV.ALPHA=0,.5"]

    main([*words, "--out", str(tmp_path / "out"), "--jobs", "2"])

    shown = capsys.readouterr().out
    assert "2 networks x 1 repeats" in shown
    assert shown.count("| .5 |") == 1
    times = json.loads((tmp_path / "out" / "sweep.json").read_text())["milliseconds"]
    assert all(ms > 0 for ms in times.values())
    assert len(times) == 2
    # What a run's checkpoint says agrees with its record: the same command goes on.
    main([*words, "--out", str(tmp_path / "out"), "--no-times"])
    assert capsys.readouterr().out.count("| .5 |") == 1


def test_equal_differences_have_no_interval(trained, monkeypatch, tmp_path):
    monkeypatch.setitem(TOP1, ".1", [51.0, 61.0, 71.0])
    sweep = Sweep.of(CONFIG, WORDS)
    run_sweep(sweep, tmp_path, report=lambda line: None)

    assert write_tables(sweep, tmp_path).endswith(" | +1.0 |")
    with (tmp_path / "table.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert [float(row["difference"]), row["low"], row["high"]] == [1.0, "", ""]


def test_videos_that_a_test_could_not_read_are_said_below_the_table(trained, tmp_path):
    sweep = Sweep.of(CONFIG, WORDS)
    run_sweep(sweep, tmp_path, report=lambda line: None)
    for path in tmp_path.glob("runs/*RNG_SEED=2/results.json"):
        results = json.loads(path.read_text()) | {"num_unread": 3, "num_videos": 20}
        path.write_text(json.dumps(results))

    said = write_tables(sweep, tmp_path).rpartition("\n\n")[2]

    assert said == (
        "Videos that a test could not read count as wrong: 3 of 20 in OCTCONV.ALPHA=0,RNG_SEED=2,"
        " 3 of 20 in OCTCONV.ALPHA=.1,RNG_SEED=2"
    )
    assert said in (tmp_path / "table.tex").read_text()
    with (tmp_path / "table.csv").open() as file:
        assert [row["unread"] for row in csv.DictReader(file)] == ["3", "3"]


@pytest.mark.parametrize(
    ("words", "later", "first"),
    [
        (["RNG_SEED=1,01"], "RNG_SEED=01", "RNG_SEED=1"),
        (["SOLVER.BASE_LR=1,1.0"], "SOLVER.BASE_LR=1.0", "SOLVER.BASE_LR=1"),
        (["SOLVER.BASE_LR=1e-3,.001"], "SOLVER.BASE_LR=.001", "SOLVER.BASE_LR=1e-3"),
        (["DATA.RANDOM_FLIP=True,true"], "DATA.RANDOM_FLIP=true", "DATA.RANDOM_FLIP=True"),
        (["OCTCONV.STAGES=[2,3],[2, 3]"], "OCTCONV.STAGES=[2, 3]", "OCTCONV.STAGES=[2,3]"),
        (
            ["OCTCONV.ALPHA=.1,.10", "RNG_SEED=1,2"],
            "OCTCONV.ALPHA=.10",
            "OCTCONV.ALPHA=.1",
        ),
    ],
)
def test_values_that_are_equal_once_they_are_read_are_no_two_runs(words, later, first):
    said = f"{later}: has the settings of {first}; give each once"

    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        Sweep.of(CONFIG, words)


def test_rows_of_equal_settings_are_no_two_runs():
    rows = {"A": ["OCTCONV.ALPHA=.1"], "B": ["OCTCONV.ALPHA=0.1"]}

    with pytest.raises(ConfigError, match=r"^B: has the settings of A; give each once$"):
        Sweep.of(CONFIG, ["RNG_SEED=1,2"], rows)


def test_what_the_cost_of_a_network_leaves_out_is_said_below_the_table(trained, tmp_path):
    sweep = Sweep.of(CONFIG, WORDS)
    run_sweep(sweep, tmp_path, report=lambda line: None)
    for path in tmp_path.glob("runs/*/results.json"):
        results = json.loads(path.read_text())
        results["protocol"]["network"]["uncounted"] = ["rnn.weight"]
        path.write_text(json.dumps(results))

    said = "GFLOPs of i3d_r50, without those of rnn.weight"
    assert write_tables(sweep, tmp_path).endswith(f"|\n\n{said}")
    assert (tmp_path / "table.tex").read_text().endswith(f"% {said}\n")
    with (tmp_path / "table.csv").open() as file:
        assert {row["uncounted"] for row in csv.DictReader(file)} == {"rnn.weight"}
