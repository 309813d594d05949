"""Weights from files: our own and other projects'."""

from octvideo.weights.load import LoadReport, load_weights

__all__ = ["LoadReport", "load_weights"]
