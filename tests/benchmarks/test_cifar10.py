"""The CIFAR-10 studies of benchmarks/: their specs, records and tables, and the runs for a GPU, on
a few pictures."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from octvideo.assembly.model import build_model
from octvideo.errors import ConfigError
from octvideo.study.origin import claim_folder, settings_of

NOT_ON_A_GPU_MACHINE = ["av", "fvcore", "iopath", "matplotlib", "tqdm", "yacs", "yaml"]


@pytest.fixture
def cifar10(benchmarks):
    return benchmarks("cifar10")


@pytest.fixture
def tables(benchmarks):
    return benchmarks("cifar_tables")


@pytest.fixture
def gpu(benchmarks):
    return benchmarks("cifar10_gpu")


@pytest.fixture
def batches(tmp_path):
    """Eight pictures in each file of the published layout."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = draw.integers(0, 256, (8, 3072), dtype=np.uint8)
        content = {b"data": data, b"labels": [int(x) for x in draw.integers(0, 10, 8)]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=3))
    return folder


@pytest.fixture
def pixels(cifar10, gpu, batches, tmp_path):
    cifar10.pack(str(batches), tmp_path / "pack.npz")
    gpu.unpack(tmp_path / "pack.npz", tmp_path / "pixels.npz")
    return tmp_path / "pixels.npz"


def run_of(row, seed, top1, *, epochs=2, done=2, study="short"):
    curve = [[2.0, 30.0, 1.5 - 0.1 * epoch, top1 - done + epoch] for epoch in range(1, done + 1)]
    return {"study": study, "row": row, "seed": seed, "epochs": epochs, "curve": curve}


def test_every_row_is_the_network_that_its_name_says(cifar10):
    for study in cifar10.STUDIES.values():
        for row, words in study.rows.items():
            settings = dict(word.split("=", 1) for word in words)
            arch, alpha = settings["MODEL.ARCH"], float(settings["OCTCONV.ALPHA"])
            name = f"ResNet-{arch.removeprefix('resnet').removesuffix('_cifar')}"

            assert row.startswith(f"Oct-{name} {alpha:g}".replace("0.", ".") if alpha else name)


@pytest.mark.parametrize(
    ("study", "row"),
    [
        ("short", "Oct-ResNet-20 .5"),
        ("printed", "ResNet-18"),
        ("deep", "Oct-ResNet-18 .25"),
        ("miniature", "Oct-ResNet-26 .1"),
    ],
)
def test_a_gpu_trains_the_networks_of_the_studies_by_their_recipes(cifar10, gpu, study, row):
    study = cifar10.STUDIES[study]
    sweep = cifar10.sweep_of(replace(study, rows={row: study.rows[row]}), "", [1])
    cfg = sweep.settings(sweep.variants[0])
    solver, data = cfg.SOLVER, cfg.DATA

    assert gpu.RECIPES[study.recipe].changed(study.settings) == gpu.Recipe(
        cfg.TRAIN.BATCH_SIZE,
        solver.BASE_LR,
        solver.MAX_EPOCH,
        solver.WARMUP_EPOCHS,
        solver.WEIGHT_DECAY,
    )
    assert (list(gpu.MEAN), list(gpu.STD)) == (data.MEAN, data.STD)
    with torch.device("meta"):
        expected = build_model(cfg).config
    assert gpu.build(study.rows[row], torch.device("meta")).config == expected


def test_a_pack_holds_the_pictures_and_a_crop_is_one_of_theirs(gpu, batches, pixels):
    data = gpu.Pictures.read(pixels, "train", torch.device("cpu"), gpu.PADDING)
    first = pickle.loads((batches / "data_batch_1").read_bytes(), encoding="bytes")
    padded = np.pad(first[b"data"][3].reshape(3, 32, 32), ((0, 0), (4, 4), (4, 4)))
    windows = {padded[:, y : y + 32, x : x + 32].tobytes() for y in range(9) for x in range(9)}
    choices = torch.cat([data.draw(40, epoch)[0] for epoch in range(4)])
    choices[:, 0] = 3

    crops = data.crops(choices).numpy()

    assert data.labels[:8].tolist() == first[b"labels"]
    mirrored = [crop.tobytes() not in windows for crop in crops]
    assert 60 < sum(mirrored) < 100
    assert {np.ascontiguousarray(crop[..., ::-1]).tobytes() for crop in crops[mirrored]} <= windows


def test_an_epoch_takes_each_picture_once(gpu, pixels):
    data = gpu.Pictures.read(pixels, "train", torch.device("cpu"), gpu.PADDING)

    first, again, second = (data.draw(4, epoch) for epoch in (0, 0, 1))

    assert first.shape == (10, 4, 4)
    assert sorted(first[..., 0].flatten().tolist()) == list(range(40))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.fixture
