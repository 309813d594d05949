"""Classify videos from any kind of source."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from octvideo.data.clips.views import ViewSpec, view_batches
from octvideo.data.sources import Source, is_several, streamed
from octvideo.deploy.engines import WindowScores
from octvideo.deploy.exported import ExportedNetwork, Sidecar, write_exported
from octvideo.engine.evaluation.journal import weights_digest
from octvideo.engine.prediction.events import Window
from octvideo.engine.prediction.live import LiveOptions, stream_windows
from octvideo.engine.prediction.named import NamedVideo, Prediction, check_top_k, top_predictions
from octvideo.engine.prediction.run import (
    How,
    Listed,
    OutputFiles,
    Progress,
    run_many,
)
from octvideo.engine.prediction.windows import Timeline, VideoWindows, WindowFeatures
from octvideo.errors import ConfigError
from octvideo.models.network import HeadAct, pooled_features
from octvideo.recognizer.network import described, finite, optimized, outputs
from octvideo.recognizer.preprocessing import Frames, Preprocessing

Files = list[str] | list[Path] | list[str | Path] | list[bytes]
Videos = Source | Sequence[Source]
VIEWS_PER_PASS = 8


class Recognizer:
    """Made by `octvideo.load`.

    A video is a path, an address (http://, https://, fetched once into the cache folder), the bytes
    of a file, a file open for reading, uint8 frames (T, H, W, 3) as an array or a tensor, a tensor
    (T, 3, H, W), or an iterable of frames (H, W, 3); colors are RGB. A list of videos gives a list
    of results.
    Frames without a file have no frame rate: `fps` (by default the rate that the network was
    trained at) is theirs. Threads may share a recognizer once it is loaded and optimized, and a
    pickle of it works in another process.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        preprocessing: dict[str, Any],
        device: torch.device,
        *,
        multi_label: bool = False,
        head_act: HeadAct | None = None,
        recipe: str = "",
        sha256: str = "",
    ) -> None:
        """multi_label: a video may have several classes, each with a probability of its own.

        head_act: the function from logits to probabilities; by default a softmax, with multi_label
        a sigmoid. recipe: the settings of the training, as YAML, with which `octvideo.evaluate`
        tests. sha256: of the file that was loaded, if it was hashed.
        """
        self.model: Any = model.to(device).eval()
        self.head_act: HeadAct = head_act or ("sigmoid" if multi_label else "softmax")
        self._score: nn.Module = WindowScores(model, self.head_act)
        self._calibration = ""
        self.multi_label, self.recipe, self.sha256 = multi_label, recipe, sha256
        self.class_names = list(class_names)
        self.preprocessing = preprocessing
        self.device = device
        self._input = Preprocessing(preprocessing, device)
        rule = self._input.rule
        self.num_frames, self.usual_fps = rule.num_frames, rule.target_fps

    def __repr__(self) -> str:
        return described(self)

    def optimize(
        self, *, engine: str = "auto", precision: str = "fp32", calibration: Sequence[Source] = ()
    ) -> "Recognizer":
        """Optimize the network for inference (`octvideo.deploy.engines`); takes up to a minute, and
        scores change by at most 1e-4. Returns self.

        precision: with OpenVINO also "bf16", "int8" or "auto" (bf16 if the CPU has it).
        calibration: for int8, videos like those to come: every other one sets the ranges, and the
        rest check the result. Raises ConfigError for an engine or a precision that is not available
        here, and for a calibration of another precision, OctvideoError for int8 that fails its
        check.
        """
        example = torch.rand(VIEWS_PER_PASS, *self._clip_shape()).to(self.device)
        how = engine, precision, calibration, lambda video: self.clip(video)[1]
        self._score, self._calibration = optimized(self.model, self.head_act, example, *how)
        return self

    def save(self, path: str | Path, *, lowered: bool = False) -> float:
        """Write an .onnx, .xml or .pt2, with a .json, that `octvideo.load` reads; returns the
        relative difference.

        A network that OpenVINO optimized is written to an .xml in that form. lowered: an .onnx with
        2D convolutions (for TensorRT).
        """
        how = tuple(self.class_names), self.preprocessing, self.multi_label, self.head_act
        facts = Sidecar(self._clip_shape(), "logits", *how)
        return write_exported(self.model, self._score, facts, Path(path), lowered=lowered)

    def _clip_shape(self) -> tuple[int, ...]:
        size = self.preprocessing["crop_size"]
        return self.model.in_channels, self.num_frames, size, size

    @overload
    def predict(
        self, video: Files, *, views: str = ..., top_k: int = ..., fps: float | None = ...
    ) -> list[list[Prediction]]: ...

    @overload
    def predict(
        self, video: Source, *, views: str = ..., top_k: int = ..., fps: float | None = ...
    ) -> list[Prediction]: ...

    def predict(
        self, video: Videos, *, views: str = "10x3", top_k: int = 5, fps: float | None = None
    ) -> list[Prediction] | list[list[Prediction]]:
        """The top_k classes, most probable first. views: clips x crops ("1x1" is 30 times as fast
        as "10x3").

        For a list of videos, a list of such lists. Raises DecodeError for a file that cannot be
        read, ConfigError for other input of the wrong form.
        """
        check_top_k(top_k)
        found = self.scores(video, views=views, fps=fps)
        if found.ndim == 1:
            return top_predictions(found, self.class_names, top_k)
        return [top_predictions(scores, self.class_names, top_k) for scores in found]

    def scores(
        self, video: Videos, *, views: str = "10x3", fps: float | None = None
    ) -> NDArray[np.float32]:
        """Probabilities of all classes (C,): the mean over the views. Of N videos, (N, C)."""
        return self._over_views(self._score, video, views, fps)

    @overload
    def features(
        self, video: Videos, *, views: str = "1x1", fps: float | None = None
    ) -> NDArray[np.float32]: ...

    @overload
    def features(
        self,
        video: Source,
        *,
        window_seconds: float,
        stride_seconds: float | None = None,
        fps: float | None = None,
        times: Sequence[float] = (),
    ) -> WindowFeatures: ...

    def features(
        self,
        video: Videos,
        *,
        views: str = "1x1",
        fps: float | None = None,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        times: Sequence[float] = (),
    ) -> NDArray[np.float32] | WindowFeatures:
        """The input of the classifier, pooled over time and space: (2048,) for a ResNet-50; of an
        X3D that of the convolutions in its head. The mean over the views.

        For a list of N videos, (N, 2048). With window_seconds, the features of each window of one
        video, as `timeline` cuts it; `WindowFeatures` has the rules at the edges. The video then
        streams: memory grows by a few numbers a frame.
        """
        if window_seconds is None:
            if stride_seconds is not None:
                raise ConfigError("stride_seconds is of windows; give window_seconds too")
            return self._over_views(self._pooled, video, views, fps)
        if is_several(video):
            raise ConfigError("features over time are of one video; call it for each of the list")
        stride = window_seconds if stride_seconds is None else stride_seconds
        with self._windows(video, window_seconds, stride, fps, times) as windows:
            return windows.features(*self._of_windows(windows, self._pooled))

    def stream(
        self,
        source: Source | int,
        *,
        window_seconds: float = 2.0,
        stride_seconds: float = 1.0,
        fps: float | None = None,
        live: LiveOptions = LiveOptions(),  # noqa: B008
    ) -> Iterator[Window]:
        """Windows as soon as their frames have arrived; `find_events` makes events of them.

        source: rtsp://, http://, https://, udp://, a camera ("/dev/video0", 0), a video, or frames
        as they come (at `fps`). A live source may stall or break off: it is opened again, and the
        next window begins there.
        Seconds count from the first frame of the source. Raises ConfigError, and DecodeError as
        `LiveOptions` says.
        """
        return stream_windows(self, source, window_seconds, stride_seconds, fps, live)

    def predict_many(
        self,
        paths: Iterable[Listed],
        *,
        views: str = "10x3",
        top_k: int = 5,
        workers: int | None = None,
        batch: int = VIEWS_PER_PASS,
        output: str | Path | None = None,
        features: str | Path | bool = False,
        resume: bool = True,
        timeout_seconds: float = 60.0,
        progress: Progress = lambda done, total: None,
    ) -> Iterator[NamedVideo]:
        """Classify many videos, which `workers` processes decode (one per core); a batch holds
        `batch` views of any of them.

        paths: files, or lines of a list (`VideoEntry`), each once. Results come in this order; a
        video that cannot be read, hangs the decoder for timeout_seconds, or crashes it has a
        `problem`.
        output: a .csv or .jsonl that grows by a row per video, or a .parquet (needs pyarrow) at the
        end.
        features: True, or an .npz or .parquet for them; they come from the forward passes of the
        predictions, those of an optimized network from a second pass each.
        resume: keep the rows in these files and compute the others, even after a run that was
        killed; those with a problem are tried again.
        progress: is called with (videos done, all videos).

        Scores equal those of `scores` to 1e-5: batches of another size round differently. On a CPU
        several passes run at a time, each on fewer threads, of as many views as take a tenth of a
        second (at most `batch`); an optimized or exported network has one pass at a time, of
        `batch`. A script calls this below `if __name__ == "__main__":`, as it does a DataLoader
        with workers.

        Raises ConfigError for wrong arguments, DataError for files of other weights or views.
        """
        how = How(views, top_k, bool(features), workers, batch, timeout_seconds)
        features_path = None if isinstance(features, bool) else Path(features)
        files = OutputFiles(Path(output) if output else None, features_path, resume)
        return run_many(self, paths, how, files, progress)

    def fingerprint(self) -> str:
        """16 hex digits of the weights, the preprocessing and the classes, and of the clips that
        int8 is calibrated on."""
        # fp32 is not named: files that were begun before there was a choice continue.
        lower = {getattr(self._score, "precision", "fp32"), self._calibration} - {"fp32", ""}
        facts = [self.class_names, self.preprocessing, self.head_act, *sorted(lower)]
        return weights_digest(self.model.state_dict(), facts)

    @property
    def takes_any_batch(self) -> bool:
        """False if a runtime compiles the network for each batch size and a number of threads."""
        return isinstance(self._score, WindowScores) and not isinstance(self.model, ExportedNetwork)

    @torch.inference_mode()
    def outputs(self, views: Tensor, *, scores: bool, features: bool) -> NDArray[np.float32]:
        """uint8 (N, 3, T, H, W) -> probabilities (N, classes), features (N, channels), or both
        concatenated."""
        inputs = self._input.normalized(views)
        found = outputs(self.model, self._score, inputs, scores=scores, features=features)
        return finite(torch.cat([part.float() for part in found], dim=1).cpu().numpy())

    def timeline(
        self,
        video: Source,
        *,
        window_seconds: float = 2.0,
        stride_seconds: float = 1.0,
        fps: float | None = None,
        times: Sequence[float] = (),
    ) -> Timeline:
        """Probabilities in windows of `window_seconds`, one every `stride_seconds`; center crop.

        The video streams: memory grows by a few numbers a frame. A video shorter than a window
        gives one window, which ends where the video ends. All other windows have equally many
        frames; they start and end when these are shown, so that in a file of varying rate some of
        them are shorter. times: the seconds of frames that come without a file, one for each frame
        (else 1 / fps apart).
        """
        if is_several(video):
            raise ConfigError("a timeline is of one video; call it for each of the list")
        with self._windows(video, window_seconds, stride_seconds, fps, times) as windows:
            firsts, scores = self._of_windows(windows, self._score)
        _, _, starts, ends = windows.ranges(firsts)
        return Timeline(self.class_names, starts, ends, scores)

    @torch.inference_mode()
    def _over_views(
        self, compute: Any, video: Videos, views: str, fps: float | None
    ) -> NDArray[np.float32]:
        if is_several(video):
            each = [self._over_views(compute, one, views, fps) for one in video]
            return np.stack(each)
        spec = self.view_spec(views)
        frames, clips = self._input.read(video, spec, fps)
        batches = view_batches(frames.to(self.device), clips, spec, VIEWS_PER_PASS)
        found = torch.cat([compute(self._input.normalized(batch)).float() for batch in batches])
        return finite(found.mean(0).cpu().numpy())

    @contextmanager
    def _windows(
        self,
        video: Source,
        window_seconds: float,
        stride_seconds: float,
        fps: float | None,
        times: Sequence[float],
    ) -> Iterator[VideoWindows]:
        with streamed(video, fps, self.usual_fps, times) as stream:
            yield VideoWindows(*stream, window_seconds, stride_seconds)

    @torch.inference_mode()
    def _of_windows(
        self, windows: VideoWindows, compute: Any
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The first frame of every window, and (windows, D)."""
        starts, found = [], []
        for firsts, views in windows.batches(self.num_frames, self.center_crop, VIEWS_PER_PASS):
            starts += firsts
            found.append(finite(compute(self._input.normalized(views)).float().cpu().numpy()))
        if not starts:
            raise ConfigError("the video has no frames")
        return starts, np.concatenate(found)

    def clip(self, video: Source, *, fps: float | None = None) -> tuple[Frames, Tensor]:
        """The middle clip's center crop: uint8 (T, H, W, 3), and as input (1, 3, T, H, W)."""
        spec = self.view_spec("1x1")
        frames, clips = self._input.read(video, spec, fps)
        view = next(view_batches(frames, clips, spec, 1))
        return view[0].movedim(0, -1).numpy(), self._input.normalized(view)

    def view_spec(self, views: str) -> ViewSpec:
        """ "10x3" as the views of this network. Raises ConfigError for anything but CLIPSxCROPS."""
        return self._input.view_spec(views)

    def center_crop(self, frame: Frames) -> Frames:
        """The center crop of a frame (H, W, 3) resized to the test's short side; DecodeError for
        one with a side over 16 times the other."""
        return self._input.center_crop(frame)

    def _pooled(self, x: Tensor) -> Tensor:
        return pooled_features(self.model, x)
