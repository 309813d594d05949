"""tools/convert_weights.py as a user calls it."""

import json
import runpy

import pytest
import torch

from octvideo import create_model
from octvideo.checkpoint import Checkpoint
from octvideo.torch_file import read_torch_file
from octvideo.weights import load_weights


def test_it_writes_a_checkpoint_that_loads_and_says_what_it_is(run_tool, repo, tmp_path):
    golden = repo / "tests" / "golden" / "official"
    rule = runpy.run_path(str(golden / "write_params.py"))
    oracle = json.loads((golden / "mobilenet_v1_075_a0375.json").read_text())
    rule["write"](tmp_path / "official.params", rule["parameters"](oracle))
    (tmp_path / "names.txt").write_text("\n".join(f"class {i}" for i in range(1000)))

    done = run_tool(
        "convert_weights", tmp_path / "official.params", tmp_path / "out" / "ours.pyth",
        "--mean", "0.45", "--class-names", tmp_path / "names.txt",
    )  # fmt: skip

    assert done.status == 0, done.err
    assert "mobilenet_v1, alpha 0.375, 1000 classes, from official OctConv (MXNet)" in done.out
    assert "mean 0.45, 0.45, 0.45, std 0.229, 0.224, 0.225\n" in done.out
    assert "BN eps 1e-05, strides at the 3x3, taken by pool" in done.out
    meta = read_torch_file(str(tmp_path / "out" / "ours.pyth"))["meta"]
    assert meta["class_names"][999] == "class 999"
    model = create_model(**meta["model"]).eval()
    load_weights(model, str(tmp_path / "out" / "ours.pyth"))
    with torch.no_grad():
        logits = model(torch.from_numpy(rule["network_input"](oracle))).flatten()
    assert (logits - torch.tensor(oracle["logits"]).flatten()).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("words", "mean", "std"),
    [
        (["--mean", "0.2"], (0.2,) * 3, (0.225,) * 3),
        (["--std", "0.1", "0.2", "0.3"], (0.45,) * 3, (0.1, 0.2, 0.3)),
        (["--mean", "0.2", "--std", "0.3"], (0.2,) * 3, (0.3,) * 3),
        ([], (0.45,) * 3, (0.225,) * 3),
    ],
)
def test_a_mean_or_a_deviation_of_a_video_network_counts_alone(
    run_tool, tmp_path, words, mean, std
):
    model = create_model("i3d_r26", num_classes=2, width_per_group=4)
    torch.save(model.state_dict(), tmp_path / "in.pth")
    (tmp_path / "names.txt").write_text("a\nb\n")
    files = tmp_path / "in.pth", tmp_path / "ours.pyth"

    done = run_tool(
        *("convert_weights", *files, "--input", "8x8"),
        *("--class-names", tmp_path / "names.txt", *words),
    )

    assert done.status == 0, done.err
    seen = Checkpoint.read(str(tmp_path / "ours.pyth")).input
    assert (seen.mean, seen.std) == (mean, std)


def test_a_mean_of_two_numbers_is_refused(run_tool, tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "in.pth")
    files = tmp_path / "in.pth", tmp_path / "ours.pyth"

    done = run_tool("convert_weights", *files, "--input", "8x8", "--mean", 0.4, 0.5)

    assert done.status == 2
    assert "mean has 2 numbers, not one or three" in done.err


def test_names_of_another_number_of_classes_are_refused(run_tool, repo, tmp_path):
    golden = repo / "tests" / "golden" / "official"
    rule = runpy.run_path(str(golden / "write_params.py"))
    oracle = json.loads((golden / "mobilenet_v1_075_a0375.json").read_text())
    rule["write"](tmp_path / "in.params", rule["parameters"](oracle))
    files = tmp_path / "in.params", tmp_path / "ours.pyth"

    done = run_tool("convert_weights", *files, "--class-names", "charades")

    assert done.status == 2
    assert "in.params: classifies 1000 classes; 157 names were given" in done.err
    assert not (tmp_path / "ours.pyth").exists()


def test_a_file_that_is_no_weights_ends_in_one_line(run_tool, tmp_path):
    (tmp_path / "w.params").write_bytes(b"no weights")

    done = run_tool("convert_weights", tmp_path / "w.params", tmp_path / "ours.pyth")

    assert done.status == 2
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "ours.pyth").exists()


def test_a_checkpoint_of_this_package_keeps_its_input(run_tool, tmp_path, tiny_checkpoint):
    done = run_tool("convert_weights", tiny_checkpoint, tmp_path / "out.pyth", "--input", "32x2")

    assert done.status == 2
    assert "best.pyth: says its network, its classes and its input itself; leave out" in done.err
    assert not (tmp_path / "out.pyth").exists()


@pytest.mark.parametrize("words", [["convert_weights"], ["inflate_weights", "--cfg", "demo/c2d"]])
def test_weights_are_not_replaced_by_what_is_made_of_them(run_tool, tmp_path, words):
    (tmp_path / "in.pth").write_bytes(b"weights")
    (tmp_path / "out.pth").symlink_to(tmp_path / "in.pth")

    done = run_tool(*words, tmp_path / "in.pth", tmp_path / "out.pth")

    assert done.status == 2
    assert "in.pth itself" in done.err
    assert (tmp_path / "out.pth").is_symlink()
