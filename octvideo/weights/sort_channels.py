"""The choice of the low channels in vanilla weights: those that lose least at half the resolution.

Kernels are split by position, the last channels becoming low. The order of channels does not matter
to a vanilla network: the channels between two layers may be permuted if both layers' kernels are.
So they are sorted first. All blocks of a stage add to one map, and share its order:

    map of a stage --- shortcut ----------------------- + --- map of the next
                   `-- reduce -- spatial -- expand -----'
                          own map   own map

What a lateral of SlowFast adds is a map of its own, behind those channels.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from octvideo.counted_run import noting
from octvideo.layers.oct_tensor import OctTensor
from octvideo.layers.resize import down, up_to
from octvideo.models import create_model
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import NORM_TENSORS, image_pathway, inflate
from octvideo.weights.source import State, by_pathway

BRANCH = ("reduce", "spatial", "expand")


class _Map(NamedTuple):
    """A feature map: the names of the layers that write it, each all of it, and of those that
    convolve it.

    is_last: it stands behind the other channels that its readers convolve, else before them.
    """

    writers: list[str]
    readers: list[str]
    is_last: bool = False


@torch.no_grad()
def smoothest_last(
    state_2d: State, model_3d: nn.Module, clips: Tensor, assumes: Assumptions
) -> dict[str, Tensor]:
    """Vanilla weights with the channels of every map permuted; the vanilla network computes the
    same function.

    The loss of a channel is the energy that pooling by 2 removes from it on `clips`, times the
    energy of the kernels that read it. Channels with the greatest loss come first, so that
    `inflate` makes low channels of those with the smallest.
    state_2d: in the names of this package's image networks, or of the vanilla form of `model_3d`.
    model_3d: the network to be filled; it is not changed.
    clips: float (N, 3, T, H, W), normalized as the weights expect. Raises CheckpointError where
    `inflate` would.
    """
    options: dict[str, Any] = model_3d.config  # type: ignore[assignment]
    vanilla = create_model(
        **{**options, "alpha": 0.0, "downsample": assumes.downsample or "stride"}
    )
    inflate(state_2d, vanilla, assumes)
    if options["num_groups"] > 1:
        return dict(state_2d)  # Kernels of groups, which `inflate` does not divide.
    state = dict(by_pathway(state_2d, model_3d))
    maps = list(_maps(state))
    lost = _lost_energy(vanilla, [reader for m in maps for reader in m.readers], clips)
    for m in maps:
        losses = [_read(lost[reader], state[_kernel(reader)].float()) for reader in m.readers]
        count = len(state[_kernel(m.writers[0])])
        own = [loss[-count:] if m.is_last else loss[:count] for loss in losses]
        order = torch.stack(own).sum(0).argsort(descending=True, stable=True)
        for name, dim in _tensors(state, m):
            state[name] = _reorder(state[name], dim, order, m.is_last)
    return dict(zip(state_2d, state.values(), strict=True))


def _reorder(tensor: Tensor, dim: int, order: Tensor, is_last: bool) -> Tensor:
    """The first or last channels along `dim` in another order, those of other maps as they are."""
    index = torch.arange(tensor.shape[dim])
    start = len(index) - len(order) if is_last else 0
    index[start : start + len(order)] = order + start
    return tensor.index_select(dim, index)


def _maps(state: State) -> Iterator[_Map]:
    """All maps that an octave network splits: those of bottlenecks, not the stem's."""
    found = {
        match.groups() for name in state if (match := re.match(r"res(\d)\.block(\d+)\.", name))
    }
    places = sorted((int(stage), int(block)) for stage, block in found)
    following: list[str] = []
    for stage in sorted({stage for stage, _ in places}, reverse=True):
        blocks = [f"res{stage}.block{block}" for of, block in places if of == stage]
        for block in blocks:
            for writer, reader in pairwise(BRANCH):
                yield _Map([f"{block}.{writer}"], [f"{block}.{reader}"])
        entries = [f"{block}.{BRANCH[0]}" for block in blocks]
        exits = [f"{block}.{BRANCH[-1]}" for block in blocks]
        shortcut = f"{blocks[0]}.shortcut"
        if readers := entries[1:] + following:
            yield _Map([shortcut, *exits], readers)
        following = [entries[0], shortcut]
        lateral = f"laterals.{stage - 2}"
        if _kernel(lateral) in state:
            yield _Map([lateral], [entries[0], shortcut], is_last=True)


def _kernel(layer: str) -> str:
    return f"{layer}.conv.h2h.weight"


def _tensors(state: State, m: _Map) -> Iterator[tuple[str, int]]:
    """The tensors that have the channels of a map, and the dimension of these channels in each."""
    is_preact = "tail.high.weight" in state
    yield from ((_kernel(writer), 0) for writer in m.writers)
    yield from ((_kernel(reader), 1) for reader in m.readers)
    norms = [f"{layer}.bn" for layer in (m.readers if is_preact else m.writers)]
    if f"{norms[0]}.high.weight" not in state:
        norms = []  # A lateral may have none.
    if any(writer.startswith("res5.block0.shortcut") for writer in m.writers):
        if "head.fc.weight" in state:
            yield "head.fc.weight", 1
        norms += ["tail"] if is_preact else []
    yield from ((f"{norm}.high.{tensor}", 0) for norm in norms for tensor in NORM_TENSORS)


def _read(energies: Tensor, kernel: Tensor) -> Tensor:
    """Per channel, what a kernel makes of its energy; what a lateral adds behind the kernel's
    channels is left out."""
    return energies[: kernel.shape[1]] * kernel.square().flatten(2).sum((0, 2))


def _lost_energy(model: nn.Module, layers: Sequence[str], clips: Tensor) -> dict[str, Tensor]:
    """Per channel of the map that each layer convolves: the mean square that pooling removes."""
    lost: dict[str, Tensor] = {}

    def note(layer: str, inputs: tuple[Any, ...], _: Any) -> None:
        x = inputs[0].high if isinstance(inputs[0], OctTensor) else inputs[0]
        lost[layer] = (x - up_to(down(x, 2), x)).square().mean((0, 2, 3, 4))

    pathway = image_pathway(model)
    convs = {layer: pathway.get_submodule(f"{layer}.conv") for layer in layers}
    with noting(convs, note):
        model.eval()(clips)
    return lost
