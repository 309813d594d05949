"""With the same weights, our vanilla networks are pytorchvideo's: after every stage and in the
logits."""

from typing import Any

import pytest
import torch
from reference_models import randomise, reference, slow_frames
from torch import nn

from octvideo import create_model
from octvideo.layers import OctTensor
from octvideo.weights import load_weights

# Our stages in the order of pytorchvideo's blocks; SlowFast's blocks end with a fusion, ours begin
# with it.
SINGLE = ("stem", "res2", "pool2", "res3", "res4", "res5")
SLOW = ("stem", "res2", "res3", "res4", "res5")


def outputs_of(
    model: nn.Module, names: list[str], run: Any
) -> tuple[list[list[torch.Tensor]], torch.Tensor]:
    """What the submodules `names` return, and the model's own output; pairs are plain here."""
    seen: dict[str, list[torch.Tensor]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            # pytorchvideo's fusion writes into the list that it returns.
            seen[name] = (
                [out.high]
                if isinstance(out, OctTensor)
                else list(out)
                if isinstance(out, list)
                else [out]
            )

        return hook

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    with torch.no_grad():
        logits = run()
    for handle in handles:
        handle.remove()
    return [seen[name] for name in names], logits


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor], name: str) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4, msg=lambda text: f"{name}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stages"),
    [("c2d_r50", SINGLE), ("i3d_r50", SINGLE), ("slow_r50", SLOW)],
    ids=lambda v: str(v)[:8],
)
def test_single_pathway_networks_equal_the_hub_models(name, stages, tmp_path):
    theirs = randomise(reference(name, num_classes=7))
    torch.save({"model_state": theirs.state_dict()}, tmp_path / "hub.pyth")
    ours = create_model(name, num_classes=7).eval()
    clip = torch.randn(2, 3, 8, 64, 64)

    report = load_weights(ours, str(tmp_path / "hub.pyth"))
    expected, expected_logits = outputs_of(
        theirs, [f"blocks.{i}" for i in range(len(stages))], lambda: theirs(clip)
    )
    got, logits = outputs_of(ours, list(stages), lambda: ours(clip))

    assert report.layout == "pytorchvideo"
    assert len(report.loaded) == len(theirs.state_dict()) == len(ours.state_dict())
    for stage, a, b in zip(stages, got, expected, strict=True):
        assert_same(a, b, stage)
    assert_same([logits], [expected_logits], "logits")


@pytest.mark.slow
def test_slowfast_equals_pytorchvideos_in_its_4x16_form(tmp_path):
    theirs = randomise(reference("slowfast_r50", num_classes=7))
    torch.save({"model_state": theirs.state_dict()}, tmp_path / "hub.pyth")
    ours = create_model("slowfast_r50", num_classes=7).eval()
    clip = torch.randn(1, 3, 32, 64, 64)

    report = load_weights(ours, str(tmp_path / "hub.pyth"))
    blocks, expected_logits = outputs_of(
        theirs, [f"blocks.{i}" for i in range(5)], lambda: theirs([slow_frames(clip), clip])
    )
    fast, logits = outputs_of(ours, [f"fast.{name}" for name in SLOW], lambda: ours(clip))
    slow, _ = outputs_of(
        ours, [*(f"laterals.{i}" for i in range(4)), "slow.res5"], lambda: ours(clip)
    )

    assert len(report.loaded) == len(theirs.state_dict()) == len(ours.state_dict())
    for i, (their_slow, their_fast) in enumerate(blocks):
        assert_same(slow[i], [their_slow], f"slow pathway behind block {i}")
        assert_same(fast[i], [their_fast], f"fast pathway behind block {i}")
    assert_same([logits], [expected_logits], "logits")


def test_a_narrow_i3d_equals_one_that_pytorchvideos_builder_makes(tmp_path):
    """The quick form of the above: depth 50, an eighth of the width."""
    theirs = randomise(reference("i3d_r50", num_classes=7, width=8))
    torch.save(theirs.state_dict(), tmp_path / "bare.pth")
    ours = create_model("i3d_r50", num_classes=7, width_per_group=8).eval()
    clip = torch.randn(2, 3, 8, 47, 32)

    load_weights(ours, str(tmp_path / "bare.pth"))

    with torch.no_grad():
        assert_same([ours(clip)], [theirs(clip)], "logits")
