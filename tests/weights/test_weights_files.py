"""Weights in every wrapping and every kind of file load whole; files that carry anything else are
refused."""

import json
import logging
import os
import pickle
import re
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from octvideo import create_model
from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError
from octvideo.numpy_pickle import read_numpy_pickle
from octvideo.safetensors_file import read_safetensors, write_safetensors
from octvideo.weights import load_weights
from octvideo.weights.image_weights import read_image_weights


def narrow(name="i3d_r26", seed=0, **options):
    torch.manual_seed(seed)
    width = 32 if name.startswith("slowfast") else 8
    model = create_model(name, **{"num_classes": 3, "width_per_group": width, **options})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.weight)
    return model


def equal(model, state):
    ours = model.state_dict()
    return all(
        torch.equal(ours[name], tensor) for name, tensor in state.items() if "num_b" not in name
    )


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


# --- Wrappers


WRAPPED = {
    "DDP": lambda s: {"model_state": prefixed("module.", s)},
    "torch.compile": lambda s: {"model_state": prefixed("_orig_mod.", s)},
    "compiled DDP": lambda s: {"model_state": prefixed("_orig_mod.module.", s)},
    "DDP of a compiled network": lambda s: {"model_state": prefixed("module._orig_mod.", s)},
    "Lightning": lambda s: {"state_dict": prefixed("model.", s), "hyper_parameters": {"lr": 0.1}},
    "AveragedModel": lambda s: {
        "model_ema": prefixed("module.", s) | {"n_averaged": torch.tensor(3)},
        "model": {name: torch.zeros_like(tensor) for name, tensor in s.items()},
    },
    "torchvision's references": lambda s: {"model": s, "optimizer": {}, "epoch": 3},
    "nested": lambda s: {"ema": {"state_dict": prefixed("module.model.module.", s)}},
    "FSDP": lambda s: {
        "model": prefixed(
            "_fsdp_wrapped_module.",
            {name.replace("block0.", "block0._fsdp_wrapped_module."): t for name, t in s.items()},
        )
    },
    "recomputation": lambda s: {
        name.replace("block1.", "block1._checkpoint_wrapped_module."): t for name, t in s.items()
    },
    "nothing": lambda s: s,
}


class Around(nn.Module):
    """All of its names begin with a prefix that is a wrapper's in files of others."""

    def __init__(self, seed=0):
        super().__init__()
        self.model = narrow(seed=seed)


@pytest.mark.parametrize("network", [narrow, Around], ids=["plain", "with a prefix of its own"])
@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_are_taken_off_and_reported(name, network, tmp_path):
    path, state = tmp_path / "weights.pth", network().state_dict()
    torch.save(WRAPPED[name](state), path)
    model = network(seed=1)

    report = load_weights(model, str(path))

    assert equal(model, state)
    assert bool(report.removed) == (name != "nothing")
    assert all(part in str(report).splitlines()[0] for part in report.removed)


def test_a_wrapper_around_image_weights_of_this_package_is_taken_off(tmp_path):
    path, model = str(tmp_path / "image.pyth"), create_model("resnet18", width_per_group=8)
    state = prefixed("_orig_mod.", model.state_dict())
    Checkpoint(path, state, network=model.config).write(path)

    assert read_image_weights(Checkpoint.read(path)).state.keys() == model.state_dict().keys()


def test_the_report_names_a_prefix_as_often_as_it_was_removed(tmp_path):
    torch.save(WRAPPED["Lightning"](Around().state_dict()), tmp_path / "weights.pth")

    report = load_weights(Around(seed=1), str(tmp_path / "weights.pth"))

    assert report.removed == ("state_dict", "model.")


def test_a_text_is_removed_wherever_it_stands_in_a_name(tmp_path):
    path, state = tmp_path / "weights.pth", narrow().state_dict()
    torch.save({name.replace(".conv", ".inner.conv"): t for name, t in state.items()}, path)
    model = narrow(seed=1)

    load_weights(model, str(path), clear_prefixes=["inner."])

    assert equal(model, state)


