"""A trained network as a folder that others load, with a card that says what it is and how well it
does."""

import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import octvideo
from octvideo import hub
from octvideo.assembly import build_model
from octvideo.assembly.weights import start_lines
from octvideo.checkpoint import Checkpoint
from octvideo.cli.main import main
from octvideo.complexity import count
from octvideo.config import load_config
from octvideo.download import hash_of
from octvideo.errors import CheckpointError, DataError, OctvideoError
from octvideo.publish import write_card


@pytest.fixture
def run(tiny_checkpoint, tmp_path) -> Path:
    """The folder of a tested run."""
    checkpoint = tmp_path / "run" / "checkpoints" / "best.pyth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(tiny_checkpoint.read_bytes())
    results = {
        "split": "test_final",
        "num_videos": 40,
        "num_unread": 2,
        "top1_acc": 62.5,
        "top5_acc": 90.0,
        "top1_interval": [47.5, 77.5],
        "protocol": {
            "checkpoint_sha256": hash_of(checkpoint),
            "list": "/home/somebody/data/mine/test.csv",
            "views": "10x3",
        },
        "data": {"entries": 40, "fingerprint": "0123456789abcdef"},
        "made_with": {"octvideo": "0.1.0", "commit": "abc"},
    }
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    return tmp_path / "run"


def test_the_folder_names_videos_as_the_checkpoint_does(run, tmp_path):
    clip = np.random.default_rng(0).integers(0, 255, (12, 40, 40, 3), np.uint8)
    write_card(str(run / "checkpoints" / "best.pyth"), tmp_path / "mine")

    published = octvideo.load(tmp_path / "mine", device="cpu")

    trained = octvideo.load(run / "checkpoints" / "best.pyth", device="cpu")
    np.testing.assert_array_equal(
        published.scores(clip, views="1x1"), trained.scores(clip, views="1x1")
    )
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "README.md",
        "classes.txt",
        "config.yaml",
        "input.json",
        "model.safetensors",
    ]
    assert (tmp_path / "mine" / "classes.txt").read_text().split() == list("abcdef")


def test_the_folder_says_which_list_the_weights_were_trained_on(run, tmp_path):
    path, data = str(run / "checkpoints/best.pyth"), {"fingerprint": "f", "samples": 8}
    trained = Checkpoint.read(path)
    replace(trained, training={**trained.training, "data": data}).write(path)

    write_card(path, tmp_path / "mine")

    assert Checkpoint.read(str(tmp_path / "mine/model.safetensors")).training == {"data": data}


@pytest.mark.parametrize("name", ["README.md", "config.yaml", "model.safetensors"])
def test_files_of_something_else_are_not_replaced(run, tmp_path, name, capsys):
    checkpoint = str(run / "checkpoints" / "best.pyth")
    (run / name).write_text("---\nof: something else\n---\nlibrary_name: octvideo\n")
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    words = ["export", "--checkpoint", checkpoint, "--card", str(run)]

    with pytest.raises(SystemExit):
        main([*words, "--output", str(tmp_path / "mine.onnx")])

    (line,) = capsys.readouterr().err.splitlines()
    assert f"run/{name}: was not written by `octvideo export --card`" in line
    with pytest.raises(DataError, match="name another folder"):
        write_card(checkpoint, run)
    assert before == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert not (tmp_path / "mine.onnx").exists()


def test_a_card_is_replaced_by_one_of_the_same_folder(run, tmp_path):
    checkpoint = str(run / "checkpoints" / "best.pyth")
    write_card(checkpoint, tmp_path / "mine")

    card = write_card(checkpoint, tmp_path / "mine", license="mit")

    assert "license: mit" in card.read_text()


def test_the_card_says_accuracy_data_license_and_command(run, tmp_path):
    card = write_card(
        str(run / "checkpoints" / "best.pyth"), tmp_path / "mine", license="cc-by-4.0"
    ).read_text()

    _, front, body = card.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "cc-by-4.0"
    assert facts["model-index"][0]["results"][0]["metrics"][0]["value"] == 62.5
    for said in (
        (
            "Top-1 62.50 % (95 % interval 47.5 to 77.5), top-5 90.00 %: 40 videos of mine/test.csv,"
            " 10x3 views of each; 2 could not be read, and count as wrong.\n"
        ),
        "fingerprint 0123456789abcdef",
        "license of the weights | cc-by-4.0",
        "octvideo predict --model mine --video video.mp4",
        hash_of(tmp_path / "mine" / "model.safetensors"),
        "4 frames, stride",
        "`a`, `b`",
    ):
        assert said in body