def short(gpu, monkeypatch):
    """Two seeds of two rows, two epochs."""
    study = gpu.STUDIES["short"]
    rows = {row: study.rows[row] for row in ("ResNet-20", "Oct-ResNet-20 .5")}
    study = replace(study, seeds=(1, 2), settings=(), rows=rows)
    monkeypatch.setitem(gpu.STUDIES, "short", study)
    monkeypatch.setitem(gpu.RECIPES, study.recipe, gpu.Recipe(8, 0.01, 2, 0.5, 5e-4))
    return study


def test_a_run_for_a_gpu_leaves_a_line_per_epoch_and_is_not_repeated(
    cifar10, gpu, pixels, tmp_path, short
):
    gpu.run("short", "Oct-ResNet-20 .5", 1, pixels, tmp_path)
    path = tmp_path / "epochs.jsonl"
    lines = list(gpu.read_lines(path))
    (run,) = cifar10.records_of_gpu(path)

    assert [line["epoch"] for line in lines] == [1, 2]
    assert len(run["curve"]) == run["epochs"] == 2
    assert [len(epoch) for epoch in run["curve"]] == [4, 4]
    left = list(gpu.missing([short], lines))
    assert left == [
        ("short", "ResNet-20", "1"),
        ("short", "ResNet-20", "2"),
        ("short", "Oct-ResNet-20 .5", "2"),
    ]
    assert len(list(gpu.missing([short], lines[:1]))) == 4


