"""Inflation of an image network to a video network: kernels are repeated over time, and split
between the frequency groups.

Both are networks of this package and share their names: `res2.block0.reduce.conv.h2h.weight` is
(C_out, C_in, kh, kw) in one and (C_out, C_in, kt, kh, kw) in the other. In SlowFast the slow
pathway is filled, and the weights for its lateral inputs start at zero. The weights of a vanilla
video network are split likewise, those of a SlowFast in both pathways and the laterals.
"""

from typing import Any

import torch
from torch import Tensor, nn

from octvideo.errors import CheckpointError
from octvideo.layers import Channels, OctBatchNorm3d, OctConv3d
from octvideo.layers.octave import PATHS
from octvideo.models.slowfast import Lateral, Pathway, SlowFast
from octvideo.models.video_resnet import VideoResNet
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflation_report import InflationReport
from octvideo.weights.source import SourceWeights, State, by_pathway, is_octave, misfit, shapes_of

ImagePathway = VideoResNet | Pathway
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


def inflate_conv(weight: Tensor, kernel_t: int) -> Tensor:
    """(C_out, C_in, kh, kw) -> (C_out, C_in, kernel_t, kh, kw), each slice weight / kernel_t; 3D
    kernels stay.

    On a clip that repeats one image, every frame whose temporal window is full gets the 2D
    response; the first and last kernel_t // 2 frames see zero padding and do not. (Carreira &
    Zisserman 2017, sec. 2.)
    """
    if weight.dim() == 5:
        return weight
    return weight.unsqueeze(2).repeat(1, 1, kernel_t, 1, 1) / kernel_t


def image_pathway(model_3d: nn.Module) -> ImagePathway:
    """A video network's part with an image network's layers: all of it, or the slow pathway."""
    if isinstance(model_3d, SlowFast):
        return model_3d.slow
    if isinstance(model_3d, VideoResNet):
        return model_3d
    raise CheckpointError(
        f"{type(model_3d).__name__} is not filled from image weights; use MODEL.ARCH c2d, i3d, slow"
        " or slowfast"
    )


def inflate(
    state_2d: State, model_3d: nn.Module, assumes: Assumptions | None = None
) -> InflationReport:
    """Fill a C2D, I3D or Slow network, or SlowFast's slow pathway, with the weights of an image
    ResNet of its depth.

    state_2d: in the names of this package's image networks, vanilla or octave. Where widths or
    octave stages differ, a kernel is joined and split anew by channel, high before low: exact only
    for features constant in space. Weights of a vanilla video network of the family are split in
    this way too, without inflation.
    assumes: the assumptions of the weights. A BN eps is folded into the scales; another place of
    the stride, or another way of downsampling, raises. Assumptions about the input are for
    `Assumptions.check_input`.

    A classifier of another size, non-local blocks, the fast pathway and its laterals keep their
    initialization, as the report says; slow layers have zero weights for lateral inputs at first
    (as mmaction2 does). Raises CheckpointError, and leaves the network unchanged, when any other
    layer has no counterpart on either side.
    """
    pathway = image_pathway(model_3d)
    assumes = assumes or Assumptions()
    source = SourceWeights(by_pathway(state_2d, model_3d))
    _check_kind(source, pathway)
    notes = assumes.check_model(pathway, is_octave(state_2d))
    report = InflationReport(notes=notes, is_video=source.is_video)
    filled: dict[str, Tensor] = {}
    laterals = _readers_of_laterals(pathway)
    for name, module in pathway.named_modules():
        if "nonlocal" in name:
            if name.rpartition(".")[2].startswith("nonlocal"):
                report.fresh[name] = source.pass_over(name)
        elif isinstance(module, OctConv3d):
            filled |= _fill_conv(name, module, laterals.get(name, Channels(0)), source, report)
        elif isinstance(module, OctBatchNorm3d):
            filled |= _fill_norm(name, module, source, assumes.bn_eps)
    filled |= _fill_stem(pathway, source, report, assumes)
    if isinstance(model_3d, SlowFast):
        filled = {f"slow.{name}": tensor for name, tensor in filled.items()}
        filled |= _fill_fast(model_3d, source, report, assumes.bn_eps)
    filled |= _fill_head(model_3d, source, report)
    if unused := source.unused():
        raise CheckpointError(
            f"{unused[0]} of the image weights ({len(unused)} tensors in all) has no place in the"
            " network; RESNET.DEPTH, RESNET.BLOCK and the stem must be those of the image network"
        )
    _note_eps(pathway, assumes.bn_eps, report)
    SourceWeights.load(filled, model_3d)
    return report