def test_the_card_says_what_its_multiply_adds_leave_out(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "octvideo.publish.count", lambda *of: replace(count(*of), uncounted=("rnn.weight",))
    )

    card = write_card(str(tiny_checkpoint), tmp_path / "mine").read_text()

    assert re.search(r"multiply-adds of one view \| [\d.]+ G, without those of rnn.weight \|", card)


def test_no_folder_of_this_machine_is_published(tiny_checkpoint, tmp_path):
    state = torch.load(tiny_checkpoint, weights_only=True)
    state["cfg"] = (
        "DATA:\n  PATH_TO_DATA_DIR: /home/somebody/kinetics/\n  PATH_PREFIX: /home/somebody/videos\n"
        "OUTPUT_DIR: s3://bucket/runs/mine\nTRAIN:\n  CHECKPOINT_FILE_PATH: '/a b/c d.pyth'\n"
    )
    torch.save(state, tmp_path / "best.pyth")

    write_card(str(tmp_path / "best.pyth"), tmp_path / "mine")

    settings = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())
    assert settings["DATA"] == {"PATH_TO_DATA_DIR": "kinetics"}
    assert settings["OUTPUT_DIR"] == "mine"
    assert "TRAIN" not in settings
    written = Checkpoint.read(str(tmp_path / "mine" / "model.safetensors"))
    assert yaml.safe_load(written.recipe) == settings


# Of a fine-tuned network, as `tiny_checkpoint` holds it.
FINE_TUNED = """
MODEL: {ARCH: i3d, NUM_CLASSES: 6}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 16}
OCTCONV: {ALPHA: 0.25}
DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32,
       TEST_CROP_SIZE: 32, PATH_PREFIX: videos}
TRAIN: {CHECKPOINT_FILE_PATH: /home/somebody/resnet26.pyth, CHECKPOINT_INFLATE: true}
TEST: {CHECKPOINT_FILE_PATH: runs/mine/best.pyth}
TENSORBOARD: {CLASS_NAMES_PATH: lists/names.txt}
LOG_MODEL_INFO: false
"""


