"""Every format computes what the network computes, for any batch."""

import importlib.util
import json
import logging
import os
import pickle
from math import isnan
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from full_disk import room_for
from narrow_networks import first_stages, of_one_block
from torch import nn

import octvideo
from octvideo.cli.main import main
from octvideo.deploy import engines, export
from octvideo.deploy.engines import Compiled, Eager, optimize, relative_difference
from octvideo.deploy.export import ONNX, Program, export_model
from octvideo.deploy.graphed import Graphed
from octvideo.deploy.openvino import OpenVINO, convert, exported
from octvideo.errors import CheckpointError, ConfigError, OctvideoError
from octvideo.files import OutputError
from octvideo.layers import compute_in_2d

TINY = {"num_classes": 5, "width_per_group": 16, "width_rule": "int"}

# What torch's exporters and their pytree say about themselves.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


@pytest.fixture
def model():
    return of_one_block("i3d_r26", alpha=0.5, **TINY).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["c2d_r26", "i3d_r26", "i3d_nln_r26", "slowfast_r26"])
@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_every_video_network_is_written_for_torch_export(name, alpha, tmp_path):
    model = of_one_block(name, alpha=alpha, **TINY).eval()

    # 32 pixels leave a single position in res5.
    assert export_model(model, torch.randn(2, 3, 8, 32, 32), tmp_path / "model.pt2") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_other_runtimes_compute_the_same(model, suffix, tmp_path):
    assert export_model(model, torch.randn(2, 3, 4, 33, 33), tmp_path / f"model{suffix}") < 1e-5


@pytest.mark.parametrize("batch", [1, 2])
def test_a_written_file_whose_output_is_not_finite_has_no_difference_that_is_small(
    batch, tmp_path, monkeypatch
):
    def run(x):
        return torch.full((len(x), 6), torch.nan if len(x) == batch else 0.0)

    assert isnan(export.written_difference(run, nn.Linear(4, 6), torch.rand(2, 4)))

    monkeypatch.setitem(export.WRITERS, ".pt2", lambda *_: run)
    with pytest.raises(OctvideoError, match=r"differs by nan from the network"):
        export_model(nn.Linear(4, 6), torch.rand(2, 4), tmp_path / "m.pt2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "weights"), [(".onnx", ".onnx"), (".pt2", ".pt2"), (".xml", ".bin")]
)
def test_a_file_that_someone_reads_is_replaced_and_never_written_into(suffix, weights, tmp_path):
    path, opened, x = tmp_path / f"m{suffix}", tmp_path / "opened", torch.randn(2, 3, 2, 4, 4)
    export_model(nn.Conv3d(3, 6, 1), x, path)
    os.link(path.with_suffix(weights), opened)
    before = opened.read_bytes()

    export_model(nn.Conv3d(3, 6, 1), x, path)

    assert opened.read_bytes() == before != path.with_suffix(weights).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "kind"), [("onnx", ONNX), ("pt2", Program)])
def test_a_pickle_names_its_file_and_is_not_loaded_with_the_weights_of_another(
    suffix, kind, tmp_path, monkeypatch
):
    path, x = tmp_path / f"m.{suffix}", torch.randn(2, 3, 2, 4, 4)
    export_model(nn.Conv3d(3, 6, 1), x, path)
    monkeypatch.chdir(tmp_path)
    network = kind(Path(path.name))
    pickled = pickle.dumps(network)
    monkeypatch.chdir("/")
    torch.testing.assert_close(pickle.loads(pickled)(x), network(x))

    export_model(nn.Conv3d(3, 6, 1), x, path)

    with pytest.raises(CheckpointError, match=rf"m\.{suffix}: is another file than the one that"):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(CheckpointError, match="that was pickled, or none"):
        pickle.loads(pickled)


