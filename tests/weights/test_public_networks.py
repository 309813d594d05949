"""What people do with public networks, by their names: files of the right layout and a tiny width
stand for them."""

import json
import tarfile
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from test_pretrained import i3d_file, network, pytorchvideo_name

import octvideo
from octvideo.cli import main
from octvideo.data.video.encode import write_video
from octvideo.errors import CheckpointError
from octvideo.weights import pretrained
from octvideo.weights.load import network_of
from octvideo.weights.pretrained import pretrained_networks, read_weights

SETTINGS = """
MODEL: {ARCH: %s, NUM_CLASSES: 400}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: %d}
SLOWFAST: {ALPHA: 4, FUSION_KERNEL_SZ: 7}
DATA: {PATH_TO_DATA_DIR: ., NUM_FRAMES: %d, SAMPLING_RATE: %d, TEST_CROP_SIZE: 256, SAMPLING_RULE: pyslowfast}
TEST: {NUM_ENSEMBLE_VIEWS: 1, NUM_SPATIAL_CROPS: 1}
DATA_LOADER: {NUM_WORKERS: 0}
OUTPUT_DIR: run
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder to work in, and put(name, model, content): a file in the cache folder under a name
    of the table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("octvideo.engine.threads.available_cores", lambda: 1)
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OCTVIDEO_OFFLINE", "1")
    (tmp_path / "home" / "weights").mkdir(parents=True)
    table = dict(pretrained_networks())
    monkeypatch.setattr(pretrained, "pretrained_networks", lambda: table)

    def put(name, model, content):
        table[name] = replace(table[name], model=model, sha256="")
        path = tmp_path / "home" / table[name].file_name
        torch.save(content, path)
        return path

    return put


@pytest.fixture
def video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (12, 40, 48, 3), np.uint8)
    write_video(tmp_path / "a.mp4", frames)
    (tmp_path / "test.csv").write_text("a.mp4 3\n")
    return "a.mp4"


def i3d(zoo):
    model, file = i3d_file()
    zoo("i3d_r50_k400", "i3d_r26", file)
    return model


# --- Commands


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)
def test_a_public_network_is_exported_by_its_name(zoo, tmp_path):
    model = i3d(zoo)

    main(["export", "--checkpoint", "i3d_r50_k400", "--output", "i3d.pt2"])

    facts = json.loads((tmp_path / "i3d.json").read_text())
    assert facts["sampling_rate"] == 8
    assert len(facts["class_names"]) == 400
    exported = torch.export.load("i3d.pt2").module()
    clip = torch.randn(2, 3, 8, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(exported(clip), model(clip), rtol=1e-3, atol=1e-4)


def test_features_and_grad_cam_of_a_public_network_by_its_name(zoo, video, tmp_path):
    i3d(zoo)

    main(["features", "--checkpoint", "i3d_r50_k400", "--video", video, "--output", "f.npz"])
    main(["visualize", "gradcam", "--checkpoint", "i3d_r50_k400", "--video", video])

    with np.load("f.npz") as file:
        assert file["features"].shape == (1, 256)
    assert list((tmp_path / "pictures").iterdir())


def slowfast_file():
    model = octvideo.create_model(
        "slowfast_r26", width_per_group=32, speed_ratio=4, fusion_kernel_size=7
    )
    return {"model_state": model.state_dict()}


EVALUATED = {
    "i3d_r50_k400": ("i3d", 8, 8, 8, lambda: i3d_file()[1]),
    "slow_r50_k400": (
        "slow",
        8,
        8,
        8,
        lambda: {
            pytorchvideo_name(n, False): t for n, t in network("slow_r26").state_dict().items()
        },
    ),
    "slowfast_r50_k400_c2": ("slowfast", 32, 32, 2, slowfast_file),
}


@pytest.mark.parametrize("name", EVALUATED)
def test_a_public_network_is_evaluated_by_its_name(name, zoo, video, tmp_path):
    arch, width, frames, rate, file = EVALUATED[name]
    zoo(name, f"{arch}_r26", file())
    (tmp_path / "my.yaml").write_text(SETTINGS % (arch, width, frames, rate))

    main(["test", "--cfg", "my.yaml", "--checkpoint", name])

    found = json.loads((tmp_path / "run" / "results.json").read_text())
    scores = np.load(tmp_path / "run" / "scores.npz")["scores"]
    recognizer = octvideo.load(name, device="cpu")
    assert found["protocol"]["head_act"] == recognizer.head_act
    np.testing.assert_allclose(scores[0], recognizer.scores(video, views="1x1"), atol=2e-3)


def test_settings_that_contradict_its_scores_are_refused(zoo, video, tmp_path, capsys):
    i3d(zoo)
    (tmp_path / "my.yaml").write_text(SETTINGS % ("i3d", 8, 8, 8))

    with pytest.raises(SystemExit):
        main(["test", "--cfg", "my.yaml", "--checkpoint", "i3d_r50_k400", "MODEL.HEAD_ACT=softmax"])

    assert "set MODEL.HEAD_ACT softmax_of_mean" in capsys.readouterr().err


# --- Image networks


@pytest.mark.parametrize(
    "name", [n for n, e in pretrained_networks().items() if e.layout == "torchvision"]
)
def test_a_torchvision_row_fills_image_and_video_networks(name, zoo):
    entry = pretrained_networks()[name]
    source = octvideo.create_model(entry.model, width_per_group=8, num_classes=1000)
    zoo(name, entry.model, {torchvision_name(n): t for n, t in source.state_dict().items()})

    checkpoint = read_weights(name)

    assert checkpoint.network["name"] == entry.model
    assert checkpoint.input.mean == (0.485, 0.456, 0.406)
    assert len(checkpoint.class_names) == 1000
    loaded = network_of(checkpoint).state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in source.state_dict().items())
    with pytest.raises(CheckpointError, match="holds an image network; `octvideo inflate`"):
        octvideo.load(name)
    if entry.model == "resnet50":
        video = octvideo.create_model("slow_r50", width_per_group=8, num_classes=3, weights=name)
        assert torch.equal(video.stem.conv.weight[:, :, 0], source.stem.conv.weight)


def torchvision_name(name):
    parts = name.replace(".h2h", "").replace(".high", "").split(".")
    if parts[0] == "head":
        return f"fc.{parts[-1]}"
    if parts[0] == "stem":
        return f"{parts[1]}1.{parts[-1]}"
    layer = f"layer{int(parts[0][3:]) - 1}.{parts[1][5:]}"
    if parts[2] == "shortcut":
        return f"{layer}.downsample.{int(parts[3] == 'bn')}.{parts[-1]}"
    number = {"first": 1, "second": 2, "reduce": 1, "spatial": 2, "expand": 3}[parts[2]]
    return f"{layer}.{parts[3]}{number}.{parts[-1]}"


def put_official(name, tmp_path):
    """The official file of a row, in a tar where its address is one; returns its oracle."""
    path = tmp_path / "home" / pretrained_networks()[name].file_name
    params, oracle = tmp_path / "official.params", oracles.load_row(name)
    oracles.rule.write(params, oracles.rule.parameters(oracle))
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as tar:
            tar.add(params, "model-0000.params")
        params.unlink()
    else:
        params.rename(path)
    return oracle


# One of each of the official code's spellings; the others take 5 s each.
FAST = {"preact_resnet26_a0250_in1k", "mobilenet_v1_075_a0375_in1k"}
OFFICIAL = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name, entry in pretrained_networks().items()
    if entry.layout == "official"
]


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_row_gives_the_official_logits(name, zoo, tmp_path):
    oracle = put_official(name, tmp_path)

    checkpoint = read_weights(name)

    assert checkpoint.network["name"] == pretrained_networks()[name].model
    model = network_of(checkpoint).eval()
    with torch.no_grad():
        ours = model(torch.from_numpy(oracles.rule.network_input(oracle)))
    expected = torch.tensor(oracle["logits"])
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
