"""Whole networks inside torch's machinery: compiled, exported, distributed, checkpointed, in
bfloat16."""

import gc
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import forked_ranks
from narrow_networks import first_stages, shortened
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from octvideo import create_model

FAMILIES = ("c2d_r26", "i3d_nln_r26", "slowfast_r26")


def awake(name: str, make: Callable[..., nn.Module] = create_model, **options: Any) -> nn.Module:
    """A narrow octave network in evaluation mode whose residual branches and attention do
    something."""
    torch.manual_seed(0)
    width = 32 if name.startswith("slowfast") else 16
    model = make(name, **{"alpha": 0.5, "num_classes": 5, "width_per_group": width, **options})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def few_blocks(name: str, **options: Any) -> nn.Module:
    """What repeats the code of another stage or block is left out: of one pathway res4 and res5."""
    if name.startswith("slowfast"):
        return shortened(awake(name, **options))
    return shortened(awake(name, partial(first_stages, count=2), **options))


def clip_of(clips: int = 2, size: int = 33) -> Tensor:
    return torch.randn(clips, 3, 8, size, size + 7)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_compiles_without_a_graph_break(name):
    model, clip = few_blocks(name), clip_of()

    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(clip)
        torch.testing.assert_close(compiled, model(clip), atol=1e-5, rtol=1e-4)
    torch.compiler.reset()


@pytest.mark.slow
def test_the_memory_saving_form_compiles_and_exports_with_its_gradients():
    model, clip = few_blocks("i3d_r26", memory_saving=True), clip_of(1)
    model(clip).square().sum().backward()
    expected = gradients(model)
    model.zero_grad()

    torch.compile(model, fullgraph=True, backend="aot_eager")(clip).square().sum().backward()
    torch.compiler.reset()
    exported = torch.export.export(model, (clip,)).module()

    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], atol=1e-5, rtol=1e-3, msg=name)
    torch.testing.assert_close(exported(clip), model(clip), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_exports(name):
    model, clip = few_blocks(name), clip_of()

    with torch.no_grad():
        exported = torch.export.export(model, (clip,)).module()
        other = clip_of()
        torch.testing.assert_close(exported(other), model(other), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_autocast_keeps_the_result_to_its_precision(name):
    model, clip = awake(name), clip_of()

    with torch.no_grad():
        expected = model(clip)
        with torch.autocast("cpu", torch.bfloat16):
            got = model(clip).float()

    assert (got - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("name", ["i3d_r26", "slowfast_r26"])
def test_checkpointed_stages_give_the_same_gradients(name, monkeypatch):
    model, clip = awake(name), clip_of()
    model(clip).square().sum().backward()
    expected = gradients(model)
    model.zero_grad()
    stages = [
        module
        for module_name, module in model.named_modules()
        if module_name.rpartition(".")[2][:3] == "res"
    ]

    for stage in stages:
        plain = stage.forward
        monkeypatch.setattr(
            stage,
            "forward",
            lambda x, plain=plain: checkpoint(plain, x, use_reentrant=False),
            raising=True,
        )
    model(clip).square().sum().backward()

    assert len(stages) in (4, 8)
    for parameter, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[parameter], msg=parameter)


def _train_on_half(folder: str) -> None:
    """One of two processes: the gradient of its half of the batch, averaged by DDP."""
    torch.set_num_threads(1)
    # Of 1x1x1 weights, as below.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    model, clip = awake("i3d_r26"), torch.load(f"{folder}/clip.pt")
    network = DistributedDataParallel(model)
    network(clip[2 * rank : 2 * rank + 2]).square().mean().backward()
    torch.save(gradients(model), f"{folder}/{rank}.pt")
    del network
    gc.collect()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_both_halves(tmp_path: Path):
    clip, model = clip_of(4), awake("i3d_r26")
    torch.save(clip, tmp_path / "clip.pt")
    model(clip).square().mean().backward()

    ranks = forked_ranks(2, _train_on_half, str(tmp_path), outputs=tmp_path / "said")

    assert [rank.wait() for rank in ranks] == [0, 0]
    for rank in range(2):
        for name, grad in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(
                grad, model.get_parameter(name).grad, atol=1e-8, rtol=1e-3, msg=name
            )


# DDP's buckets have the strides of the parameters; 2D kernels give gradients of 1x1x1 weights in
# channels-last.
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
@pytest.mark.usefixtures("group_of_one")
def test_one_process_in_ddp_has_the_gradients_of_the_model_itself():
    model, clip = awake("slowfast_r26"), clip_of()
    model(clip).square().mean().backward()
    expected = gradients(model)
    model.zero_grad()

    DistributedDataParallel(model)(clip).square().mean().backward()

    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], msg=name)
