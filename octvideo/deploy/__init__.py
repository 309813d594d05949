"""Fused inference and export."""

from octvideo.deploy.engines import optimize
from octvideo.deploy.export import export_model

__all__ = ["export_model", "optimize"]
