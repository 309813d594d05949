"""A trained network with everything needed to classify a video.

recognizer = octvideo.load("runs/demo/checkpoints/best.pyth")
recognizer.predict("video.mp4")
"""

from octvideo.engine.prediction.events import Event, Window, find_events
from octvideo.engine.prediction.live import LiveOptions
from octvideo.engine.prediction.named import NamedVideo, Prediction
from octvideo.engine.prediction.windows import Timeline, WindowFeatures
from octvideo.recognizer.load import load
from octvideo.recognizer.recognizer import Recognizer

__all__ = [
    "Event",
    "LiveOptions",
    "NamedVideo",
    "Prediction",
    "Recognizer",
    "Timeline",
    "Window",
    "WindowFeatures",
    "find_events",
    "load",
]
