"""An exported file is a recognizer again, and so is anything else only by an error of one line."""

import json
import pickle
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_input import PREPROCESSING
from torch import nn

import octvideo
from octvideo.deploy.export import sha256_of
from octvideo.deploy.exported import Sidecar, read_exported, write_exported
from octvideo.deploy.openvino import OpenVINO, convert
from octvideo.errors import CheckpointError, ConfigError
from octvideo.models.network import activate
from octvideo.recognizer.recognizer import Recognizer

# What torch's exporters and their pytree say about themselves.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


@pytest.fixture(scope="module")
def recognizer(tiny_checkpoint):
    return octvideo.load(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def saved(recognizer, tmp_path_factory):
    """The folder with model.onnx, model.xml and model.pt2."""
    folder = tmp_path_factory.mktemp("saved")
    for suffix in ("onnx", "xml", "pt2"):
        assert recognizer.save(folder / f"model.{suffix}") < 1e-4
    return folder


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (30, 36, 44, 3), np.uint8)


@pytest.fixture
def recipe(repo):
    """The program in docs/deploy.md."""
    page = (repo / "docs" / "deploy.md").read_text()
    return re.search(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml", "pt2"])
def test_an_exported_file_gives_the_predictions_of_its_checkpoint(
    recognizer, saved, frames, suffix
):
    again = octvideo.load(saved / f"model.{suffix}", trusted=suffix == "pt2")

    assert again.class_names == recognizer.class_names
    for views in ("1x1", "4x3"):
        found, expected = (r.scores(frames, views=views, fps=30) for r in (again, recognizer))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(
        again.timeline(frames, window_seconds=0.5).scores,
        recognizer.timeline(frames, window_seconds=0.5).scores,
        atol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml", "pt2"])
def test_an_exported_file_serves_threads_and_is_pickled(recognizer, saved, frames, suffix):
    again = octvideo.load(saved / f"model.{suffix}", trusted=suffix == "pt2")
    views = ["1x1", "2x1", "3x3"] * 8
    expected = {v: recognizer.scores(frames, views=v) for v in set(views)}

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda v: again.scores(frames, views=v), views))

    for v, scores in zip(views, found, strict=True):
        np.testing.assert_allclose(scores, expected[v], atol=1e-5)
    copy = pickle.loads(pickle.dumps(again))
    np.testing.assert_allclose(copy.scores(frames, views="1x1"), expected["1x1"], atol=1e-5)


class Colors(nn.Module):
    """Logits of the mean color, in place of a network that takes seconds to convert."""

    in_channels = 3

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 6)

    def forward(self, x):
        return self.fc(x.mean((2, 3, 4)))

    def window_scores(self, x, act="softmax"):
        return activate(self(x)[:, None, None], act)


def of_colors(**options):
    return Recognizer(Colors(), list("abcdef"), PREPROCESSING, torch.device("cpu"), **options)


@pytest.mark.slow
def test_an_optimized_recognizer_is_saved_as_it_is(frames, tmp_path):
    fast = of_colors()
    fast._score = convert(fast._score, torch.rand(1, 3, 4, 32, 32))

    fast.save(tmp_path / "fast.xml")

    again = octvideo.load(tmp_path / "fast.xml")
    np.testing.assert_allclose(again.scores(frames), fast.scores(frames), atol=1e-6)
    assert json.loads((tmp_path / "fast.json").read_text())["output"] == "probabilities"


@pytest.mark.slow
def test_several_labels_stay_several(frames, tmp_path):
    recognizer = of_colors(multi_label=True)

    recognizer.save(tmp_path / "several.xml")

    again = octvideo.load(tmp_path / "several.xml")
    assert again.multi_label
    np.testing.assert_allclose(again.scores(frames), recognizer.scores(frames), atol=1e-5)
    assert again.scores(frames).sum() != pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_what_an_exported_file_lacks_is_said(saved, frames, tmp_path):
    again = octvideo.load(saved / "model.onnx")

    for ask in (
        lambda: again.features(frames),
        lambda: again.save(tmp_path / "again.onnx"),
        again.optimize,
    ):
        with pytest.raises(
            ConfigError, match=r"model\.onnx: .* load the checkpoint|the checkpoint"
        ):
            ask()


@pytest.mark.slow
def test_the_page_runs_without_torch(recipe, recognizer, saved, frames, tmp_path, monkeypatch):
    """The recipe of docs/deploy.md in numpy gives the scores of the checkpoint."""
    np.save(tmp_path / "frames.npy", frames)
    for name in ("model.onnx", "model.json"):
        (tmp_path / name).symlink_to(saved / name)
    monkeypatch.chdir(tmp_path)

    names = {}
    exec(compile(recipe, "deploy.md", "exec"), names)

    assert len(recipe.splitlines()) <= 30
    assert "torch" not in recipe
    expected = recognizer.scores(frames, views="1x1", fps=30)
    np.testing.assert_allclose(names["scores"], expected, atol=1e-4)


