"""Measure which octave convolutions are faster as two convolutions than as four, with one layer of
each kind."""

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from octvideo.counted_run import noting
from octvideo.deploy.cache import kept, key_of, structure_of
from octvideo.deploy.merge import MergedOctConv, merge_convs, mergeable
from octvideo.deploy.timing import interleaved
from octvideo.errors import logger
from octvideo.layers import OctTensor

Pair = tuple[Tensor, Tensor]
Prepare = Callable[[list[nn.Module], list[Pair]], Sequence[Callable[[], object]]]
ROUNDS = 5


class Layer(nn.Module):
    """A convolution and the ReLU after it, from and to plain tensors."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, high: Tensor, low: Tensor) -> tuple[Tensor, ...]:
        out = self.conv(OctTensor(high, low)).map(F.relu)
        return (out.high,) if out.low is None else (out.high, out.low)


def merge_where_faster(
    model: nn.Module, example: Tensor, engine: str, prepare: Prepare
) -> nn.Module:
    """A copy of the folded `model` in which the octave convolutions that are faster merged are
    merged.

    prepare: compiles each `Layer` for its inputs with `engine`, for repeated calls. The times are
    for one clip; of identical layers one is timed. The choice is kept on disk; it does not depend
    on the values of the weights.
    """
    names = mergeable(model)
    if not names:
        return model
    key = key_of("merge", engine, structure_of(model), tuple(example.shape[1:]))
    chosen = kept(
        key,
        _read,
        lambda: _measured(model, example, names, prepare),
        lambda merged, folder: (folder / "merged.json").write_text(json.dumps(merged)),
    )
    return merge_convs(model, set(chosen) & set(names))


def _read(folder: Path) -> list[str]:
    return [str(name) for name in json.loads((folder / "merged.json").read_text())]


def _measured(
    model: nn.Module, example: Tensor, names: Collection[str], prepare: Prepare
) -> list[str]:
    inputs = _inputs(model, example[:1], names)
    kinds: dict[Any, list[str]] = {}
    for name in names:
        shapes = tuple(tuple(x.shape) for x in inputs[name])
        kinds.setdefault((repr(model.get_submodule(name)), shapes), []).append(name)
    logger.info("measuring %d kinds of octave layers, which takes up to half a minute", len(kinds))
    first = [alike[0] for alike in kinds.values()]
    convs: list[Any] = [model.get_submodule(name) for name in first]
    plain: list[nn.Module] = [Layer(conv).eval() for conv in convs]
    merged: list[nn.Module] = [Layer(MergedOctConv(conv)).eval() for conv in convs]
    calls = prepare(plain + merged, 2 * [inputs[name] for name in first])
    forms = list(zip(calls[: len(first)], calls[len(first) :], strict=True))
    chosen = []
    for alike, pair in zip(
        kinds.values(), tqdm(forms, unit="kind", desc="octave layers", disable=None), strict=True
    ):
        as_four, as_two = map(min, interleaved(dict(enumerate(pair)), ROUNDS).values())
        if as_two < as_four:
            chosen += alike
    return chosen


def _inputs(model: nn.Module, example: Tensor, names: Collection[str]) -> dict[str, Pair]:
    seen: dict[str, Pair] = {}

    def note(name: str, inputs: tuple[Any, ...], _: Any) -> None:
        seen[name] = (inputs[0].high, inputs[0].low)

    layers = {name: model.get_submodule(name) for name in names}
    with noting(layers, note), torch.no_grad():
        model.eval()(example)
    return seen
