"""Fused inference and export."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octvideo.deploy.engines import optimize
    from octvideo.deploy.export import export_model

__all__ = ["export_model", "optimize"]

# Imported when they are asked for: folding and the roofline need PyTorch alone.
_LATER = {"export_model": "octvideo.deploy.export", "optimize": "octvideo.deploy.engines"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'octvideo.deploy' has no attribute {name!r}")
