"""Predicted times: arithmetic that can be done by hand, and the table of the theory."""

import runpy
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo import create_model
from octvideo.deploy.gpus import GPUS, Gpu, find_gpu
from octvideo.deploy.operators import trace_operators
from octvideo.deploy.roofline import FORMS, predict, predict_operators
from octvideo.errors import ConfigError
from octvideo.layers import Channels, OctBatchNorm3d, OctConv3d, OctTensor
from octvideo.models.blocks import Bottleneck

SMALL = {"width_per_group": 16, "num_classes": 5}
CLIP = (3, 8, 64, 64)
ONE = Gpu("one byte and one FLOP per second", 1.0, {"bf16": 1.0})
NO_MEMORY_LIMIT = Gpu("infinite bandwidth", float("inf"), {"bf16": 1.0})


class Layer(nn.Module):
    """1 x 1 x 1 octave convolution, BN and ReLU between two others like it, so that its inputs and
    outputs are maps."""

    def __init__(self, channels: Channels, *, norm: bool) -> None:
        super().__init__()
        self.before, self.layer, self.after = (
            OctConv3d(channels, channels, 1, bias=False) for _ in range(3)
        )
        self.bn = OctBatchNorm3d(channels) if norm else nn.Identity()
        self.norm = norm

    def forward(self, x):
        half = x.shape[1] // 2
        pair = OctTensor(x)
        if self.layer.in_channels.low:
            pair = OctTensor(x[:, :half], x[:, half:, :, ::2, ::2])
        out = self.bn(self.layer(self.before(pair)))
        out = self.after(out.map(F.relu) if self.norm else out)
        return out.high if out.low is None else (out.high, out.low)


def traffic(channels: Channels, form: str, *, norm: bool) -> int:
    """Bytes of the middle layer without its weights."""
    model = Layer(channels, norm=norm)
    kernels = predict(model, (64, 2, 16, 16), ONE, form=form).layers()["layer"].kernels
    weights = 2 * sum(p.numel() for p in model.layer.parameters())
    norms = 2 * 4 * channels.total if norm else 0
    return sum(k.num_bytes for k in kernels) - weights - norms


@pytest.mark.parametrize(
    ("form", "norm", "ratio"),
    [
        ("unfused", False, 4.875 / 2),
        ("unfused", True, 7.375 / 6),
        # Pool 5/8; four convolutions 14/8; up, sum, BN and ReLU of both groups in 12/8, against 2 +
        # 2.
        ("fused", True, 3.875 / 4),
        # The pool costs no more than its output.
        ("fused-pools", True, 3.375 / 4),
        ("one-pass", True, 0.625),
    ],
)
def test_traffic_of_one_1x1_layer_at_alpha_half(form, norm, ratio):
    vanilla, octave = (
        traffic(channels, form, norm=norm) for channels in (Channels(64), Channels(32, 32))
    )

    assert octave / vanilla == pytest.approx(ratio, rel=1e-12)


@pytest.mark.parametrize("alpha", [0, 0.25])
def test_in_one_pass_a_layer_reads_and_writes_each_group_once(alpha):
    model = create_model("i3d_r26", alpha=alpha, **SMALL).eval()
    expected = {}

    def note(name):
        def hook(module, args, out):
            maps = [m for pair in (args[0], out) for m in (pair.high, pair.low) if m is not None]
            expected[name] = sum(m.numel() for m in maps)
            expected[name] += sum(p.numel() for p in module.parameters())

        return hook

    def note_residual(name):
        def hook(module, args, out):
            expected[name] += sum(m.numel() for m in (out.high, out.low) if m is not None)

        return hook

    norms = {}
    for name, module in model.named_modules():
        if isinstance(module, OctConv3d):
            module.register_forward_hook(note(name))
            norms[name] = 4 * module.out_channels.total
        elif isinstance(module, Bottleneck):
            module.register_forward_hook(note_residual(f"{name}.expand.conv"))
    model(torch.zeros(2, *CLIP))

    layers = predict(model, CLIP, ONE, batch=2, form="one-pass").layers()
    expected.pop("res5.block1.expand.conv")  # which also merges the pair

    assert {name: layers[name].num_bytes for name in expected} == {
        name: 2 * (elements + norms[name]) for name, elements in expected.items()
    }


def test_seconds_are_flops_over_rate_or_bytes_over_bandwidth_whichever_takes_longer():
    model = create_model("i3d_r26", alpha=0.25, **SMALL)

    p = predict(model, CLIP, ONE)
    by_flops = predict(model, CLIP, NO_MEMORY_LIMIT)

    assert p.seconds == sum(max(k.flops, k.num_bytes) for k in p.kernels)
    assert by_flops.seconds == p.flops
    assert sum(q.seconds for q in p.layers().values()) == pytest.approx(p.seconds)


