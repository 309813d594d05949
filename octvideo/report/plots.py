"""matplotlib, imported when something is drawn: prediction and training work without it."""

from typing import TYPE_CHECKING, Any

from octvideo.errors import import_optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches. Raises OctvideoError without matplotlib."""
    return _matplotlib("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def color_map(name: str) -> Any:
    """values in 0..1 -> RGBA in 0..1. Raises OctvideoError without matplotlib."""
    return _matplotlib("matplotlib").colormaps[name]


def _matplotlib(module: str) -> Any:
    return import_optional(module, "drawing", "pip install matplotlib")