def _check_kind(source: SourceWeights, pathway: ImagePathway) -> None:
    has_fast = any(name.startswith("fast.") for name in source.state)
    if source.is_video and isinstance(pathway, Pathway) and not has_fast:
        raise CheckpointError(
            "the weights of a video network without a fast pathway do not fill SlowFast; start it"
            " from those of a SlowFast or of an image network"
        )
    is_preact = any(name.startswith("tail.") for name in source.state)
    if is_preact and isinstance(pathway, Pathway):
        raise CheckpointError(
            "the image weights are pre-activation; SlowFast takes those of a post-activation"
            " network"
        )
    if is_preact != (isinstance(pathway, VideoResNet) and pathway.tail is not None):
        raise CheckpointError(
            f"the image weights are {'pre' if is_preact else 'post'}-activation; "
            f"set RESNET.BLOCK {'preact' if is_preact else 'post'}"
        )


# --- Layers


def _readers_of_laterals(pathway: ImagePathway) -> dict[str, Channels]:
    """The convolutions whose last input channels are a lateral's, and how many."""
    laterals = pathway.laterals if isinstance(pathway, Pathway) else ()
    return {
        f"res{number}.block0.{layer}.conv": channels
        for number, channels in enumerate(laterals, start=2)
        for layer in ("reduce", "shortcut")
    }


def _fill_conv(
    name: str, module: OctConv3d, lateral: Channels, source: SourceWeights, report: InflationReport
) -> dict[str, Tensor]:
    """lateral: the last of the input channels, which image networks do not have."""
    kernel_t, kernel = module.kernel_size[0], source.kernel(module)
    missing = Channels(0) if source.is_video else lateral
    paths = {
        path: weight
        for path in PATHS
        if (weight := source.get(f"{name}.{path}.weight")) is not None
    }
    if not paths:
        source.take(f"{name}.h2h.weight")
    zeros = {
        path: conv.weight.new_zeros(
            len(conv.weight), missing.high if path.startswith("h") else missing.low, *kernel
        )
        for path, conv in module.paths.items()
    }
    wanted = {
        path: (len(conv.weight), columns, *kernel)
        for path, conv in module.paths.items()
        if (columns := conv.weight.shape[1] - zeros[path].shape[1])
    }
    if {path: tuple(weight.shape) for path, weight in paths.items()} == wanted:
        report.copied.append(name)
    else:
        in_channels = Channels(
            module.in_channels.high - missing.high, module.in_channels.low - missing.low
        )
        _note_change(name, paths, in_channels, module.out_channels, report)
        given = lateral if source.is_video else Channels(0)
        paths = _divide(name, paths, in_channels, module, kernel, given)
    return {
        f"{name}.{path}.weight": inflate_conv(
            torch.cat([paths[path].float(), zero] if path in paths else [zero], 1), kernel_t
        )
        for path, zero in zeros.items()
    }


def output_channels(paths: State) -> Channels:
    return Channels(paths["h2h"].shape[0], paths["h2l"].shape[0] if "h2l" in paths else 0)


def input_channels(paths: State) -> Channels:
    return Channels(paths["h2h"].shape[1], paths["l2h"].shape[1] if "l2h" in paths else 0)


def _note_change(
    name: str, paths: State, in_channels: Channels, out_channels: Channels, report: InflationReport
) -> None:
    """Report the change of the output's groups, or of the input's if the output's are unchanged."""
    had, has = output_channels(paths), out_channels
    if had == has:
        had, has = input_channels(paths), in_channels
    changes = report.merged if had.low and not has.low else report.split
    changes[name] = f"{had} -> {has}"


def _divide(
    name: str,
    paths: State,
    in_channels: Channels,
    module: OctConv3d,
    kernel: tuple[int, ...],
    lateral: Channels,
) -> dict[str, Tensor]:
    """Join the paths to one kernel and split it between the groups of `in_channels` and of the
    output of `module`.

    lateral: the last of `in_channels` in each group; the joined kernel has all of them last.
    """
    if module.groups > 1:
        raise CheckpointError(
            f"{name} has {module.groups} groups, whose kernels cannot be divided anew; "
            "OCTCONV.ALPHA, STAGES and WIDTH_RULE must be those of the image network"
        )
    joined = join_paths(paths)
    shape = (module.out_channels.total, in_channels.total, *kernel)
    if joined.shape != shape:
        raise misfit(name, joined.shape, shape)
    if lateral.total:
        slow = Channels(in_channels.high - lateral.high, in_channels.low - lateral.low)
        parts = torch.split(joined, [*slow, *lateral], dim=1)
        joined = torch.cat([parts[i] for i in (0, 2, 1, 3)], dim=1)
    return split_kernel(joined, in_channels, module.out_channels)


def join_paths(paths: State) -> Tensor:
    """{h2h, h2l, l2h, l2l} -> (high + low out, high + low in, ...), the undivided kernel."""
    columns = []
    for start in "hl":
        column = [paths[path] for path in (f"{start}2h", f"{start}2l") if path in paths]
        if column:
            columns.append(torch.cat(column))
    return torch.cat(columns, dim=1)