def test_every_launch_adds_its_time():
    model = create_model("c2d_r26", **SMALL)

    plain, launched = (predict(model, CLIP, "h100", launch_seconds=s) for s in (0.0, 1e-3))

    assert launched.seconds == pytest.approx(plain.seconds + 1e-3 * len(plain.kernels))


@pytest.mark.parametrize("train", [False, True], ids=["inference", "train"])
@pytest.mark.parametrize("alpha", [0, 0.25])
@pytest.mark.parametrize("name", ["i3d_r26", "slowfast_r26", "c2d_nln_r26"])
def test_fusing_moves_fewer_bytes_in_fewer_kernels_for_the_same_flops(name, alpha, train):
    operators = trace_operators(create_model(name, alpha=alpha, **SMALL), CLIP, train=train)

    found = [predict_operators(operators, "h100", form=form) for form in FORMS]

    unfused, fused, pools, one_pass = (p.num_bytes for p in found)
    assert unfused > fused >= pools > one_pass
    unfused, fused, pools, one_pass = (len(p.kernels) for p in found)
    assert unfused > fused >= pools > one_pass
    assert len({p.flops for p in found}) == 1


def test_a_batch_of_two_moves_each_map_twice_and_each_weight_once():
    model = create_model("i3d_r26", alpha=0.25, **SMALL)

    one, two, three = (predict(model, CLIP, "h100", batch=n).num_bytes for n in (1, 2, 3))

    assert three - two == two - one
    assert two < 2 * one


@pytest.mark.parametrize(
    ("alpha", "conv_ms", "other_ms"), [(0, 1.14, 2.31), (0.1, 1.11, 3.05), (0.2, 1.06, 3.45), (0.5, 0.83, 2.56)]
)  # fmt: skip
def test_i3d_takes_what_the_theory_says(alpha, conv_ms, other_ms):
    """Batch 8, bf16, 500 TFLOP/s and 2.6 TB/s; the convolutions were first computed by another
    program."""
    card = Gpu("500 TFLOP/s, 2.6 TB/s", 2.6e12, {"bf16": 500e12})

    p = predict(create_model("i3d_r50", alpha=alpha), (3, 8, 224, 224), card, batch=8)

    assert 1e3 * p.matrix_seconds == pytest.approx(conv_ms, abs=0.005)
    assert 1e3 * (p.seconds - p.matrix_seconds) == pytest.approx(other_ms, abs=0.005)


def test_mistakes_are_named():
    model = create_model("c2d_r26", **SMALL)

    with pytest.raises(ConfigError, match="there is no GPU 'h900' in the table; known are h100, "):
        predict(model, CLIP, "h900")
    with pytest.raises(ConfigError, match="T4 16 GB has no bf16; it has fp16, fp32"):
        predict(model, CLIP, "t4")
    with pytest.raises(ConfigError, match="form is 'fuse'"):
        predict(model, CLIP, "h100", form="fuse")
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        predict(model, CLIP, "h100", dtype="int8")


@pytest.mark.parametrize(
    ("device", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla T4", "t4"),
    ],
)
def test_a_card_is_found_by_the_name_that_its_driver_gives(device, key):
    assert find_gpu(device) is GPUS[key]


@pytest.mark.parametrize("device", ["NVIDIA H100 PCIe", "NVIDIA A100-SXM4-40GB", "NVIDIA L40"])
def test_a_card_with_other_rates_is_not_taken_for_one_of_the_table(device):
    with pytest.raises(ConfigError, match=f"no GPU '{device}'"):
        find_gpu(device)


@pytest.mark.parametrize("gpu", GPUS)
def test_a_card_has_fewer_flops_in_wider_numbers(gpu):
    rates = list(GPUS[gpu].rates.values())

    assert rates == sorted(rates, reverse=True)


def test_the_script_prints_a_table_with_ratios_to_the_first_alpha(repo, monkeypatch, capsys):
    size = ["--model", "c2d_r26", "--input", "4", "32", "32", "--batch", "1", "--alpha", "0", ".5"]
    monkeypatch.setattr(sys, "argv", ["predict_gpu.py", *size, "--train", "--layers"])

    runpy.run_path(str(repo / "benchmarks" / "predict_gpu.py"), run_name="__main__")

    head, _, *lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert head.startswith("c2d_r26, 4 x 32 x 32, batch 1, bf16, training step; H100")
    assert [row[:2] for row in rows[2:10]] == [
        [form, alpha] for form in FORMS for alpha in ("0", "0.5")
    ]
    assert [row[7] for row in rows[2:10:2]] == ["1.000"] * 4
    assert sum(row[0] == "res2.block0.expand.conv" for row in rows) == 4