@pytest.mark.parametrize("suffix", ["xml", pytest.param("pt2", marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line_and_leaves_the_file_that_was_there(suffix, tmp_path):
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(b"before")

    with room_for(1000), pytest.raises(OutputError, match=rf"m\.{suffix}: cannot be written"):
        export_model(nn.Conv3d(3, 600, 1), torch.randn(2, 3, 2, 4, 4), path)

    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [
        (path.name, b"before")
    ]


def test_a_full_disk_costs_what_is_kept_and_not_the_optimized_network(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("OCTVIDEO_CACHE", str(tmp_path))
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    model, x = nn.Conv3d(3, 600, 1).eval(), torch.randn(2, 3, 2, 4, 4)

    with room_for(1000):
        fast = optimize(model, x, engine="openvino")

    assert "is not kept (OpenVINO reports" in caplog.text
    assert list(tmp_path.iterdir()) == []
    assert relative_difference(fast(x), model(x)) < 1e-5


@pytest.mark.slow
def test_a_lowered_onnx_has_no_3d_operation_and_computes_the_same(tmp_path, caplog):
    import onnx

    model = first_stages("c2d_r26", 2, alpha=0.25, **TINY).eval()
    del model.res2.block1, model.res3.block1

    difference = export_model(
        model, torch.randn(2, 3, 4, 33, 33), tmp_path / "m.onnx", lowered=True
    )

    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "m.onnx")).graph
    known = [*graph.input, *graph.value_info, *graph.initializer]
    rank = {v.name: len(getattr(v, "dims", None) or v.type.tensor_type.shape.dim) for v in known}
    convolutions = [
        node for node in graph.node if node.op_type in ("Conv", "AveragePool", "Resize")
    ]
    assert convolutions
    assert all(rank[node.input[0]] <= 4 for node in convolutions)
    assert difference < 1e-5
    assert "stay in 3D" not in caplog.text


@pytest.mark.slow
def test_layers_that_stay_in_3d_in_a_lowered_onnx_are_named(tmp_path, caplog):
    model = nn.Sequential(
        nn.Conv3d(3, 4, (1, 3, 3)),
        nn.Conv3d(4, 4, 3, groups=4),
        nn.Conv3d(4, 4, (1, 3, 3), dilation=(1, 2, 2)),
        nn.AvgPool3d(2),
    )

    with caplog.at_level(logging.WARNING, "octvideo"):
        export_model(
            compute_in_2d(model), torch.randn(2, 3, 4, 16, 16), tmp_path / "m.onnx", lowered=True
        )

    (line,) = [r.getMessage() for r in caplog.records if r.name == "octvideo"]
    assert line.startswith("m.onnx: node_conv3d, node_conv3d_1, node_avg_pool3d stay in 3D")


@pytest.mark.parametrize("suffix", [".xml", ".pt2"])
def test_lowered_is_refused_of_another_format(model, suffix, tmp_path):
    with pytest.raises(ConfigError, match=r"only an \.onnx is written with 2D convolutions"):
        export_model(model, torch.randn(2, 3, 4, 33, 33), tmp_path / f"m{suffix}", lowered=True)


@pytest.mark.slow
def test_openvino_takes_the_place_of_a_network(model):
    x = torch.randn(1, 3, 4, 33, 33)

    fast = optimize(model, x, engine="openvino")
    with pytest.raises(
        ConfigError, match="the input is 4 x 48 x 32, the network was optimized for"
    ):
        fast(torch.randn(1, 3, 4, 48, 32))

    assert relative_difference(fast(x), model(x)) < 1e-4


class EverySecond(nn.Module):
    """It takes frames out of a clip by their numbers."""

    def forward(self, x):
        return x[:, :, :: x.shape[2] // 4].mean((2, 3, 4))


def test_openvino_refuses_another_number_of_frames_than_its_graph_was_made_for():
    x = torch.randn(3, 3, 8, 4, 4)
    fast = convert(EverySecond(), x[:1])

    torch.testing.assert_close(fast(x), EverySecond()(x))
    with pytest.raises(
        ConfigError, match="the input is 16 x 4 x 4, the network was optimized for 8"
    ):
        fast(torch.randn(1, 3, 16, 4, 4))


def test_an_exported_graph_takes_a_batch_of_any_size():
    program = exported(nn.Conv3d(3, 1, 1), torch.randn(1, 3, 1, 1, 1)).module()

    assert [len(program(torch.randn(n, 3, 1, 1, 1))) for n in (1, 2, 1025)] == [1, 2, 1025]


@pytest.mark.slow
def test_the_torch_engine_takes_the_place_of_a_network():
    # A C++ compiler takes seconds for each kernel.
    model, x = first_stages("i3d_r26", 1, alpha=0.5, **TINY).eval(), torch.randn(1, 3, 4, 33, 33)
    del model.res2.block1

    fast = optimize(model, x, engine="torch")

    assert relative_difference(fast(x), model(x)) < 1e-4


def test_the_fused_engine_is_refused_on_a_cpu(model):
    with pytest.raises(ConfigError, match="needs a GPU and Triton, and the example is on cpu"):
        optimize(model, torch.randn(1, 3, 4, 33, 33), engine="fused")


def test_an_engine_that_is_not_there_is_refused_by_name(model):
    with pytest.raises(
        ConfigError, match="there is no engine 'tensorrt'; there are auto, torch, openvino"
    ):
        optimize(model, torch.randn(1, 3, 4, 33, 33), engine="tensorrt")


@pytest.fixture
def wrongly_folded(monkeypatch):
    """A small network, of which folding makes another one."""
    for module in (engines, export):
        monkeypatch.setattr(module, "fold_batch_norm", lambda model: nn.Conv3d(3, 6, 1))
    return nn.Sequential(nn.Conv3d(3, 6, 1), nn.Dropout())


@pytest.mark.parametrize("kind", [Eager, Compiled, Graphed])
def test_the_network_of_an_engine_is_optimized_for_another(kind, monkeypatch):
    network, found = nn.Conv2d(3, 4, 1), []
    monkeypatch.setitem(engines.ENGINES, "torch", lambda model, _: found.append(model) or model)

    engines.optimize(kind(Eager(network)), torch.randn(1, 3, 4, 4), engine="torch")

    assert [type(model) for model in found] == [nn.Conv2d]


def test_what_openvino_computes_already_is_refused_in_a_line():
    with pytest.raises(
        ConfigError, match="OpenVINO computes already; give the one that it was made"
    ):
        engines.optimize(OpenVINO(Mock(), (4, 4), "fp32"), torch.randn(1, 3, 4, 4))


def test_what_is_made_of_a_network_is_compared_with_it_and_not_with_its_folded_form(
    wrongly_folded, monkeypatch
):
    monkeypatch.setitem(engines.ENGINES, "torch", lambda model, example: model)

    with pytest.raises(OctvideoError, match=r"engine torch differs by .* from the network"):
        optimize(wrongly_folded, torch.randn(1, 3, 2, 4, 4), engine="torch")
    assert wrongly_folded.training


def test_a_file_that_computes_something_else_is_refused_and_not_left(
    wrongly_folded, tmp_path, monkeypatch
):
    def write(model, example, path):
        path.write_bytes(b"wrong")
        return model

    monkeypatch.setitem(export.WRITERS, ".pt2", write)
    path = tmp_path / "m.pt2"
    path.write_bytes(b"before")

    with pytest.raises(
        OctvideoError, match=r"m\.pt2: what was written differs by .* from the network"
    ):
        export_model(wrongly_folded, torch.randn(2, 3, 2, 4, 4), path)

    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]
    assert wrongly_folded.training


def test_another_suffix_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="no format has this suffix"):
        export_model(model, torch.randn(1, 3, 4, 33, 33), tmp_path / "model.tflite")


def test_a_missing_runtime_is_one_line_with_the_remedy(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)

    with pytest.raises(OctvideoError, match="openvino is missing; pip install openvino"):
        optimize(model, torch.randn(1, 3, 4, 33, 33), engine="openvino")


@pytest.mark.slow
def test_the_tool_writes_the_network_and_what_its_users_need(
    repo, tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    import runpy
    import sys

    arguments = [
        "export.py",
        "--checkpoint",
        str(tiny_checkpoint),
        "--output",
        str(tmp_path / "model.pt2"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)

    runpy.run_path(str(repo / "tools" / "export.py"), run_name="__main__")

    assert "relative difference" in capsys.readouterr().out
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts["class_names"] == list("abcdef")
    assert facts["input"] == ["batch", 3, 4, 32, 32]


def test_the_command_passes_on_that_an_onnx_is_lowered(monkeypatch):
    written = []

    class Trained:
        def save(self, path, *, lowered):
            written.append((path, lowered))
            return 0.0

    monkeypatch.setattr(octvideo, "load", lambda *_, **__: Trained())

    main(["export", "--checkpoint", "best.pyth", "--output", "model.onnx", "--lowered"])

    assert written == [(Path("model.onnx"), True)]


def test_the_optional_runtimes_are_there_for_these_tests():
    assert all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "openvino"))
