"""Octave layers with the kernels and the statistics of plain ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.errors import ConfigError
from octvideo.layers import OctBatchNorm2d, OctBatchNorm3d, OctConv2d, OctConv3d
from octvideo.layers.conv3d_as_2d import Conv3d
from octvideo.layers.octave import Downsample
from octvideo.octavize.kept import remedy
from octvideo.octavize.layout import Layout
from octvideo.octavize.norms import fill, part_of
from octvideo.octavize.operations import NORMS
from octvideo.octavize.plan import Site, same_padding
from octvideo.octavize.runtime import EachGroup


def plain_conv(conv: Any) -> Any:
    """The one convolution that a convolution without low groups consists of."""
    return conv.h2h if isinstance(conv, OctConv2d | OctConv3d) else conv


@torch.no_grad()
def octave_conv(
    site: Site, reads: Layout, writes: Layout, downsample: Downsample | None
) -> OctConv2d | OctConv3d:
    """The octave convolution whose four kernels are the blocks of this convolution's kernel."""
    conv = plain_conv(site.conv)
    kind = OctConv2d if len(conv.kernel_size) == 2 else OctConv3d
    sizes = (conv.kernel_size, site.conv.stride, same_padding(conv), conv.dilation, conv.groups)
    octave = kind(
        reads.channels,
        writes.channels,
        *sizes,
        bias=conv.bias is not None,
        downsample=downsample,
    ).to(conv.weight.device, conv.weight.dtype)
    octave.memory_saving = getattr(site.conv, "memory_saving", False)
    groups_of = {"h": (reads.high, writes.high), "l": (reads.low, writes.low)}
    for name, path in octave.paths.items():
        columns, rows = groups_of[name[0]][0], groups_of[name[-1]][1]
        block = conv.weight[list(rows)] if site.is_depthwise else _block(conv, rows, columns)
        path.weight = _parameter(block, conv.weight)
        if path.bias is not None:
            path.bias = _parameter(conv.bias[list(rows)], conv.bias)
        if isinstance(path, Conv3d):
            path.in_2d = getattr(conv, "in_2d", False)
    return octave.train(site.conv.training)


def _block(conv: Any, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Kernel of the outputs `rows` and the inputs `columns`, which are balanced over the groups."""
    out_size, in_size = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    share = len(columns) // conv.groups
    # On the CPU: on the meta device, torch divides integers in Python.
    seen = torch.tensor(columns, device="cpu").reshape(conv.groups, share) % in_size
    index = seen[torch.tensor(rows, device="cpu") // out_size].to(conv.weight.device)
    kernel = conv.weight[list(rows)]
    index = index.reshape(*index.shape, *[1] * (kernel.dim() - 2))
    return kernel.gather(1, index.expand(-1, -1, *kernel.shape[2:]))


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    """`values` in the memory layout of `like`."""
    for layout in (torch.channels_last, torch.channels_last_3d):
        dims = 4 if layout is torch.channels_last else 5
        if like.dim() == dims and like.is_contiguous(memory_format=layout):
            values = values.contiguous(memory_format=layout)
    return nn.Parameter(values.clone(), requires_grad=like.requires_grad)


@torch.no_grad()
def octave_norm(norm: Any, layout: Layout) -> nn.Module:
    """The norm of each group, with its part of the scales and statistics; `norm` is one of
    `operations.NORMS`, or treats every channel by itself."""
    if type(norm) not in NORMS:
        return EachGroup(part_of(norm, layout.high), part_of(norm, layout.low))
    if isinstance(norm, nn.GroupNorm):
        size = norm.num_channels // norm.num_groups
        parts = [
            nn.GroupNorm(width // size, width, norm.eps, norm.affine) for width in layout.channels
        ]
        return _filled(EachGroup(*parts), norm, layout)
    if isinstance(norm, nn.PReLU):
        return _filled(EachGroup(*(nn.PReLU(width) for width in layout.channels)), norm, layout)
    source: Any = norm.high if isinstance(norm, OctBatchNorm2d | OctBatchNorm3d) else norm
    kind = OctBatchNorm2d if isinstance(source, nn.BatchNorm2d) else OctBatchNorm3d
    pair = kind(layout.channels, source.eps, source.momentum, source.affine)
    if not source.track_running_stats:
        group: Any
        for group in pair.groups:
            group.track_running_stats = False
            group.running_mean = group.running_var = group.num_batches_tracked = None
    return _filled(pair, source, layout)


def _filled(pair: Any, source: nn.Module, layout: Layout) -> nn.Module:
    fill(pair.high, source, layout.high)
    fill(pair.low, source, layout.low)
    return pair.train(source.training)


def reset(model: nn.Module) -> None:
    """Draw all weights anew; octave convolutions from the fan-in of the undivided kernel.

    Raises ConfigError for a layer whose weights are computed: it would keep those it has.
    """
    for name, module in model.named_modules():
        if callable(redraw := getattr(module, "reset_parameters", None)):
            if call := remedy(module):
                raise ConfigError(
                    f"weights is 'fresh', and each call of {name} computes its weights anew; call"
                    f" {call} before"
                )
            redraw()
    for module in model.modules():
        if not isinstance(module, OctConv2d | OctConv3d):
            continue
        if module.in_channels.low or module.out_channels.low:
            module.reset_parameters()