def published_with(settings: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """The settings in the card of weights that were trained with these."""
    state = torch.load(checkpoint, weights_only=True) | {"cfg": settings}
    torch.save(state, folder / "best.pyth")
    write_card(str(folder / "best.pyth"), folder / "mine")
    return yaml.safe_load((folder / "mine" / "config.yaml").read_text())


def test_the_command_of_the_card_trains_its_weights_on(tiny_checkpoint, tmp_path, monkeypatch):
    published_with(FINE_TUNED, tiny_checkpoint, tmp_path)
    monkeypatch.chdir(tmp_path)
    card = (tmp_path / "mine" / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("octvideo train ")]
    _, command, _, config, *settings = shlex.split(line)

    main([command, "--cfg", config, *settings, "--dry-run"])

    cfg = load_config(config, settings)
    model = build_model(cfg)
    start_lines(cfg, model, cfg.TRAIN.CHECKPOINT_FILE_PATH)
    weights = Checkpoint.read("mine/model.safetensors").weights
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("start", ["i3d_r50_k400", "hf://somebody/network"])
def test_a_start_that_others_can_fetch_is_published(start, tiny_checkpoint, tmp_path):
    settings = published_with(
        f"TRAIN: {{CHECKPOINT_FILE_PATH: '{start}', CHECKPOINT_INFLATE: false}}",
        tiny_checkpoint,
        tmp_path,
    )

    assert settings["TRAIN"] == {"CHECKPOINT_FILE_PATH": start, "CHECKPOINT_INFLATE": False}


def test_weights_without_settings_get_no_command_to_train(tiny_checkpoint, tmp_path):
    card = write_card(str(tiny_checkpoint), tmp_path / "mine").read_text()

    assert "octvideo train" not in card
    assert "octvideo test" in card


@pytest.mark.parametrize("source", ["hf://me/mine", "cards/mine"])
def test_results_beside_a_network_that_has_another_place_are_not_read(
    source, tiny_checkpoint, tmp_path, hub_folder, monkeypatch
):
    for place in ("hub/me/mine/main", "cards/mine"):
        write_card(str(tiny_checkpoint), tmp_path / place)
    (tmp_path / "results.json").write_text("[]")
    monkeypatch.chdir(tmp_path)

    card = write_card(source, tmp_path / "again").read_text()

    assert "were not tested" in card


def test_results_are_found_from_the_folder_of_the_checkpoint(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run / "checkpoints")

    assert "Top-1 62.50 %" in write_card("best.pyth", tmp_path / "mine").read_text()


def test_results_of_a_published_folder_may_be_given(run, tmp_path):
    write_card(str(run / "checkpoints" / "best.pyth"), tmp_path / "mine")
    results = json.loads((run / "results.json").read_text())
    results["protocol"]["checkpoint_sha256"] = hash_of(tmp_path / "mine" / "model.safetensors")
    (tmp_path / "results.json").write_text(json.dumps(results))

    card = write_card(
        str(tmp_path / "mine"), tmp_path / "again", results=tmp_path / "results.json"
    ).read_text()

    assert "Top-1 62.50 %" in card


def test_results_of_other_weights_are_not_theirs(run, tmp_path):
    results = json.loads((run / "results.json").read_text())
    results["protocol"]["checkpoint_sha256"] = "0" * 64
    (run / "results.json").write_text(json.dumps(results))
    checkpoint = str(run / "checkpoints" / "best.pyth")

    card = write_card(checkpoint, tmp_path / "mine").read_text()

    assert "were not tested" in card
    with pytest.raises(DataError, match="of other weights"):
        write_card(checkpoint, tmp_path / "mine", results=run / "results.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match=r"no results\.json"):
        write_card(checkpoint, tmp_path / "mine", results=tmp_path / "other.json")


def test_weights_that_say_nothing_of_themselves_get_no_card(tmp_path):
    torch.save({"model_state": {"w": torch.ones(1)}}, tmp_path / "bare.pyth")

    with pytest.raises(CheckpointError, match="octvideo convert"):
        write_card(str(tmp_path / "bare.pyth"), tmp_path / "mine")


@pytest.mark.parametrize("part", ["target_fps", "mean", "short_side"])
def test_weights_that_leave_out_a_part_of_their_input_get_no_card(part, tiny_checkpoint, tmp_path):
    state = torch.load(tiny_checkpoint, weights_only=True)
    del state["meta"]["preprocessing"][part]
    torch.save(state, tmp_path / "part.pyth")

    with pytest.raises(CheckpointError, match=rf"part\.pyth: does not say {part} of its input"):
        write_card(str(tmp_path / "part.pyth"), tmp_path / "mine")

    assert not (tmp_path / "mine").exists()


def test_a_network_that_cannot_be_built_leaves_no_files_behind(tiny_checkpoint, tmp_path):
    content = torch.load(tiny_checkpoint)
    content["meta"]["model"]["name"] = "not_registered"
    torch.save(content, tmp_path / "own.pyth")

    with pytest.raises(CheckpointError, match="there is no model 'not_registered'"):
        write_card(str(tmp_path / "own.pyth"), tmp_path / "mine")

    assert not (tmp_path / "mine").exists()


def test_a_folder_without_weights_is_named_with_the_next_step(run):
    with pytest.raises(CheckpointError, match=r"name the file: .*best\.pyth"):
        octvideo.load(run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to write"),
        (["--output", "a.onnx", "--push", "me/mine"], "name it with --card"),
    ],
)
def test_export_says_what_is_missing(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["export", "--checkpoint", "none.pyth", *words])

    assert message in capsys.readouterr().err


@pytest.fixture
def hub_folder(monkeypatch, tmp_path):
    """huggingface_hub in its local folder form: repositories are folders of tmp_path/hub."""
    repositories = tmp_path / "hub"

    def download(repository, name, revision=None, local_files_only=False):
        path = repositories / repository / (revision or "main") / name
        if not path.is_file():
            raise OSError(f"404: {repository}")
        return str(path)

    class Api:
        def create_repo(self, repository, private, exist_ok):
            (repositories / repository).mkdir(parents=True, exist_ok=exist_ok)
            return f"https://huggingface.co/{repository}"

        def upload_folder(self, repo_id, folder_path, revision, commit_message):
            Path(folder_path).rename(repositories / repo_id / (revision or "main"))

    stand_in = SimpleNamespace(hf_hub_download=download, HfApi=Api)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)


def test_what_was_pushed_is_loaded_by_its_address(run, tmp_path, hub_folder, capsys):
    checkpoint, folder = str(run / "checkpoints" / "best.pyth"), str(tmp_path / "mine")

    main(["export", "--checkpoint", checkpoint, "--card", folder, "--push", "me/mine"])

    assert "pushed: https://huggingface.co/me/mine" in capsys.readouterr().out
    assert octvideo.load("hf://me/mine", device="cpu").class_names == list("abcdef")
    assert octvideo.load("hf://me/mine@main", device="cpu").class_names == list("abcdef")
    with pytest.raises(CheckpointError, match="hf://me/none: cannot be reached"):
        octvideo.load("hf://me/none")


@pytest.mark.parametrize("address", ["hf://name", "hf://a/b/c", "hf://", "hf://a/b@"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(CheckpointError, match="write hf://user/name"):
        octvideo.load(address)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(OctvideoError, match=r"octvideo\[hub\]"):
        hub.fetch("hf://me/mine", "model.safetensors")
