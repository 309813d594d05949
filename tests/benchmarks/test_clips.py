"""The clip studies of benchmarks/: packs, the rows and what they start from, runs, records and tables,
on a few small videos."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from octvideo.counted_run import norms_not_computed
from octvideo.data.video.encode import write_video
from octvideo.layers.octave import OctConv3d
from octvideo.weights import inflate
from octvideo.weights.image_weights import ImageWeights

CPU = torch.device("cpu")


@pytest.fixture
def clips(benchmarks):
    return benchmarks("clips")


@pytest.fixture
def gpu(benchmarks):
    return benchmarks("clips_gpu")


@pytest.fixture
def studies(benchmarks):
    return benchmarks("clip_studies")


@pytest.fixture
def tables(benchmarks):
    return benchmarks("clip_tables")


@pytest.fixture
def videos(tmp_path):
    """Twelve videos in two classes, that grow brighter or darker; every third is for testing."""
    folder, lists = tmp_path / "videos", {"train.csv": [], "test.csv": []}
    folder.mkdir()
    for number in range(12):
        levels = np.linspace(20, 220, 10 + number)
        frames = (
            np.ones((len(levels), 48, 64, 3)) * levels[:: 1 - 2 * (number % 2), None, None, None]
        )
        write_video(str(folder / f"{number}.mp4"), frames.astype(np.uint8), 10)
        lists["train.csv" if number % 3 else "test.csv"].append(f"{number}.mp4 {number % 2}\n")
    for name, lines in lists.items():
        (folder / name).write_text("".join(lines))
    return folder


@pytest.fixture
def out(clips, gpu, videos, tmp_path, monkeypatch):
    """A folder of runs with the unpacked videos."""
    monkeypatch.setattr(clips, "FRAMES", 8)
    monkeypatch.setattr(clips, "SHORT_SIDE", 36)
    clips.pack(videos, tmp_path / "hand_gesture.npz")
    gpu.unpack(tmp_path / "hand_gesture.npz", tmp_path / "out.npz")
    (tmp_path / "out").mkdir()
    return (tmp_path / "out.npz").rename(tmp_path / "out" / "hand_gesture.npz").parent


@pytest.fixture
def study(gpu, studies, monkeypatch):
    """Two epochs of networks of an eighth of the width on crops of 32 pixels."""
    options = studies.SMALL | {"width_per_group": 8}
    monkeypatch.setitem(studies.NETWORKS, "I3D", studies.Network("i3d_r26", 4, options))
    study = replace(studies.STUDIES["gestures"], epochs=2, crop=32, batch=4, seeds=(1,))
    monkeypatch.setitem(studies.STUDIES, "gestures", study)
    return study


@pytest.fixture
def row(studies):
    return studies.Row("I3D", 0.5, "divided")


def brightness(images):
    return [float(image.float().mean()) for image in images]


def test_a_pack_has_frames_from_the_first_to_the_last_of_each_video(gpu, out, study, row):
    data = gpu.Clips.read(out / "hand_gesture.npz", CPU, 32, row)

    assert data.videos.shape == (12, 8, 36, 48, 3)
    assert data.parts.tolist() == [0] * 8 + [1] * 4
    assert data.labels.tolist() == [1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1]
    levels = brightness(data.videos[1])
    assert levels == pytest.approx(np.linspace(20, 220, 8), abs=15)


def test_folds_are_parts_from_one(clips, videos):
    lines = [f"{number}.mp4,{number % 4}\n" for number in range(12)]
    (videos / "folds.csv").write_text("path,fold\n" + "".join(lines))

    parts = {name: part for name, _, part in clips.listed(videos)}

    assert parts == {f"{number}.mp4": number % 4 + 1 for number in range(12)}


def test_a_clip_is_evenly_spaced_and_within_the_video(gpu, out, study, row):
    data = gpu.Clips.read(out / "hand_gesture.npz", CPU, 32, row)
    numbers = torch.arange(8)

    drawn = data.draw(numbers, 4, 0)
    assert drawn.shape == (2, 4, 4)
    assert sorted(drawn[..., 0].flatten().tolist()) == list(range(8))
    assert (drawn.flatten(0, 1).amax(0)[1:] < torch.tensor(data.rooms)).all()
    assert torch.equal(drawn, data.draw(numbers, 4, 0))
    assert not torch.equal(drawn, data.draw(numbers, 4, 1))
    (clip,) = data.at(torch.tensor([[1, 1, 2, 3]]))
    expected = data.videos[1, 1::2, 2:34, 3:35].permute(3, 0, 1, 2)
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in row.normalization)
    torch.testing.assert_close(clip, (expected / 255 - mean) / std)


def test_orders_show_other_frames_of_the_same_clip(gpu, out, study, row):
    data = gpu.Clips.read(out / "hand_gesture.npz", CPU, 32, row)
    place = data.middle(torch.tensor([1]))

    plain = data.at(place)
    seen = {name: data.at(place, data.order(name)) for name in gpu.ORDERS}

    assert torch.equal(seen["reversed"], plain.flip(2))
    assert torch.equal(seen["one frame"], plain[:, :, 2:3].expand_as(plain))
    assert sorted(brightness(seen["shuffled"][0, 0])) == brightness(plain[0, 0])
    assert not torch.equal(seen["shuffled"], plain)


def image_network(gpu, studies, alpha, path, **more):
    """A fresh image network, and its weights in a file."""
    options = studies.NETWORKS["I3D"].options
    own = {key: options[key] for key in ("width_per_group", "stages")} | more
    image = gpu.create_model("resnet26", alpha=alpha, num_classes=10, **own)
    torch.save(image.state_dict(), path)
    return image


def test_octave_image_weights_fit_their_video_networks_as_they_are(gpu, studies, tmp_path):
    path = tmp_path / "weights.pt"
    for row in studies.TRANSFER:
        if row.start != "image":
            continue
        pooled = {"downsample": "pool"} if row.network == "I3D, pooled" else {}
        image = image_network(gpu, studies, row.alpha, path, **pooled)
        model = studies.build(row, 17, CPU)

        lines = gpu.fill(model, row, path, torch.zeros(0))

        assert lines[0] == "inflated as they are: 29 layers"  # All but the classifier.
        assert not any(line.startswith(("split", "merged")) for line in lines)
        octave = [m for m in model.modules() if isinstance(m, OctConv3d) and m.in_channels.low]
        assert bool(octave) == bool(row.alpha)
        weight = image.state_dict()["res2.block0.spatial.conv.h2h.weight"]
        own_weight = model.state_dict()["res2.block0.spatial.conv.h2h.weight"]
        torch.testing.assert_close(own_weight.sum(2), weight)


def test_the_rows_name_image_networks_that_are_trained(benchmarks, studies):
    trained = benchmarks("cifar_studies").STUDIES["miniature"].rows
    rows = [row for study in studies.STUDIES.values() for row in study.rows]

    assert {row.image_row for row in rows} == {"", *trained}
    for study in studies.STUDIES.values():
        assert len({row.name for row in study.rows}) == len(study.rows)


def test_a_divided_row_sorts_the_channels_and_strides(gpu, studies, out, study, row, tmp_path):
    data = gpu.Clips.read(out / "hand_gesture.npz", CPU, 32, row)
    image = image_network(gpu, studies, 0.0, tmp_path / "weights.pt")
    model = studies.build(row, 2, CPU)

    lines = gpu.fill(model, row, tmp_path / "weights.pt", data.at(data.middle(torch.arange(4))))

    assert any(line.startswith("split in res2") for line in lines)
    assert model.config["downsample"] == "stride"
    as_they_come = studies.build(row, 2, CPU)
    inflate(image.state_dict(), as_they_come)
    name = "res2.block0.spatial.conv.h2h.weight"
    assert not torch.equal(model.state_dict()[name], as_they_come.state_dict()[name])


def test_pooled_weights_are_divided_for_a_network_that_pools(gpu, studies, out, study, tmp_path):
    row = studies.Row("I3D", 0.5, "pooled_divided")
    data = gpu.Clips.read(out / "hand_gesture.npz", CPU, 32, row)
    image_network(gpu, studies, 0.0, tmp_path / "weights.pt", downsample="pool")
    model = studies.build(row, 2, CPU)

    lines = gpu.fill(model, row, tmp_path / "weights.pt", data.at(data.middle(torch.arange(4))))

    assert any(line.startswith("split in res2") for line in lines)
    strided = [m for m in model.modules() if isinstance(m, OctConv3d) and m.stride[-1] > 1]
    assert strided
    assert all(m.pool == 2 for m in strided)
    assert row.image_row == "ResNet-26, pooled"
    assert (row.vanilla.name, row.pooled.name) == ("I3D, image", "I3D, pooled, image")


def test_a_run_leaves_its_epochs_and_orders_and_is_not_repeated(clips, gpu, out, study):
    key = ("gestures", "Oct-I3D .5, scratch", "1", "1")
    gpu.run(key, out, None)
    lines = list(gpu.read_lines(out / "epochs.jsonl"))
    (run,) = clips.records_of(out / "epochs.jsonl")

    assert [line.get("epoch") for line in lines] == [1, 2, None]
    assert (run["videos"], len(run["curve"])) == (4, 2)
    assert all(0 <= run[order][1] <= 100 for order in clips.ORDERS)
    assert key not in list(gpu.missing([study], lines))
    assert key in list(gpu.missing([study], lines[:-1]))


def test_a_run_that_is_cut_before_its_last_line_writes_that_alone(gpu, out, study, monkeypatch):
    key = ("gestures", "I3D, scratch", "1", "1")
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "tested_in", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gpu.run(key, out, None)

    gpu.run(key, out, None)

    lines = list(gpu.read_lines(out / "epochs.jsonl"))
    assert [line.get("epoch") for line in lines] == [1, 2, None]
    assert not list(out.glob("*.pt"))


def test_a_run_from_image_weights_begins_with_a_probe(clips, gpu, studies, out, study, tmp_path):
    image_network(gpu, studies, 0.5, tmp_path / "weights.pt")

    gpu.run(("gestures", "Oct-I3D .5, image", "1", "1"), out, tmp_path / "weights.pt")

    lines = list(gpu.read_lines(out / "epochs.jsonl"))
    (run,) = clips.records_of(out / "epochs.jsonl")
    assert "probe" in lines[0]
    # Of four test videos.
    assert run["probe"] == lines[0]["probe"] in (0, 25, 50, 75, 100)


def test_features_that_tell_the_classes_give_a_perfect_probe(gpu, out, study, row):
    class Brighter(torch.nn.Module):
        def features(self, x):
            rise = (x[:, :, -1:] - x[:, :, :1]).mean((1, 3, 4), keepdim=True)
            return [torch.cat([rise, torch.randn_like(rise)], 1)]

    data = gpu.Clips.read(out / "hand_gesture.npz", CPU, 32, row)

    assert gpu.probe(Brighter(), data, 1) == 100


def test_imagenet_weights_are_divided_for_octave_networks(gpu, studies, tmp_path, monkeypatch):
    options = {"width_per_group": 8, "stride_1x1": True}
    monkeypatch.setitem(studies.NETWORKS, "I3D-50", studies.Network("i3d_r26", 4, options))
    image = gpu.create_model("resnet26", **options)
    torch.save({"state_dict": image.state_dict()}, tmp_path / "resnet.pth")
    monkeypatch.setattr(
        gpu,
        "read_image_weights",
        lambda checkpoint: ImageWeights(checkpoint.weights, gpu.Assumptions.of(image), "ours"),
    )
    for alpha, expected in ((0.0, "inflated as they are"), (0.5, "split in res2")):
        row = studies.Row("I3D-50", alpha, "imagenet")

        lines = gpu.fill(
            studies.build(row, 2, CPU), row, tmp_path / "resnet.pth", torch.rand(2, 3, 4, 32, 32)
        )

        assert row.is_divided == bool(alpha)
        assert any(line.startswith(expected) for line in lines)


def test_a_run_waits_for_the_weights_that_it_starts_from(gpu, studies, tmp_path, capsys):
    scratch, image = (
        ("gestures", name, "1", "2") for name in ("I3D, scratch", "Oct-I3D .5, image")
    )

    assert gpu.needs(scratch, None, None) is None
    found = gpu.needs(image, tmp_path, None)
    assert found == tmp_path / "weights" / "miniature, Oct-ResNet-26 .5, 2.pt"
    with pytest.raises(SystemExit, match="say with --images"):
        gpu.needs(image, None, None)
    with pytest.raises(SystemExit, match="say with --imagenet"):
        gpu.needs(("imagenet", "I3D-50, imagenet", "1", "1"), tmp_path, None)
    assert gpu.run_all([image], ["false"], 1, 1, {image: found}) == 1
    assert f"1 runs wait for weights that are not there: {found}" in capsys.readouterr().out
    found.parent.mkdir()
    found.touch()
    assert gpu.run_all([image], ["false"], 1, 1, {image: found}) == 1


def test_a_network_of_one_frame_sees_one(gpu, studies, out, study):
    row = studies.Row("C2D, one frame")
    data = gpu.Clips.read(out / "hand_gesture.npz", CPU, 32, row)

    drawn = torch.cat([data.draw(torch.arange(8), 8, epoch)[0] for epoch in range(9)])

    assert set(drawn[:, 1].tolist()) == set(range(8))
    assert data.at(drawn[:2]).shape == (2, 3, 1, 32, 32)


def test_every_network_of_the_studies_is_built_and_takes_its_clips(studies):
    rows, crops = {}, {}
    for study in studies.STUDIES.values():
        for row in study.rows:
            key = row.network, row.alpha, row.has_strides
            rows[key] = row
            crops.setdefault(key, set()).add(study.crop)
    for key, row in rows.items():
        with torch.device("meta"):
            model = studies.build(row, 10, torch.device("meta"))
        for crop in crops[key]:
            shape = (2, 3, studies.NETWORKS[row.network].frames, crop, crop)

            with norms_not_computed(model):
                assert model(torch.empty(shape, device="meta")).shape == (2, 10)


def test_a_gpu_machine_needs_no_package_that_reads_videos(repo):
    blocked = ["av", "fvcore", "matplotlib", "pytorchvideo", "yacs", "tensorboard"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); "
    code += f"sys.path.insert(0, {str(repo / 'benchmarks')!r}); import clips_gpu"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert not ended.returncode, ended.stderr


def run_of(row, seed, part, top1, **more):
    orders = {order: [2.0, 10.0] for order in ("reversed", "shuffled", "one frame")}
    about = {"study": "egogestar", "row": row, "part": part, "seed": seed, "epochs": 1}
    own = {"curve": [[1.0, 90.0, 2.0, top1]], "probe": 30.0, "videos": 50 + part}
    return about | own | orders | more


def test_tables_pair_runs_of_one_seed_and_part(tables):
    study = replace(tables.STUDIES["egogestar"], parts=(1, 2), seeds=(1, 2))
    runs = [
        run_of(row, seed, part, top1 + 2 * seed + part)
        for row, top1 in (
            ("I3D, image", 60),
            ("I3D, pooled, image", 65),
            ("Oct-I3D .5, image", 50),
            ("Oct-I3D .5, divided", 40),
        )
        for seed in (1, 2)
        for part in (1, 2)
    ]
    costs = {"egogestar, Oct-I3D .5, image": 123e6}

    lines = tables.table(study, {"runs": runs[:-1], "costs": costs}).splitlines()

    assert lines[4] == (
        "| Oct-I3D .5 | image weights | 123 | 53.5, 55.5 | 54.5 ± 1.4 | -10.0"
        " | -15.0 | +10.0 |  | 90.0 | 30.0 | 10.0 | 10.0 | 10.0 |"
    )
    # One of its parts is not done in the second seed.
    assert [cell.strip() for cell in lines[5].split(" |")][1:7] == [
        "image weights, divided",
        "",
        "43.5",
        "43.5",
        "-20.0",
        "-25.0",
    ]
    assert lines[-1] == "15 of 64 runs done."


def test_differences_are_means_over_the_seeds_of_a_part(tables):
    top1 = {(1, 1): 60.0, (2, 1): 62.0, (1, 2): 70.0, (2, 2): 73.0}
    runs = {key: run_of("Oct-I3D .5, image", *key, value) for key, value in top1.items()}
    others = {key: run_of("I3D, image", *key, 60.0) for key in runs}

    assert tables.differences(runs, others) == [1.0, 11.5]
    one_part = {key: others[key] for key in ((1, 1), (2, 1))}
    assert tables.differences(runs, one_part) == [0.0, 2.0]


def test_the_page_shows_the_records(tables, clips, repo, tmp_path):
    page, copy = repo / "docs" / "results_clips.md", tmp_path / "page.md"
    copy.write_text(page.read_text())

    tables.write_page(copy, clips.read_records(repo / "benchmarks" / "results"))

    assert copy.read_text() == page.read_text()


def test_a_record_is_of_whole_runs_and_replaced_by_a_later_one(clips, monkeypatch, tmp_path):
    monkeypatch.setattr(clips, "multiply_adds", lambda study, row: 1)
    first, again = (run_of("I3D, image", 1, 1, top1) for top1 in (50, 60))
    partly = run_of("I3D, image", 2, 1, 50)
    del partly["videos"]

    clips.record([first, partly], tmp_path)
    content = clips.record([again], tmp_path)

    assert content["runs"] == [again]
    assert json.loads((tmp_path / "clips.json").read_text())["runs"] == [again]


def test_a_row_is_done_with_all_its_parts_before_the_next(gpu, studies):
    study = replace(studies.STUDIES["egogestar"], parts=(1, 2), seeds=(1, 2))

    keys = list(gpu.missing([study], []))

    assert [key[2:] for key in keys[:4]] == [("1", "1"), ("2", "1")] * 2
    assert keys[0][1] == keys[1][1] != keys[2][1]
    assert len(set(keys)) == len(keys) == 2 * 2 * len(study.rows)


def test_a_point_of_the_picture_is_the_mean_of_whole_seeds(tables):
    study = replace(tables.STUDIES["egogestar"], parts=(1, 2), seeds=(1, 2))
    runs = [
        run_of(row, seed, part, 50.0 + 4 * seed)
        for row in ("I3D, image", "Oct-I3D .5, divided")
        for seed in (1, 2)
        for part in (1, 2)
    ]
    costs = {"egogestar, I3D, image": 4e8, "egogestar, Oct-I3D .5, divided": 3e8}

    vanilla, octave = tables.points(study, {"runs": runs[:-1], "costs": costs})

    assert (vanilla.family, vanilla.alpha, vanilla.gflops) == ("I3D, image weights", 0.0, 0.4)
    assert (vanilla.accuracy, vanilla.ends) == (56.0, pytest.approx((53.17, 58.83), abs=0.01))
    # Its second seed lacks a part.
    assert (octave.family, octave.alpha) == ("I3D, image weights, divided", 0.5)
    assert (octave.accuracy, octave.low) == (54.0, None)


def test_the_picture_of_the_gestures_is_drawn_from_the_records(repo, tmp_path):
    command = [sys.executable, repo / "benchmarks" / "clips.py", "draw", "gestures"]

    ended = subprocess.run(
        [*command, tmp_path / "picture.png"], capture_output=True, text=True, timeout=120
    )

    assert not ended.returncode, ended.stderr
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_page_has_a_place_for_every_study(studies, repo):
    text = (repo / "docs" / "results_clips.md").read_text()
    assert all(f"<!-- clips table {name} -->" in text for name in studies.STUDIES)
