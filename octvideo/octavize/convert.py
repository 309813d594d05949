"""`octavize`: trace, plan, rewrite, report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from octvideo.copies import copied
from octvideo.errors import ConfigError
from octvideo.layers import OctConv2d, OctConv3d
from octvideo.layers.calls import hooks_of
from octvideo.layers.conv3d_as_2d import with_python_numbers
from octvideo.layers.nonlocal_block import PooledConv
from octvideo.layers.octave import Downsample
from octvideo.octavize.kernels import plain_conv, reset
from octvideo.octavize.measure import lost_energy, stage_errors
from octvideo.octavize.network import GraphMethod, OctaveModule
from octvideo.octavize.operations import CONVS, value
from octvideo.octavize.plan import Options, Plan, WidthRule, divide_spaces, make_plan
from octvideo.octavize.report import ConvReport, OctaveReport, StageError
from octvideo.octavize.rewrite import Rewriter
from octvideo.octavize.tracing import Trace, trace_with_forward
from octvideo.octavize.value_tracer import add_constants

EXPORTED = "traced by torch.export, for inputs of the example's size and type"
PROGRAMS = ("torch.jit.", "torch.export.", "torch._dynamo.")
"""Where the classes are defined of what a network is scripted, exported and compiled into."""
Weights = Literal["sorted", "as_is", "fresh"]


def octavize(
    model: nn.Module,
    alpha: float,
    example: Any,
    *,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    width_rule: WidthRule = "round16",
    downsample: Downsample | None = None,
    weights: Weights = "sorted",
    clips: Any = None,
) -> nn.Module:
    """An octave network that has the layers, the names and the weights of `model`; `model` itself
    is not changed. Each layer stays in its mode, so that frozen norms are frozen.

    Convolutions become octave convolutions, batch and group norms become norms of each group, and
    all operations between two convolutions act on each group by itself. Where an operation has no
    such form, the pair is merged before it and split after it. The result takes and returns plain
    tensors; `.octave_report` lists what became of each layer. It is an `OctaveModule` of the layers
    alone; a network of `create_model` keeps its class, its head and its `config`.

    model: any network of 2D or 3D convolutions; one that branches on the content of its input is
    refused.
    alpha: share of low-frequency channels, in [0, 1); at 0 the result equals `model` bit for bit,
    unless `downsample` is "pool".
    example: an input, as `model(example)` takes it: a tensor, or a list of tensors for several
    pathways. Other batches and sizes work unless the network itself depends on the size of its
    input. Where a pool or a resize then leaves the low group one row or column short of half the
    high one's, its last one is repeated.
    include, exclude: patterns of module names ("res[23].*") whose outputs are split, and are not;
    by default all but the convolutions that read the network's input. An excluded convolution that
    reads a pair merges it.
    width_rule: how the channels of a map are split: "round16" (default), "int", "round16_min16", or
    a function (channels, alpha) -> Channels, with which the result has no `config`: a function is
    none of the plain values that build a network again.
    downsample: how strides of 2 are taken: None (default) pools in octave convolutions and leaves
    the others unchanged; "pool" pools in all that `include` names, "stride" in none.
    weights: "sorted": the channels that lose least at half the resolution become the low ones;
    "as_is": the last ones do; "fresh": the last ones do, and all weights are initialized anew.
    clips: inputs on which that loss, and the error of the features, is measured; by default the
    loss on `example`.

    Raises ConfigError for an invalid alpha, pattern or rule, a network that cannot be traced, one
    that was scripted, exported or compiled, and a convolution that `include` names but that cannot
    be octave.
    """
    if any(base.__module__.startswith(PROGRAMS) for base in type(model).__mro__):
        raise ConfigError(
            f"octavize got a {type(model).__name__}: a program's layers cannot be exchanged; give"
            " the network that it was made of, and script, export or compile the result"
        )
    if weights not in ("sorted", "as_is", "fresh"):
        raise ConfigError(f"weights is {weights!r}; it is 'sorted', 'as_is' or 'fresh'")
    if downsample not in (None, "pool", "stride"):
        raise ConfigError(f"downsample is {downsample!r}; it is None, 'pool' or 'stride'")
    options = Options(alpha, include, exclude, width_rule)
    method = "features" if hasattr(model, "window_scores") else "forward"
    if method == "forward" and any(hooks_of(model)):
        raise ConfigError(
            f"{type(model).__name__} has hooks, which its octave form would lose; remove them, and"
            " register them on the result"
        )
    root = copied(model)
    # The whole is with the head, which stays as it is, whatever it does in training.
    traced, whole = trace_with_forward(model, example, method)
    for module in root.modules():
        with_python_numbers(module)
    add_constants(root, traced.constants)
    plan = make_plan(traced, root, options)
    measured = _with_content(example if clips is None else clips, model)
    sort = weights == "sorted" and alpha > 0
    by_loss = sort and measured is not None
    with_errors = clips is not None and weights != "fresh"
    source = fx.GraphModule(copied(root), traced.graph) if by_loss or with_errors else None
    divide_spaces(plan, lost_energy(source, plan, measured) if source and by_loss else None)
    rewriter = Rewriter(traced, plan, root, downsample, keep=sort)
    result = _module(root, rewriter.run(), method)
    _take_modes(result, model)
    if weights == "fresh":
        reset(result)
    errors = []
    if source and with_errors:
        errors = stage_errors(source, fx.GraphModule(root, rewriter.graph), rewriter, clips)
    whole.opaque.update(traced.opaque)  # an evaluation does not show what asks self.training
    result.octave_report = _report(model, result, rewriter, plan, whole, errors)  # type: ignore[assignment]
    # Any other network's `config` is a matter of its own, and stays with it.
    config = getattr(model, "config", None) if method == "features" else None
    if callable(width_rule) and config:
        del result.config
    elif config:
        arguments = {
            "alpha": alpha,
            "include": include,
            "exclude": exclude,
            "width_rule": width_rule,
            "downsample": downsample,
            "weights": weights,
            "example": pytree.tree_map_only(Tensor, lambda t: list(t.shape), example),
        }
        result.config = {**config, "octavize": plain(arguments)}  # type: ignore[assignment]
    return result


def plain(value: Any) -> Any:
    """Tuples and sets as lists and numpy's numbers as Python's, which survive YAML, JSON and a
    weights-only checkpoint."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value


