"""The loss of channels at half the resolution, and the error of features in the octave network;
both on clips."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from octvideo.counted_run import evaluating
from octvideo.layers import OctTensor, down, merge, up_to
from octvideo.octavize.kernels import plain_conv
from octvideo.octavize.operations import is_map, value
from octvideo.octavize.pair import Pair
from octvideo.octavize.plan import Plan, Space
from octvideo.octavize.report import StageError
from octvideo.octavize.rewrite import Rewriter
from octvideo.octavize.value_tracer import OCTAVE_LAYERS


@torch.no_grad()
def lost_energy(source: fx.GraphModule, plan: Plan, clips: Any) -> dict[Space, Tensor]:
    """Per space and channel: the energy that pooling by 2 removes, times that of the kernels that
    read the channel.

    source: the traced network with its weights.
    """
    lost: dict[Space, Tensor] = {}

    def note(node: fx.Node, x: Tensor) -> None:
        for site in plan.sites.values():
            if site.reads is not node or site.is_depthwise or site.obstacle:
                continue
            detail = x - up_to(down(x, 2), x)
            energy = detail.square().transpose(0, 1).flatten(1).mean(1) * _kernel_energy(site.conv)
            for space, part in zip(
                plan.segments[node],
                torch.split(energy, [space.channels for space in plan.segments[node]]),
                strict=True,
            ):
                space = space.find()
                lost[space] = lost[space] + part if space in lost else part

    nodes = {site.reads for site in plan.sites.values()}
    _run(source, clips, nodes, note)
    return lost


def _kernel_energy(conv: Any) -> Tensor:
    """(C_in,): squared kernel values that read each input channel."""
    weight: Tensor = plain_conv(conv).weight
    groups = plain_conv(conv).groups
    squares = weight.square().flatten(2).sum(2)
    return squares.reshape(groups, -1, squares.shape[1]).sum(1).flatten()


@torch.no_grad()
def stage_errors(
    source: fx.GraphModule, result: fx.GraphModule, rewriter: Rewriter, clips: Any
) -> list[StageError]:
    """The distance between the octave network's features and those of `source`, per stage."""
    last = _last_maps(rewriter)
    wanted: dict[fx.Node, Tensor] = {}
    _run(source, clips, set(last.values()), wanted.__setitem__)
    found: dict[fx.Node, Any] = {}
    nodes = {new for node in last.values() for new in _new_nodes(rewriter.env[node])}
    _run(result, clips, nodes, found.__setitem__)
    errors = []
    for stage, node in last.items():
        features = _features(rewriter.env[node], found)
        difference = (features - wanted[node]).norm() / wanted[node].norm()
        errors.append(StageError(stage, float(difference)))
    return errors


def _last_maps(rewriter: Rewriter) -> dict[str, fx.Node]:
    """Stage -> its last map of more than one position. A stage is where names first differ."""
    names = [site.name.split(".") for site in rewriter.plan.sites.values()]
    depth = 0
    while all(len(name) > depth + 1 and name[depth] == names[0][depth] for name in names):
        depth += 1
    last: dict[str, fx.Node] = {}
    for node in rewriter.trace.graph.nodes:
        paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        parts = paths[-1].split(".") if paths else []
        if (
            len(parts) > depth
            and is_map(node.meta.get("value"))
            and value(node).shape[-2:] != (1, 1)
        ):
            last[".".join(parts[: depth + 1])] = node
    return last


def _new_nodes(new: Any) -> Sequence[fx.Node]:
    if not isinstance(new, Pair):
        return [new]
    return [new.node] if new.parts is None and new.node is not None else list(new.groups)


def _features(new: Any, found: dict[fx.Node, Any]) -> Tensor:
    """The undivided map, its channels in the order of the network that was octavized."""
    values = [found[node] for node in _new_nodes(new)]
    if not isinstance(new, Pair):
        return values[0]
    pair = values[0] if isinstance(values[0], OctTensor) else OctTensor(*values)
    return merge(pair)[:, new.layout.restore]


def _run(model: fx.GraphModule, clips: Any, nodes: set[fx.Node], note: Any) -> None:
    """Call `note(node, value)` with the values of these nodes in evaluation; no other is kept."""
    names = {node.name: node for node in nodes}

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            out = super().run_node(n)
            if n.name in names:
                note(names[n.name], out)
            return out

        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            module = model.get_submodule(target)
            if isinstance(module, OCTAVE_LAYERS) and isinstance(args[0], Tensor):
                return module(OctTensor(args[0])).high
            return super().call_module(target, args, kwargs)

    with evaluating(model):
        Noting(model).run(clips)
