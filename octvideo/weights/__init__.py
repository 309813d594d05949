"""Weights from files: our own and other projects'."""

from octvideo.weights.inflate import inflate
from octvideo.weights.load import LoadReport, load_weights
from octvideo.weights.official import load_official
from octvideo.weights.sort_channels import smoothest_last

__all__ = ["LoadReport", "inflate", "load_official", "load_weights", "smoothest_last"]
