"""Networks as they are registered, but with fewer stages or blocks: fast to trace, to compile and
to export."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from octvideo import create_model
from octvideo.checkpoint import Checkpoint
from octvideo.models import pytorchvideo
from octvideo.models.network import Head
from octvideo.models.registry import MODELS


@cache
def checkpoint_of(name: str, alpha: float, *, two_blocks: bool = False) -> Checkpoint:
    """Of the network, whole or as in `theirs_of_two_blocks`; a tensor has one number, so that
    nothing is allocated. Tests share it."""
    with torch.device("meta"), theirs_of_two_blocks() if two_blocks else nullcontext():
        model = create_model(name, alpha=alpha)
    state = {
        key: torch.zeros((), dtype=x.dtype).expand(x.shape) for key, x in model.state_dict().items()
    }
    return Checkpoint("w.pyth", state, network=model.config)


def first_stages(name: str, count: int, **options: Any) -> nn.Module:
    """The stem, res2 (and res3 for a count of 2, ...) and the classifier of a one-pathway video
    network."""
    model = create_model(name, **options)
    for number in range(2 + count, 6):
        setattr(model, f"res{number}", nn.Identity())
    fc = model.head.fc
    model.head = Head(fc.in_features >> (4 - count), fc.out_features, dropout_rate=0.0)
    return model


def of_one_block(name: str, **options: Any) -> nn.Module:
    """`create_model` of a video ResNet-26, with one block in each stage behind res2."""
    return shortened(create_model(name, **options))


def of_two_blocks(name: str, **options: Any) -> nn.Module:
    """`create_model`, without the blocks that repeat the second one of their stage."""
    with theirs_of_two_blocks():
        model = create_model(name, **options)
    return model if name.startswith("ptv:") else two_blocks_per_stage(model)


def has_a_twin_of_two_blocks(name: str) -> bool:
    """Whether a shallower one, or X3D-M, is the same network where stages have two blocks."""
    depth = re.search("26|50|101|152|200", name)
    shallower = [d for d in ("26", "50") if depth and int(d) < int(depth[0])]
    is_x3d = name in ("ptv:x3d_xs", "ptv:x3d_s", "ptv:x3d_l")
    return is_x3d or any(name.replace(depth[0], d) in MODELS for d in shallower)


def shortened(model: nn.Module) -> nn.Module:
    """Without the second block of all stages but the first: it has the code of the first stage's."""
    for name, module in model.named_modules():
        if re.fullmatch(r"(.*\.)?res[345]", name) and hasattr(module, "block1"):
            del module.block1
    return model


@contextmanager
def theirs_of_two_blocks() -> Iterator[None]:
    """A context in which pytorchvideo's networks have two blocks per stage. They lose the others
    before they are made octave: afterwards they are graphs."""
    whole = pytorchvideo._build_theirs
    with patch.object(
        pytorchvideo, "_build_theirs", lambda *given: two_blocks_per_stage(whole(*given))
    ):
        yield


def two_blocks_per_stage(model: nn.Module) -> nn.Module:
    """The network without the blocks that repeat the second one of their stage, and without what
    follows them."""
    for name, module in model.named_modules():
        if re.fullmatch(r"(.*\.)?res\d", name):
            for child in [child for child, _ in module.named_children()]:
                if int(re.search(r"\d+$", child)[0]) >= 2:
                    delattr(module, child)
        if name.endswith("res_blocks"):  # pytorchvideo's
            del module[2:]
    return model