def split_kernel(
    weight: Tensor, in_channels: Channels, out_channels: Channels
) -> dict[str, Tensor]:
    """The four blocks of an undivided kernel; blocks without channels are left out."""
    rows = dict(zip("hl", torch.split(weight, list(out_channels)), strict=True))
    blocks = {
        f"{start}2{end}": block
        for end, row in rows.items()
        for start, block in zip("hl", torch.split(row, list(in_channels), dim=1), strict=True)
    }
    return {path: block for path, block in blocks.items() if block.numel()}


def _fill_norm(
    name: str, module: OctBatchNorm3d, source: SourceWeights, eps: float | None
) -> dict[str, Tensor]:
    channels, filled = module.channels, {}
    for tensor in NORM_TENSORS:
        parts = [source.take(f"{name}.high.{tensor}"), source.get(f"{name}.low.{tensor}")]
        joined = torch.cat([part.float() for part in parts if part is not None])
        if len(joined) != channels.total:
            raise misfit(f"{name}.{tensor}", joined.shape, (channels.total,))
        filled[f"{name}.high.{tensor}"] = joined[: channels.high]
        if channels.low:
            filled[f"{name}.low.{tensor}"] = joined[channels.high :]
    for group, norm in (("high", module.high), ("low", module.low)):
        if norm is not None:
            fold_eps(filled, f"{name}.{group}", eps, norm.eps)
    return filled


def fold_eps(state: dict[str, Tensor], name: str, eps: float | None, new_eps: float) -> None:
    """Scale gamma so that the norm with `new_eps` computes what it did with `eps`."""
    if eps is not None and eps != new_eps:
        variance = state[f"{name}.running_var"]
        state[f"{name}.weight"] = (
            state[f"{name}.weight"] * ((variance + new_eps) / (variance + eps)).sqrt()
        )


def _fill_stem(
    pathway: ImagePathway, source: SourceWeights, report: InflationReport, assumes: Assumptions
) -> dict[str, Tensor]:
    stem: Any = pathway.stem
    out_channels, in_channels = stem.conv.weight.shape[:2]
    weight = source.take("stem.conv.weight", (out_channels, in_channels, *source.kernel(stem.conv)))
    filled = {"stem.conv.weight": inflate_conv(weight, stem.conv.kernel_size[0])}
    filled |= {
        f"stem.bn.{tensor}": source.take(f"stem.bn.{tensor}", (out_channels,))
        for tensor in NORM_TENSORS
    }
    fold_eps(filled, "stem.bn", assumes.bn_eps, stem.bn.eps)
    report.copied.append("stem.conv")
    ours, padding = stem.pool.padding[-1], assumes.options.get("stem_pool_padding", 1)
    if ours != padding:
        report.notes.append(
            f"RESNET.STEM_POOL_PADDING is {ours}; the weights had {padding} at that pool,"
            " so that maps are shifted"
        )
    return filled


def _fill_fast(
    model: SlowFast, source: SourceWeights, report: InflationReport, eps: float | None
) -> dict[str, Tensor]:
    """Fill the layers of SlowFast other than the slow pathway and the classifier."""
    if not source.is_video:
        none = "image networks have none"
        report.fresh["fast"] = none
        report.fresh["laterals"] = f"{none}; what they add is read with zeros at first"
        return {}
    filled = {
        f"fast.{name}": source.take(f"fast.{name}", shape)
        for name, shape in shapes_of(model.fast.state_dict()).items()
    }
    report.copied.append("fast")
    for name, module in model.fast.named_modules():
        if isinstance(module, nn.BatchNorm3d):
            fold_eps(filled, f"fast.{name}", eps, module.eps)
    for i, lateral in enumerate(model.laterals):
        assert isinstance(lateral, Lateral)
        filled |= _fill_conv(f"laterals.{i}.conv", lateral.conv, Channels(0), source, report)
        if lateral.bn is not None:
            filled |= _fill_norm(f"laterals.{i}.bn", lateral.bn, source, eps)
    return filled


def _fill_head(
    model: nn.Module, source: SourceWeights, report: InflationReport
) -> dict[str, Tensor]:
    weight, bias = source.get("head.fc.weight"), source.get("head.fc.bias")
    own = model.get_parameter("head.fc.weight")
    if isinstance(model, SlowFast) and not source.is_video:
        report.fresh["head.fc"] = "it reads both pathways"
    elif weight is None or bias is None:
        report.fresh["head.fc"] = "the image weights have no classifier"
    elif weight.shape != own.shape:
        report.fresh["head.fc"] = (
            f"{weight.shape[0]} classes in the image weights, {own.shape[0]} in the network"
        )
    else:
        report.copied.append("head.fc")
        return {"head.fc.weight": weight.float(), "head.fc.bias": bias.float()}
    return {}


def _note_eps(pathway: ImagePathway, eps: float | None, report: InflationReport) -> None:
    new_eps = pathway.stem.bn.eps
    if eps is None:
        report.notes.append(f"the weights do not say their BN eps; {new_eps:g} is taken as right")
    elif eps != new_eps:
        report.notes.append(
            f"the weights' BN eps {eps:g} is folded into the scales; the network's is {new_eps:g}"
        )
