"""The rows of a classifier in another order of the classes."""

import pytest
import torch

from octvideo.checkpoint import Checkpoint
from octvideo.models.registry import MODELS
from octvideo.weights.class_order import in_order_of


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("mine", "head.fc.weight", "put into the order of these classes"),
        ("mine", "classifier.weight", "no head.fc whose rows would be put into it"),
        ("i3d_r26", "stem.conv.weight", ""),  # of a file without a classifier
    ],
)
def test_it_is_said_whether_the_rows_of_a_classifier_are_put_in_order(
    name, tensor, says, caplog, monkeypatch
):
    monkeypatch.setitem(MODELS, "mine", MODELS["i3d_r26"])
    given = Checkpoint("w.pyth", {tensor: torch.eye(3)}, None, {"name": name}, tuple("abc"))

    with caplog.at_level("INFO", "octvideo"):
        found = in_order_of("cab", given)

    moved = [2, 0, 1] if tensor.startswith("head") else [0, 1, 2]
    assert torch.equal(found.state[tensor], torch.eye(3)[moved])
    assert says in caplog.text
    assert bool(says) == bool(caplog.text)
