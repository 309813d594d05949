"""The checkpoint of every network: its names and shapes stay, and nothing of the network that it
describes is left without content."""

import hashlib
import json
import re

import pytest
import torch
from narrow_networks import checkpoint_of, theirs_of_two_blocks
from test_create_model_video import GOLDEN, state_dict_lines
from torch import nn
from torch.utils import _pytree as pytree

from octvideo import list_models
from octvideo.checkpoint import Checkpoint
from octvideo.weights.load import network_of

SLOW = re.compile("101|152|200|ptv:(?!slowfast)")
# To write them anew: PYTHONPATH=tests python tests/models/test_every_checkpoint.py
DIGESTS = GOLDEN / "state_dict_digests.json"
WHOLE = "ptv:slow_r50"  # of those that take seconds to be made octave


def checkpoint(name: str, alpha: float) -> Checkpoint:
    """Made octave, pytorchvideo's networks have two blocks per stage."""
    return checkpoint_of(name, alpha, two_blocks=alpha > 0 and name.startswith("ptv:"))


def digest(checkpoint: Checkpoint) -> str:
    lines = state_dict_lines(checkpoint.state)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def digests(name: str) -> dict[str, str]:
    return {f"{alpha}": digest(checkpoint(name, alpha)) for alpha in (0.0, 0.25)}


def tensors_in(model: nn.Module) -> list[torch.Tensor]:
    """Parameters, all buffers, and the attributes that are neither."""
    leaves = [x for module in model.modules() for x in pytree.tree_leaves(vars(module))]
    return [x for x in leaves if isinstance(x, torch.Tensor)]


# The tests of a network one after the other: they share its checkpoint.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if SLOW.search(name) else [])
        for name in list_models()
    ],
)
def name(request):
    return request.param


def test_keys_and_shapes_of_every_network_are_stable(name):
    assert digests(name) == json.loads(DIGESTS.read_text())[name]


def test_no_tensor_of_a_registered_network_is_left_without_content(name):
    with theirs_of_two_blocks():
        model = network_of(checkpoint(name, 0.25))

    assert not [x for x in tensors_in(model) if x.is_meta]


@pytest.mark.slow
def test_keys_and_shapes_of_a_whole_octave_network_of_pytorchvideo_are_stable():
    assert digest(checkpoint_of(WHOLE, 0.25)) == json.loads(DIGESTS.read_text())["whole"]


def test_every_network_has_its_digests():
    assert [*json.loads(DIGESTS.read_text())] == [*list_models(), "whole"]


if __name__ == "__main__":
    written = {name: digests(name) for name in list_models()}
    DIGESTS.write_text(
        json.dumps({**written, "whole": digest(checkpoint_of(WHOLE, 0.25))}, indent=1) + "\n"
    )