def test_where_nothing_fits_the_error_names_the_setting_and_the_log_20_names(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    path = tmp_path / "weights.pth"
    torch.save(prefixed("encoder.", narrow().state_dict()), path)

    with pytest.raises(CheckpointError, match=r"remove in TRAIN\.CHECKPOINT_CLEAR_NAME_PATTERN"):
        load_weights(narrow(), str(path))

    lines = caplog.records[-1].getMessage().splitlines()
    assert len(lines) == 22
    assert "more" in lines[-1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name(value, tmp_path):
    path, state = tmp_path / "weights.pth", narrow().state_dict()
    state["res3.block1.expand.bn.high.bias"][2] = value
    torch.save(state, path)

    with pytest.raises(CheckpointError, match=r"res3\.block1\.expand\.bn\.high\.bias has 1 of 64"):
        load_weights(narrow(), str(path))


# --- safetensors


def test_safetensors_carry_what_a_checkpoint_carries(tmp_path, tiny_checkpoint):
    path = str(tmp_path / "best.safetensors")
    checkpoint = torch.load(tiny_checkpoint, weights_only=True)

    write_safetensors(path, checkpoint)

    content = read_safetensors(path)
    assert content["meta"] == checkpoint["meta"]
    assert content["epoch"] == 3
    assert content["model_state"].keys() == checkpoint["model_state"].keys()
    assert Checkpoint.read(path).class_names == tuple("abcdef")


def test_tensors_of_safetensors_do_not_change_with_the_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_safetensors(str(path), {"model_state": {"a": torch.ones(5000)}})

    tensors = read_safetensors(str(path))["model_state"]
    path.write_bytes(b"\xff" * path.stat().st_size)  # in its place, as cp writes

    assert torch.equal(tensors["a"], torch.ones(5000))


def test_others_safetensors_load_by_their_layout(tmp_path):
    from safetensors.torch import save_file

    state = narrow().state_dict()
    plain = {name: t.contiguous() for name, t in state.items()}
    save_file(prefixed("module.", plain), tmp_path / "weights.bin")
    model = narrow(seed=1)

    load_weights(model, str(tmp_path / "weights.bin"))

    assert equal(model, state)


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "damaged",
    [
        struct.pack("<Q", 90_000_000) + b"{",
        header({"a": ENTRY}, b"\0\0"),
        header({"a": {**ENTRY, "shape": [2**40]}}, b"\0" * 4),
        header({"__metadata__": {"octvideo": "[" * 9000}, "a": ENTRY}, b"\0" * 4),
        header({"__metadata__": {"octvideo": "[]"}, "a": ENTRY}, b"\0" * 4),
    ],
    ids=["header", "truncated", "shape", "nested", "list"],
)
def test_damaged_safetensors_are_refused(damaged, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damaged)

    with pytest.raises(CheckpointError, match=r"damaged or no file of safetensors|not an object"):
        Checkpoint.read(str(path))


# --- Caffe2's pickles


TENSORS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
LAYERS = {"reduce": "branch2a", "spatial": "branch2b", "expand": "branch2c", "shortcut": "branch1"}


def caffe2_blobs(model):
    """A vanilla network's weights under the names of PySlowFast's model zoo."""
    blobs = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            blobs[caffe2_name(model, name)] = tensor.numpy()
    blobs |= {f"{name}_momentum": np.zeros(2) for name in list(blobs)[:3]}
    return blobs | {"lr": np.float32(0.1), "model_iter": np.array([7])}


def caffe2_name(model, name):
    parts = name.split(".")
    fast = "t_" if parts[0] == "fast" else ""
    parts = parts[1:] if parts[0] in ("slow", "fast") else parts
    end = f"bn_{TENSORS[parts[-1]]}" if {"bn", "norm"} & set(parts) else parts[-1][0]
    if parts[0] == "head":
        return f"pred_{end}"
    if parts[0] == "stem":
        return f"{fast}{'res_' if end.startswith('bn') else ''}conv1_{end}"
    if parts[0] == "laterals":
        stage = int(parts[1]) + 1
        count = len(list(model.slow.get_submodule(f"res{stage}"))) if stage > 1 else 0
        source = f"res{stage}_{count - 1}_branch2c_bn" if stage > 1 else "pool1"
        return f"t_{source}_subsample_{end}"
    stage, number = parts[0][3:], re.sub(r"\D", "", parts[1])
    if parts[1].startswith("nonlocal"):
        layer = "" if "norm" in parts else f"_{parts[3].removeprefix('conv_')}"
        return f"nonlocal_conv{stage}_{number}{layer}_{end}"
    return f"{fast}res{stage}_{number}_{LAYERS[parts[2]]}_{end}"


def test_a_name_of_each_kind_is_caffe2s():
    names = caffe2_blobs(narrow("slowfast_r26"))
    names |= caffe2_blobs(narrow("i3d_nln_r26"))

    assert {
        "conv1_w",
        "res_conv1_bn_rm",
        "t_res2_0_branch1_bn_riv",
        "res5_1_branch2c_w",
        "t_pool1_subsample_bn_s",
        "t_res4_1_branch2c_bn_subsample_w",
        "nonlocal_conv4_1_theta_b",
        "nonlocal_conv3_1_bn_s",
        "pred_b",
    } <= names.keys()


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ["i3d_nln_r26", "slowfast_r26"])
def test_a_caffe2_pickle_gives_the_same_scores(name, protocol, tmp_path):
    path, source = tmp_path / "zoo.pkl", narrow(name).eval()
    path.write_bytes(pickle.dumps({"blobs": OrderedDict(caffe2_blobs(source))}, protocol))
    model, clip = narrow(name, seed=1).eval(), torch.randn(1, 3, 8, 32, 32)

    report = load_weights(model, str(path))

    assert report.layout == "Caffe2"
    with torch.no_grad():
        assert torch.equal(model(clip), source(clip))


