"""One clip inside an octave layer: its high and low output, and what its four paths add."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from octvideo.errors import ConfigError
from octvideo.layers import OctConv2d, OctConv3d, as_pair
from octvideo.report.hooks import captured, find_layer, groups_of
from octvideo.report.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATHS = ("h2h", "l2h", "l2l", "h2l")
SIDES = {"h": "high", "l": "low"}


@torch.no_grad()
def path_maps(model: nn.Module, clip: Tensor, layer: str) -> dict[str, NDArray[np.float32]]:
    """Mean magnitude over channels of the layer's outputs and of its paths, at the middle frame:
    name -> (h, w).

    clip: float (1, 3, T, H, W). The names are "high", "low" and those of PATHS that exist. Raises
    ConfigError where `layer` is no octave convolution.
    """
    if not isinstance(find_layer(model, layer), OctConv2d | OctConv3d):
        raise ConfigError(
            f"{layer!r} is no octave convolution; name one, as res3.block0.spatial.conv"
        )
    paths = [name for name in PATHS if getattr(find_layer(model, layer), name) is not None]
    with captured(model, [layer, *(f"{layer}.{path}" for path in paths)]) as found:
        model(clip)
    maps = groups_of(found[layer])
    maps |= {path: as_pair(found[f"{layer}.{path}"]).high for path in paths}
    return {name: _magnitude(x) for name, x in maps.items()}


def draw_paths(
    frame: NDArray[np.uint8], maps: Mapping[str, NDArray[np.float32]], title: str
) -> "Figure":
    """The frame, the two outputs, and the paths with their share of what enters their group, all on
    one scale."""
    largest = max(float(values.max()) for values in maps.values())
    figure = new_figure(2.5 * (1 + len(maps)) + 0.8, 3.4)
    first, *rest = figure.subplots(1, 1 + len(maps))
    first.imshow(frame)
    first.set_title("middle frame", fontsize=9)
    for axes, (name, values) in zip(rest, maps.items(), strict=True):
        image = axes.imshow(values, cmap="viridis", vmin=0.0, vmax=largest)
        axes.set_title(_caption(name, maps), fontsize=9)
    for axes in (first, *rest):
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.colorbar(image, ax=rest, shrink=0.75, pad=0.01)
    bar.set_label("mean magnitude over channels", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=11)
    return figure


def _caption(name: str, maps: Mapping[str, NDArray[np.float32]]) -> str:
    height, width = maps[name].shape
    if name not in PATHS:
        return f"output, {name} group\n{height} x {width}"
    source, enters = SIDES[name[0]], SIDES[name[-1]]
    total = sum(float(maps[path].mean()) for path in maps if path in PATHS and path[-1] == name[-1])
    share = float(maps[name].mean()) / total if total else 0.0
    return f"{name}: {source} to {enters}, {height} x {width}\n{share:.0%} of what enters {enters}"


def _magnitude(x: Tensor) -> NDArray[np.float32]:
    middle = x if x.dim() == 4 else x[:, :, x.shape[2] // 2]
    return middle.abs().mean(1)[0].float().cpu().numpy()
