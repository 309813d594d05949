"""`octavize`: trace, plan, rewrite, report."""

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from octvideo.errors import ConfigError
from octvideo.layers import OctConv2d, OctConv3d
from octvideo.layers.octave import Downsample
from octvideo.octavize.kernels import reset
from octvideo.octavize.measure import lost_energy, stage_errors
from octvideo.octavize.network import OctaveModule
from octvideo.octavize.operations import value
from octvideo.octavize.plan import Options, Plan, WidthRule, divide_spaces, make_plan
from octvideo.octavize.report import ConvReport, OctaveReport, StageError
from octvideo.octavize.rewrite import Rewriter
from octvideo.octavize.tracing import Trace, trace

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
) -> OctaveModule:
    """An octave network that has the layers, the names and the weights of `model`; `model` itself is not changed.

    Convolutions become octave convolutions, batch and group norms norms of each group, and everything between two
    convolutions acts on each group by itself. Where an operation has no such form, the pair is merged before it and
    split behind it. The result takes and gives plain tensors; `.octave_report` says what became of each layer.

    model: any network of 2D or 3D convolutions; one that branches on the content of its input is refused.
    alpha: share of low-frequency channels, in [0, 1); 0 computes what `model` does, bit for bit.
    example: an input, as `model(example)` takes it: a tensor, or a list of tensors for several pathways. Other
        batches and sizes work as far as the network itself does not ask for its input's size.
    include, exclude: patterns of module names ("res[23].*") whose outputs are divided, and are not; by default all
        but the convolutions that read the network's input. An excluded one that reads a pair ends it.
    width_rule: how the channels of a map are divided: "round16" (default), "int", "round16_min16", or a function
        (channels, alpha) -> Channels.
    downsample: how strides of 2 are taken: None (default) pools in octave convolutions and leaves the others as they
        are; "pool" pools in all that `include` names, "stride" in none.
    weights: "sorted": the channels that lose least at half the size become the low ones; "as_is": the last ones do;
        "fresh": as the last ones, with all weights drawn anew.
    clips: inputs on which that loss, and the error of the features, is measured; by default the loss on `example`.

    Raises ConfigError for an alpha, pattern or rule that is none, a network that cannot be traced, and a convolution
    that `include` names but that cannot be octave.
    """
    if weights not in ("sorted", "as_is", "fresh"):
        raise ConfigError(f"weights is {weights!r}; it is 'sorted', 'as_is' or 'fresh'")
    if downsample not in (None, "pool", "stride"):
        raise ConfigError(f"downsample is {downsample!r}; it is None, 'pool' or 'stride'")
    options = Options(alpha, include, exclude, width_rule)
    traced = trace(model, example)
    root = _with_python_numbers(copy.deepcopy(model))
    plan = make_plan(traced, root, options)
    source = fx.GraphModule(copy.deepcopy(root), traced.graph)
    measured = _with_content(example if clips is None else clips, model)
    sort = weights == "sorted" and alpha > 0
    divide_spaces(
        plan, lost_energy(source, plan, measured) if sort and measured is not None else None
    )
    rewriter = Rewriter(traced, plan, root, downsample, keep=sort)
    result = OctaveModule(root, rewriter.run())
    result.train(model.training)
    if weights == "fresh":
        reset(result)
    errors = (
        [] if clips is None or weights == "fresh" else stage_errors(source, result, rewriter, clips)
    )
    result.octave_report = _report(model, result, rewriter, plan, traced, errors)
    return result


def _with_python_numbers(model: nn.Module) -> nn.Module:
    """Kernel sizes and strides as ints: torch.compile takes numpy's, which pytorchvideo has, for tensors."""
    for module in model.modules():
        for name, sizes in list(vars(module).items()):
            if isinstance(sizes, tuple) and any(type(size).__module__ == "numpy" for size in sizes):
                setattr(module, name, tuple(int(size) for size in sizes))
    return model


def _with_content(x: Any, model: nn.Module) -> Any:
    """None where there is nothing to measure on: an example or a network on the meta device."""
    tensors = [*pytree.tree_leaves(x), *model.parameters()]
    return None if any(isinstance(t, Tensor) and t.is_meta for t in tensors) else x


def _report(
    model: nn.Module,
    result: OctaveModule,
    rewriter: Rewriter,
    plan: Plan,
    traced: Trace,
    errors: Sequence[StageError],
) -> OctaveReport:
    changes = {change.name: change for change in rewriter.changes}
    rows = []
    for site in plan.sites.values():
        change = changes[site.name]
        before = _weights(model.get_submodule(site.name)) * _positions(value(site.node))
        after = _octave_macs(result.get_submodule(site.name), value(site.node), value(site.reads))
        rows.append(ConvReport(site.name, change.reads, change.writes, before, after, change.why))
    linear = sum(_linear_macs(node, model) for node in traced.graph.nodes)
    notes = [
        f"{kind.__name__}: not looked into; {why}"
        for kind, why in traced.opaque.items()
        if not kind.__module__.startswith("torch.nn")
    ]
    kept = {name for name, _ in result.named_modules()}
    unused = [
        name
        for name, module in model.named_modules()
        if name not in kept and any(True for _ in module.parameters(recurse=False))
    ]
    notes += [f"{name}: left out; the forward pass does not call it" for name in unused]
    return OctaveReport(
        plan.options.alpha,
        tuple(rows),
        (*notes, *rewriter.notes),
        sum(row.macs_before for row in rows) + linear,
        sum(row.macs for row in rows) + linear,
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in result.parameters()),
        tuple(errors),
    )


def _weights(conv: nn.Module) -> int:
    return sum(p.numel() for p in conv.parameters() if p.dim() > 1)


def _positions(x: Tensor) -> int:
    return math.prod(x.shape[2:])


def _octave_macs(conv: nn.Module, y: Tensor, x: Tensor) -> int:
    """Each path's weights times the positions where it is applied; l2h is applied at the size of the low input."""
    if not isinstance(conv, OctConv2d | OctConv3d):
        return _weights(conv) * _positions(y)
    frames = math.prod(y.shape[2:-2])
    low_out = frames * math.prod(-(-size // 2) for size in y.shape[-2:])
    low_in = frames * math.prod(-(-size // 2) for size in x.shape[-2:])
    positions = {"h2h": _positions(y), "h2l": low_out, "l2h": low_in, "l2l": low_out}
    return sum(path.weight.numel() * positions[name] for name, path in conv.paths.items())


def _linear_macs(node: fx.Node, root: nn.Module) -> int:
    module = root.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(module, nn.Linear):
        return 0
    out = value(node)
    return module.weight.numel() * (out.numel() // out.shape[-1] // out.shape[0])
