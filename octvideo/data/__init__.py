"""Lists, decoding, sampling and batches of clips, videos and images."""

from octvideo.data.batch import Batch, Problem, Sample
from octvideo.data.dataset import ClipDataset, ClipTransform
from octvideo.data.decode import open_video, probe, read_frames
from octvideo.data.loader import Loader
from octvideo.data.sampling import ClipRule
from octvideo.data.stream import VideoInfo
from octvideo.data.transforms import normalize
from octvideo.data.watch import DecodeError

__all__ = [
    "Batch",
    "ClipDataset",
    "ClipRule",
    "ClipTransform",
    "DecodeError",
    "Loader",
    "Problem",
    "Sample",
    "VideoInfo",
    "normalize",
    "open_video",
    "probe",
    "read_frames",
]