FACTS = Sidecar((3, 4, 32, 32), "logits", tuple("abcdef"), PREPROCESSING, False, "softmax")


def export(path, seed):
    """One of several small networks of the same shape, as an optimized recognizer saves it."""
    write_exported(MeanScores(weights_of(seed)), graph_of(seed), FACTS, path)
    return path


def graph_of(seed):
    from openvino import Model, opset13

    clips, weights = opset13.parameter([-1, 3, 4, 32, 32]), weights_of(seed)
    scores = opset13.matmul(opset13.reduce_mean(clips, [2, 3, 4]), weights, False, False)
    return OpenVINO(Model([scores], [clips], f"network {seed}"), (4, 32, 32))


def weights_of(seed):
    return np.random.default_rng(seed).random((3, 6), np.float32)


class MeanScores(nn.Module):
    """The network that `graph_of` computes."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.from_numpy(weights)

    def window_scores(self, x, act):
        return x.mean((2, 3, 4)) @ self.weights


def test_the_difference_of_an_optimized_network_is_that_of_its_written_file(tmp_path):
    near, far = (MeanScores(factor * weights_of(0)) for factor in (1.0, 1.25))

    assert write_exported(near, graph_of(0), FACTS, tmp_path / "near.xml") < 1e-5
    found = write_exported(far, graph_of(0), FACTS, tmp_path / "far.xml")
    assert found == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize("num_frames", [1, 4])
def test_the_page_sees_the_clip_that_a_recognizer_sees(
    recipe, frames, num_frames, tmp_path, monkeypatch
):
    seen = {"num_frames": num_frames, "reverse_channels": True, "mean": [0.3, 0.4, 0.5]}
    (tmp_path / "model.json").write_text(sidecar(**seen))
    np.save(tmp_path / "frames.npy", frames)
    monkeypatch.chdir(tmp_path)
    runtime = SimpleNamespace(run=lambda *_: [np.zeros((1, 6))])
    stub = SimpleNamespace(InferenceSession=lambda _: runtime)
    monkeypatch.setitem(sys.modules, "onnxruntime", stub)

    names = {}
    exec(compile(recipe, "deploy.md", "exec"), names)

    reader = Recognizer(nn.Linear(1, 1), list("abcdef"), PREPROCESSING | seen, torch.device("cpu"))
    _, expected = reader.clip(frames, fps=30)
    np.testing.assert_allclose(names["clip"], expected[0], atol=0.0175)  # a level of 255 by std


def test_what_is_loaded_of_an_export_is_not_evaluated(tmp_path):
    exported = octvideo.load(export(tmp_path / "model.xml", seed=0))

    with pytest.raises(
        ConfigError, match=r"model\.xml: an exported network is not evaluated; give"
    ):
        octvideo.evaluate(exported, "val.csv")


def test_exporting_over_a_file_changes_no_network_that_was_read_from_it(tmp_path):
    clips = torch.rand(3, 3, 4, 32, 32)
    expected = read_exported(export(tmp_path / "model.xml", seed=0)).window_scores(clips)
    read = read_exported(tmp_path / "model.xml")

    export(tmp_path / "model.xml", seed=1)

    # The runtime compiles for a batch size, out of the file's pages, when the first such batch
    # comes.
    torch.testing.assert_close(read.window_scores(clips), expected)


def test_an_export_that_is_stopped_leaves_the_one_before(tmp_path, monkeypatch):
    export(tmp_path / "model.xml", seed=0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Sidecar, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "model.xml", seed=1)

    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "model.json"])
def test_files_of_two_exports_are_refused(tmp_path, name):
    path = export(tmp_path / "one" / "model.xml", seed=0)
    other = export(tmp_path / "two" / "model.xml", seed=1).with_name(name)

    shutil.copy(other, path.with_name(name))

    with pytest.raises(CheckpointError, match=r"model\.xml: is not what model\.json describes"):
        read_exported(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".xml", ".onnx", ".pt2"])
def test_a_network_does_not_change_with_the_file_that_it_was_read_from(saved, tmp_path, suffix):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    network = read_exported(tmp_path / f"model{suffix}", trusted=True)
    clips = torch.rand(2, *network.sidecar.input)
    before = network.window_scores(clips[:1])

    for file in tmp_path.iterdir():
        file.write_bytes(b"\xff" * file.stat().st_size)  # in its place, as cp writes

    assert torch.allclose(network.window_scores(clips)[:1], before, atol=1e-6)


def test_an_export_of_an_earlier_version_has_no_digest_and_is_read(tmp_path):
    path = export(tmp_path / "model.xml", seed=0)
    facts = json.loads((tmp_path / "model.json").read_text())
    del facts["sha256"]
    (tmp_path / "model.json").write_text(json.dumps(facts))

    assert read_exported(path).sidecar.class_names == tuple("abcdef")


def test_one_description_is_of_several_formats_if_it_is_true_of_each(tmp_path):
    onnx, pt2 = tmp_path / "model.onnx", tmp_path / "model.pt2"
    for path in (onnx, pt2):
        path.write_bytes(path.suffix.encode())

    FACTS.write(onnx, onnx)
    FACTS.write(pt2, pt2)
    assert sorted(Sidecar.read(onnx).sha256) == [".onnx", ".pt2"]

    replace(FACTS, class_names=tuple("uvwxyz")).write(pt2, pt2)
    with pytest.raises(CheckpointError, match=r"model\.onnx: is not what model\.json describes"):
        read_exported(onnx)


def sidecar(**changes):
    facts = {
        "input": ["batch", 3, 4, 32, 32],
        "output": "logits",
        "class_names": list("abcdef"),
    }
    return json.dumps({**facts, **PREPROCESSING, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"model\.json is not beside it"),
        ("{", r"model\.json: cannot be read"),
        ("[" * 100_000, r"model\.json: cannot be read"),
        ("[]", "does not describe a network"),
        ("{}", "does not describe a network"),
        (sidecar(input="batch"), "does not describe a network"),
        (sidecar(class_names=3), "does not describe a network"),
        (sidecar(class_names=[]), "does not say all"),
        (sidecar(mean=None), "does not say mean; export"),
        (sidecar(short_side=None, sampling_rule=None), "does not say sampling_rule, short_side;"),
        (sidecar(mean=".45"), "does not describe a network"),
        (sidecar(crop_size="32"), "does not describe a network"),
        (sidecar(sha256="0f3a"), "does not describe a network"),
        (sidecar(sampling_rule="random"), "sampling_rule is 'random'; there are pyslowfast"),
        (sidecar(output="features"), "does not say all"),
        (sidecar(head_act="exp"), "head_act is 'exp'"),
        (sidecar(), r"model\.\w+: cannot be read"),
    ],
)
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_damaged_files_are_one_line(tmp_path, text, message, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"no network")
    if text is not None:
        path.with_suffix(".json").write_text(text)

    with pytest.raises(CheckpointError, match=message) as error:
        octvideo.load(path)

    assert "\n" not in str(error.value)


def test_a_file_that_can_run_code_is_read_on_request_only(tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"")
    (tmp_path / "model.json").write_text(sidecar())

    with pytest.raises(CheckpointError, match=r"can run code .* trusted=True"):
        octvideo.load(tmp_path / "model.pt2")


@pytest.fixture
def replace_once_hashed(monkeypatch):
    """replace_once_hashed(write): `write` is called as soon as a digest has been taken."""

    def after(write):
        def hashed(*given):
            found = sha256_of(*given)
            write()
            return found

        monkeypatch.setattr("octvideo.deploy.exported.sha256_of", hashed)

    return after


def test_a_network_that_is_replaced_while_it_is_read_is_the_one_that_was_hashed(
    replace_once_hashed, tmp_path
):
    path, clips = export(tmp_path / "model.xml", seed=0), torch.rand(2, 3, 4, 32, 32)
    expected = read_exported(path).window_scores(clips)
    other = export(tmp_path / "other.xml", seed=1)

    def overwrite():
        for suffix in (".xml", ".bin"):
            shutil.copyfile(other.with_suffix(suffix), path.with_suffix(suffix))

    replace_once_hashed(overwrite)

    assert torch.equal(read_exported(path).window_scores(clips), expected)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_file_is_read_once(replace_once_hashed, saved, frames, tmp_path, suffix):
    for name in (f"model.{suffix}", "model.json"):
        shutil.copyfile(saved / name, tmp_path / name)
    path = tmp_path / f"model.{suffix}"
    expected = octvideo.load(path, trusted=True).scores(frames, views="1x1")
    replace_once_hashed(lambda: path.write_bytes(b"no network"))

    found = octvideo.load(path, trusted=True)

    assert np.array_equal(found.scores(frames, views="1x1"), expected)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.onnx: there is no such file"):
        octvideo.load(tmp_path / "none.onnx")
