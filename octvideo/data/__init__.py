"""Lists, decoding, sampling and batches of clips, videos and images."""

from octvideo.data.clips.dataset import ClipDataset, ClipTransform
from octvideo.data.loading.batch import Batch, Problem, Sample
from octvideo.data.loading.loader import Loader
from octvideo.data.reading import DecodeError
from octvideo.data.sampling import ClipRule
from octvideo.data.transforms import normalize
from octvideo.data.video.decode import iter_frames, open_video, probe, read_frames
from octvideo.data.video.info import VideoInfo

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
    "iter_frames",
    "normalize",
    "open_video",
    "probe",
    "read_frames",
]