def test_what_python_2_pickled_is_read(tmp_path):
    path = tmp_path / "zoo.pkl"
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    raw = array.tobytes()
    path.write_bytes(
        b"\x80\x02}U\x05blobs}U\x06pred_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbss."
    )

    read = read_numpy_pickle(str(path))

    assert np.array_equal(read["blobs"]["pred_w"], array)


class Runs:
    def __reduce__(self):
        return os.system, ("true",)


HOSTILE = {
    "code": lambda: pickle.dumps({"blobs": Runs()}),
    "objects": lambda: pickle.dumps({"blobs": np.array([Runs(), 1], object)}),
    "object dtype": lambda: pickle.dumps({"blobs": np.array([None], object)}),
    "another class": lambda: pickle.dumps({"blobs": nn.Linear(1, 1)}),
    "state": lambda: b"\x80\x02ccollections\nOrderedDict\n)R}U\x01aK\x01sb.",
    "a codec": lambda: b"\x80\x02c_codecs\nencode\nU\x01aU\x03zip\x86R.",
    "ndarray called": lambda: b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.",
    "bytearray": lambda: b"\x80\x05\x96\xff\xff\xff\x7f\x00\x00\x00\x00.",
    "shape": (
        lambda: pickle.dumps({"blobs": np.zeros(3, "u1")}, 2).replace(b"K\x03\x85", b"K\x7f\x85")
    ),
    "a laugh": lambda: (
        b"\x80\x02]q\x00"
        + b"".join(
            b"(" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"lq" + bytes([i + 1])
            for i in range(30)
        )
        + b"."
    ),
    "truncated": lambda: pickle.dumps({"blobs": np.zeros(30)})[:-9],
    "a list": lambda: pickle.dumps([1]),
    "itself": lambda: b"\x80\x02}q\x00U\x01ah\x00s.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_holds_anything_but_arrays_is_refused_in_one_line(name, tmp_path):
    path = tmp_path / "zoo.pkl"
    path.write_bytes(HOSTILE[name]())

    with pytest.raises(CheckpointError) as caught:
        Checkpoint.read(str(path))

    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 400 + len(str(path))
    assert "\n" not in str(caught.value)


# --- PySlowFast's image network (test_inflate_layouts)


def pyslowfast_name(name):
    parts = name.split(".")
    if parts[0] == "head":
        return f"head.projection.{parts[-1]}"
    if parts[0] == "stem":
        return f"s1.pathway0_stem.{'.'.join(parts[1:])}"
    letter = {"reduce": "branch2.a", "spatial": "branch2.b", "expand": "branch2.c"}
    layer = letter.get(parts[2], "branch1") + ("_bn" if parts[3] == "bn" else "")
    return f"s{parts[0][3:]}.pathway0_res{parts[1][5:]}.{layer}.{parts[-1]}"
