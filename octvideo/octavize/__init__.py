"""Any convolutional network as an octave network, with its weights: `octavize`."""

from octvideo.octavize.convert import octavize
from octvideo.octavize.network import OctaveModule
from octvideo.octavize.report import ConvReport, OctaveReport, StageError

__all__ = ["ConvReport", "OctaveModule", "OctaveReport", "StageError", "octavize"]