def test_a_run_that_was_cut_short_goes_on_to_the_bit(
    cifar10, gpu, side_by_side, pixels, tmp_path, short, monkeypatch
):
    monkeypatch.setattr(side_by_side, "SAVE_SECONDS", 0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    run = ("short", "Oct-ResNet-20 .5", 1, pixels)
    gpu.run(*run, whole)
    save = torch.save

    def save_and_stop(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        gpu.run(*run, cut)
    monkeypatch.setattr(torch, "save", save)
    (left,) = cut.glob("*.new")
    left.rename(side_by_side.state_file(cut, ("short", "Oct-ResNet-20 .5", "1")))
    gpu.run(*run, cut)

    curves = [
        cifar10.records_of_gpu(folder / "epochs.jsonl")[0]["curve"] for folder in (whole, cut)
    ]
    assert curves[0] == curves[1]
    assert not list(cut.glob("*.pt"))


def test_all_runs_of_a_study_are_done_and_an_error_counts(
    gpu, batches, cifar10, tmp_path, capsys, monkeypatch
):
    pack = tmp_path / "pack.npz"
    cifar10.pack(str(batches), pack)
    stem = gpu.STUDIES["stem"]
    rows = {row: stem.rows[row] for row in ("ResNet-18, stem 7x7", "ResNet-18, stem 3x3")}
    monkeypatch.setitem(gpu.STUDIES, "stem", replace(stem, rows=rows))
    words = ["cifar10_gpu.py", str(pack), "--out", str(tmp_path / "out"), "--jobs", "4", "stem"]
    monkeypatch.setattr("sys.argv", words)

    # 40 pictures are no batch of 128.
    failed = gpu.main()

    assert failed == 2
    assert "stem, ResNet-18, stem 7x7, 1: ended with status 1" in capsys.readouterr().out


def test_what_prepares_the_graphs_leaves_no_trace_and_steps_are_those_of_plain_training(
    gpu, pixels, short
):
    data = gpu.Pictures.read(pixels, "train", torch.device("cpu"), gpu.PADDING)
    test = gpu.Pictures.read(pixels, "val", torch.device("cpu"), 0)
    recipe = gpu.RECIPES[short.recipe]
    words = short.rows["Oct-ResNet-20 .5"]
    trainee = gpu.trainee(words, recipe, data, test, 1)
    torch.manual_seed(1)
    model = gpu.build(words, torch.device("cpu"))
    optimizer = gpu.make_optimizer(model, lr=0.0, weight_decay=recipe.weight_decay)
    work = gpu.work(recipe, data, test, 1)

    lines = [line for line in trainee.train() if line]
    losses = []
    for epoch in range(recipe.epochs):
        for step, row in enumerate(work.draw(epoch)):
            inputs, labels = work.sample(row)
            for group in optimizer.param_groups:
                group["lr"] = work.lr(epoch + step / 5)
            with trainee.autocast():
                loss = torch.nn.functional.cross_entropy(model.train()(inputs).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1]["train"][0] == pytest.approx(np.mean(losses[5:]), rel=1e-3)
    weights = dict(model.named_parameters())
    for name, weight in trainee.model.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-5)


def test_the_studies_may_stand_behind_the_options(gpu, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(gpu, "unpack", lambda *paths: None)
    monkeypatch.setattr(gpu, "run_all", lambda keys, *rest: asked.append(keys) or 0)
    out = str(tmp_path / "out")
    words = ["cifar10_gpu.py", "pack.npz", "--out", out, "--minutes", "8", "deep", "small"]
    monkeypatch.setattr("sys.argv", words)

    gpu.main()

    assert list(dict.fromkeys(study for study, *_ in asked[0])) == ["deep", "small"]
    monkeypatch.setattr("sys.argv", [*words, "deeper"])
    with pytest.raises(SystemExit):
        gpu.main()


def test_a_gpu_machine_needs_torch_numpy_and_pillow_alone(repo):
    blocked = f"import sys; sys.modules.update(dict.fromkeys({NOT_ON_A_GPU_MACHINE})); "
    there = f"sys.path.insert(0, {str(repo / 'benchmarks')!r}); import cifar10_gpu"

    ended = subprocess.run(
        [sys.executable, "-c", blocked + there], capture_output=True, text=True, timeout=60
    )

    assert not ended.returncode, ended.stderr


def test_the_curve_is_of_whole_epochs_and_the_last_start_counts(cifar10, tmp_path):
    lines = [
        {"_type": "train_epoch", "epoch": 1, "loss": 2.0, "top1_err": 70.0},
        {"_type": "val_epoch", "epoch": 1, "loss": 1.5, "top1_err": 60.0},
        {"_type": "train_iter", "epoch": 2, "loss": 1.0, "top1_err": 1.0},
        {"_type": "train_epoch", "epoch": 2, "loss": 1.0, "top1_err": 50.0},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"_type": "val_ep')

    assert cifar10.curve_of(path) == [[2.0, 30.0, 1.5, 40.0]]


def test_a_record_is_replaced_by_one_that_came_further(cifar10, tmp_path):
    first, further = (run_of("ResNet-20", 1, 80.0, epochs=4, done=n) for n in (1, 3))
    other = run_of("ResNet-20", 2, 79.0)

    cifar10.record([further, other], tmp_path)
    cifar10.record([first], tmp_path)

    assert cifar10.read_records(tmp_path)["runs"] == [further, other]


def test_runs_of_other_settings_are_not_recorded(cifar10, tmp_path):
    study = replace(cifar10.STUDIES["short"], seeds=(1,))
    words = ["record", "short", str(tmp_path), str(tmp_path), "--results", str(tmp_path / "found")]
    sweep = cifar10.sweep_of(study, str(tmp_path), [1])
    folder = tmp_path / "short" / "runs" / sweep.variants[0].folder(sweep.repetitions[0])
    claim_folder(folder, settings_of(sweep.settings(sweep.variants[0])))
    (folder / "results.json").write_text("{}")
    changed = replace(study, settings=(*study.settings, "SOLVER.BASE_LR=0.07"))

    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LR .* instead of 0\.07"):
        cifar10.follow(cifar10.parse(words), changed)

    assert not (tmp_path / "found").exists()


def test_some_networks_of_a_study_run_alone(cifar10, monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(cifar10, "run_sweep", lambda sweep, *rest, **more: ran.append(sweep))
    words = ["run", "short", str(tmp_path), str(tmp_path), "--results", str(tmp_path / "found")]
    study = cifar10.STUDIES["short"]

    cifar10.follow(cifar10.parse([*words, "--rows", "Oct-ResNet-20 .75"]), study)

    assert [variant.row for variant in ran[0].variants] == ["Oct-ResNet-20 .75"]
    with pytest.raises(ConfigError, match=r"^--rows ResNet-21: short has ResNet-20, "):
        cifar10.follow(cifar10.parse([*words, "--rows", "ResNet-21"]), study)


@pytest.mark.parametrize(("bf16", "machine"), [(True, "CPU"), (False, "CPU, fp32")])
def test_a_cpu_without_bfloat16_computes_in_float32_and_the_record_says_so(
    cifar10, monkeypatch, tmp_path, bf16, machine
):
    monkeypatch.setattr(cifar10, "computes_bf16", lambda device: bf16)
    study = replace(cifar10.STUDIES["short"], seeds=(1,))
    sweep = cifar10.sweep_of(study, str(tmp_path), [1])
    folder = tmp_path / "runs" / sweep.variants[0].folder(sweep.repetitions[0])
    folder.mkdir(parents=True)
    lines = [
        {"_type": "train_epoch", "epoch": 1, "loss": 2.0, "top1_err": 70.0},
        {"_type": "val_epoch", "epoch": 1, "loss": 1.5, "top1_err": 60.0},
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")

    (found,) = cifar10.records_of(study, sweep, tmp_path)

    assert sweep.settings(sweep.variants[0]).TRAIN.MIXED_PRECISION is bf16
    assert (found["machine"], found["curve"]) == (machine, [[2.0, 30.0, 1.5, 40.0]])


def test_the_networks_of_a_study_are_timed_in_turns(cifar10, monkeypatch):
    study = replace(
        cifar10.STUDIES["short"],
        rows=dict(list(cifar10.STUDIES["short"].rows.items())[:2]),
        settings=("TRAIN.BATCH_SIZE=2",),
    )
    clock = iter([0, 9, 10, 19, 20, 22, 30, 34, 40, 41, 50, 53])  # starts and ends of the steps
    monkeypatch.setattr(cifar10.time, "process_time", lambda: next(clock))

    vanilla, octave = cifar10.measure(study, rounds=2).values()

    assert vanilla["macs"] > octave["macs"]
    assert vanilla["parameters"] > 200_000
    assert vanilla["epoch_seconds"] == 1.5 * 25_000  # the first step of each does not count
    assert vanilla["times"] == [1, 1, 1]
    assert octave["times"] == [2.5, 2, 3]


def test_only_whole_runs_count_and_the_others_are_named(tables):
    study = tables.STUDIES["short"]
    runs = [run_of("ResNet-20", seed, 80.0 + seed) for seed in (1, 2, 3)]
    runs += [run_of("Oct-ResNet-20 .5", seed, 79.0 + seed) for seed in (1, 2)]
    runs.append(run_of("Oct-ResNet-20 .5", 3, 70.0, epochs=2, done=1))
    costs = {
        "short": {
            "ResNet-20": {"macs": 4e7, "parameters": 3e5, "epoch_seconds": 99.6, "times": [1, 1, 1]}
        }
    }
    costs["short"]["Oct-ResNet-20 .5"] = costs["short"]["ResNet-20"] | {"times": [0.9, 0.85, 1.0]}

    lines = tables.table(study, {"runs": runs, "costs": costs}).splitlines()

    assert lines[2] == (
        "| ResNet-20 | 40.0 | 0.30 | 100 |  | 81.0, 82.0, 83.0 | 82.0 ± 1.0 |  |  | 85.02 |"
    )
    assert "| 0.90 (0.85 to 1.00) |" in lines[3]
    assert "| 80.0, 81.0 | 80.5 ± 0.7 | -1.0 |" in lines[3]
    assert lines[-1] == ("5 of 27 runs done. Oct-ResNet-20 .5, seed 3: 70.0 % at epoch 1 of 2.")


def test_the_verdict_is_of_pairs_of_runs(tables):
    runs = [run_of("ResNet-20", 1, 80.0), run_of("Oct-ResNet-20 .5", 1, 79.5)]
    runs.append(run_of("Oct-ResNet-20 .25", 2, 70.0))

    said = tables.verdict(tables.STUDIES["short"], {"runs": runs})

    assert said == (
        "ResNet-20 reaches 80.0 % (1 of 3 seeds); Oct-ResNet-20 .5 -0.5 (1 of 3 seeds), after 2 epochs."
    )
    assert tables.verdict(tables.STUDIES["short"], {"runs": []}) == "No run is done."


def test_curves_say_where_the_test_loss_was_lowest(tables):
    run = run_of("ResNet-20", 1, 80.0)
    run["curve"][1][2] = 1.6

    lines = tables.curves(tables.STUDIES["short"], {"runs": [run]}).splitlines()

    assert lines[2].startswith("| ResNet-20 | train | 30.0 | 30.0 |")
    assert lines[3].endswith("| 1 |")


def test_the_page_holds_the_tables_of_the_records(cifar10, repo, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(cifar10.PAGE.read_text())

    cifar10.write_page(page, cifar10.read_records(repo / "benchmarks" / "results"))

    assert page.read_text() == cifar10.PAGE.read_text()


def test_octave_rows_are_held_against_the_network_that_has_the_pools_alone(tables):
    tops = {"ResNet-20": 80.0, "ResNet-20, pooled": 83.0, "Oct-ResNet-20 .5": 82.0}
    runs = [run_of(row, seed, top + seed) for row, top in tops.items() for seed in (1, 2)]
    runs = [run | {"study": "small"} for run in runs]

    head, _, first, octave, pooled, *_ = tables.table(
        tables.STUDIES["small"], {"runs": runs, "costs": {}}
    ).splitlines()

    assert "| against ResNet-20 | against ResNet-20, pooled |" in head
    cells = [[cell.strip() for cell in line.split(" |")[7:9]] for line in (first, octave, pooled)]
    assert cells == [
        ["", ""],
        ["+2.0", "-1.0"],
        ["+3.0", ""],
    ]