def rebuilt(model: nn.Module, arguments: Mapping[str, Any]) -> Any:
    """`model` as `octavize` with these arguments (`config["octavize"]`) left it, with other
    weights."""
    shape: Any = arguments["example"]
    example = (
        [torch.empty(s, device="meta") for s in shape]
        if isinstance(shape[0], list)
        else torch.empty(shape, device="meta")
    )
    return octavize(model, **{**arguments, "example": example})


def _module(root: nn.Module, graph: fx.Graph, method: str) -> nn.Module:
    """Networks of this package keep class, head and scores; others become a graph."""
    if method == "forward":
        return OctaveModule(root, graph)
    setattr(root, method, GraphMethod(root, graph))
    for module in root.modules():
        # The graph calls the layers themselves, not the blocks whose forward recomputation would
        # wrap.
        if hasattr(module, "may_be_recomputed"):
            module.may_be_recomputed = False  # type: ignore[assignment]
    return root


def _take_modes(result: nn.Module, model: nn.Module) -> None:
    """Each module in the mode of its namesake, as frozen norms are; a new part has its layer's."""
    namesakes = dict(model.named_modules(remove_duplicate=False))
    for name, module in result.named_modules(remove_duplicate=False):
        if hasattr(namesakes.get(name), "training"):  # a frozen script has no mode
            module.training = namesakes[name].training


def _with_content(x: Any, model: nn.Module) -> Any:
    """None where there is nothing to measure on: an example or a network on the meta device."""
    tensors = [*pytree.tree_leaves(x), *model.parameters()]
    return None if any(isinstance(t, Tensor) and t.is_meta for t in tensors) else x


def _report(
    model: nn.Module,
    result: nn.Module,
    rewriter: Rewriter,
    plan: Plan,
    whole: Trace,
    errors: Sequence[StageError],
) -> OctaveReport:
    """whole: of the forward pass, of which `plan` may see a part."""
    changes = {change.name: change for change in rewriter.changes}
    rows, batch = [], _batch_of(whole)
    for site in plan.sites.values():
        change = changes[site.name]
        before = _plain_macs(site.node, model, batch)
        y, x = value(site.node), value(site.reads)
        after = _octave_macs(result.get_submodule(site.name), y, x, batch)
        rows.append(ConvReport(site.name, change.reads, change.writes, before, after, change.why))
    macs = sum(_plain_macs(node, model, batch) for node in whole.graph.nodes)
    return OctaveReport(
        plan.options.alpha,
        tuple(rows),
        (*_notes(model, result, whole), *rewriter.notes),
        macs,
        macs - sum(row.macs_before - row.macs for row in rows),
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in result.parameters()),
        tuple(errors),
    )


def _notes(model: nn.Module, result: nn.Module, whole: Trace) -> list[str]:
    """Opaque modules, and what is missing in the result."""
    opaque = {k: v for k, v in whole.opaque.items() if not k.__module__.startswith("torch.nn")}
    notes = [f"{kind.__name__}: not looked into; {why}" for kind, why in opaque.items()]
    if whole.not_by_fx:
        notes.insert(0, f"{type(model).__name__}: {EXPORTED}; {whole.not_by_fx}")
    kept = {name for name, _ in result.named_modules()}
    for name, module in model.named_modules():
        if name not in kept and any(True for _ in module.parameters(recurse=False)):
            notes.append(f"{name}: left out; the forward pass does not call it")
    return notes


def _weights(layer: Any) -> int:
    """By its sizes: to read a weight that is computed may change the layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features * layer.out_features
    conv = plain_conv(layer)
    kernel = math.prod(map(int, conv.kernel_size))
    return conv.out_channels * conv.in_channels // conv.groups * kernel


def _batch_of(whole: Trace) -> int:
    """The number of examples that were traced."""
    inputs = [value(node) for node in whole.graph.nodes if node.op == "placeholder"]
    return next(len(x) for x in pytree.tree_leaves(inputs) if isinstance(x, Tensor))


def _maps(y: Tensor, batch: int) -> int:
    """The maps of one example: several where frames are in the batch."""
    return max(len(y) // batch, 1)


def _positions(x: Tensor, batch: int) -> int:
    return _maps(x, batch) * math.prod(x.shape[2:])


def _octave_macs(conv: nn.Module, y: Tensor, x: Tensor, batch: int) -> int:
    """Each path's weights times its positions; l2h is applied at the size of the low input."""
    if not isinstance(conv, OctConv2d | OctConv3d):
        return _weights(conv) * _positions(y, batch)
    frames = _maps(y, batch) * math.prod(y.shape[2:-2])
    low_out = frames * math.prod(-(-size // 2) for size in y.shape[-2:])
    low_in = frames * math.prod(-(-size // 2) for size in x.shape[-2:])
    positions = {"h2h": _positions(y, batch), "h2l": low_out, "l2h": low_in, "l2l": low_out}
    return sum(path.weight.numel() * positions[name] for name, path in conv.paths.items())


def _plain_macs(node: fx.Node, root: nn.Module, batch: int) -> int:
    """Multiply-adds of a convolution or a linear layer for one example."""
    module = root.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.Linear):
        out = value(node)
        return _weights(module) * max(out.numel() // out.shape[-1] // batch, 1)
    if isinstance(module, (*CONVS, nn.Conv1d)):
        seen = node.all_input_nodes[0] if isinstance(module, PooledConv) else node
        return _weights(module) * _positions(value(seen), batch)
    return 0
