"""A trained network with all that it needs to name what happens in a video.

recognizer = octvideo.load("runs/demo/checkpoints/best.pyth")
recognizer.predict("video.mp4")
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from octvideo.checkpoint import InputSpec
from octvideo.data.clips.sliding import sliding_clips
from octvideo.data.clips.views import ViewSpec, read_clips, view_batches
from octvideo.data.sampling import ClipRule
from octvideo.data.sources import Source, is_several, opened, streamed
from octvideo.data.transforms import normalize, resize_frame
from octvideo.deploy.engines import WindowScores, optimize
from octvideo.errors import CheckpointError, ConfigError
from octvideo.models.network import HeadAct
from octvideo.weights.describe import describe, read_classes, read_input
from octvideo.weights.load import network_of
from octvideo.weights.pretrained import read_weights

Frames = NDArray[np.uint8]
Files = list[str] | list[Path] | list[str | Path] | list[bytes]
Videos = Source | Sequence[Source]
VIEWS_PER_PASS = 8


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """Probabilities over time: scores (windows, classes), window i from starts[i] to ends[i] seconds."""

    class_names: Sequence[str]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    scores: NDArray[np.float32]

    def top(self, window: int, k: int = 5) -> list[Prediction]:
        """The k most probable classes of a window."""
        return top_predictions(self.scores[window], self.class_names, k)

    def at(self, seconds: float) -> int:
        """The window whose middle is nearest to that time."""
        return int(np.abs((self.starts + self.ends) / 2 - seconds).argmin())


class Recognizer:
    """Made by `octvideo.load`.

    A video is a path, an address (http://, https://, fetched once into the cache folder), the bytes of a file, a file
    open for reading, uint8 frames (T, H, W, 3) as an array or a tensor, a tensor (T, 3, H, W), or an iterable of frames
    (H, W, 3); colors are RGB. A list of videos gives a list of results.
    Frames without a file have no frame rate: `fps` (by default the rate that the network was trained at) is theirs.
    Threads may share a recognizer once it is loaded and optimized, and a pickle of it works in another process.
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
    ) -> None:
        """multi_label: a video may have several classes, each with a probability of its own.

        head_act: what makes probabilities of logits; by default a softmax, with multi_label a sigmoid.
        """
        self.model: Any = model.to(device).eval()
        self.head_act: HeadAct = head_act or ("sigmoid" if multi_label else "softmax")
        self._score: nn.Module = WindowScores(model, self.head_act)
        self.multi_label = multi_label
        self.class_names = list(class_names)
        self.preprocessing = preprocessing
        self.device = device
        self._rule = ClipRule(
            preprocessing["num_frames"],
            preprocessing["sampling_rate"],
            preprocessing["target_fps"],
            preprocessing["sampling_rule"],
        )

    def __repr__(self) -> str:
        size = self.preprocessing
        options = getattr(self.model, "config", {})
        network = options.get("name", type(self.model).__name__)
        alpha = f", alpha {alpha:g}" if (alpha := options.get("alpha")) else ""
        names = ", ".join(self.class_names[:2])
        several = " of which several may hold" if self.multi_label else ""
        return (
            f"Recognizer({network}{alpha}; {len(self.class_names)} classes{several}: {names}, ...; "
            f"{size['num_frames']} frames x stride {size['sampling_rate']} at {size['target_fps']:g} fps, "
            f"{size['crop_size']} x {size['crop_size']} pixels; on {self.device})"
        )

    def optimize(self, *, engine: str = "auto") -> "Recognizer":
        """Score faster from now on, the same to 1e-4 (`octvideo.deploy.engines`); takes up to a minute. Returns self.

        Raises ConfigError for an unknown engine.
        """
        size = self.preprocessing["crop_size"]
        example = torch.rand(
            VIEWS_PER_PASS, self.model.in_channels, self._rule.num_frames, size, size
        )
        plain = WindowScores(self.model, self.head_act)
        self._score = optimize(plain, example.to(self.device), engine=engine)
        return self

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
        """The top_k classes, most probable first. views: clips x crops ("1x1" is 30 times as fast as "10x3").

        Of a list of videos, a list of such lists. Raises DecodeError for a file that cannot be read, ConfigError for
        other input of the wrong form.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise ConfigError(f"top_k is {top_k!r}; give how many classes to name, 1 or more")
        found = self.scores(video, views=views, fps=fps)
        if found.ndim == 1:
            return top_predictions(found, self.class_names, top_k)
        return [top_predictions(scores, self.class_names, top_k) for scores in found]

    def scores(
        self, video: Videos, *, views: str = "10x3", fps: float | None = None
    ) -> NDArray[np.float32]:
        """Probabilities of all classes (C,): the mean over the views. Of a list of N videos, (N, C)."""
        return self._over_views(self._score, video, views, fps)

    def features(
        self, video: Videos, *, views: str = "1x1", fps: float | None = None
    ) -> NDArray[np.float32]:
        """What the classifier sees, pooled over time and space: (2048,) for a ResNet-50; the mean over the views.

        Of a list of N videos, (N, 2048).
        """
        return self._over_views(self._pooled, video, views, fps)

    @torch.inference_mode()
    def timeline(
        self,
        video: Source,
        *,
        window_seconds: float = 2.0,
        stride_seconds: float = 1.0,
        fps: float | None = None,
        times: Sequence[float] = (),
    ) -> Timeline:
        """Probabilities in windows of `window_seconds`, one every `stride_seconds`; centre crop.

        The video streams: memory does not grow with its length. One shorter than a window gives one window.
        Windows hold equally many frames; they start and end when these are shown, which in a file of varying rate
        makes some of them shorter. times: those seconds, for frames that come without a file (else 1 / fps apart).
        """
        if not (0 < window_seconds < math.inf and 0 < stride_seconds < math.inf):
            raise ConfigError(
                f"windows of {window_seconds} s every {stride_seconds} s; both must be positive"
            )
        if is_several(video):
            raise ConfigError("a timeline is of one video; call it for each of the list")
        starts, scores = [], []
        with streamed(video, fps, self._rule.target_fps, times) as (frames, rate, times):
            window, step = (max(round(s * rate), 1) for s in (window_seconds, stride_seconds))
            clips = sliding_clips(
                frames, window=window, step=step, num_frames=self._rule.num_frames, keep=self._small
            )
            while batch := list(islice(clips, VIEWS_PER_PASS)):
                starts += [start for start, _ in batch]
                inputs = torch.stack([self._centre(np.stack(clip)) for _, clip in batch])
                scores.append(_finite(self._score(self._prepare(inputs)).float().cpu().numpy()))
        begins, ends = (_seconds_at(np.array(starts) + shift, times, rate) for shift in (0, window))
        return Timeline(self.class_names, begins, ends, np.concatenate(scores))

    @torch.inference_mode()
    def _over_views(
        self, compute: Any, video: Videos, views: str, fps: float | None
    ) -> NDArray[np.float32]:
        if is_several(video):
            each = [self._over_views(compute, one, views, fps) for one in video]
            return np.stack(each)
        spec = self.view_spec(views)
        frames, clips = self._read(video, spec, fps)
        batches = view_batches(frames.to(self.device), clips, spec, VIEWS_PER_PASS)
        found = torch.cat([compute(self._prepare(batch)).float() for batch in batches])
        return _finite(found.mean(0).cpu().numpy())

    def clip(self, video: Source, *, fps: float | None = None) -> tuple[Frames, Tensor]:
        """The middle clip's centre crop as people and as the network see it: uint8 (T, H, W, 3), (1, 3, T, H, W)."""
        spec = self.view_spec("1x1")
        frames, clips = self._read(video, spec, fps)
        view = next(view_batches(frames, clips, spec, 1))
        return view[0].movedim(0, -1).numpy(), self._prepare(view)

    def view_spec(self, views: str) -> ViewSpec:
        """ "10x3" as the views of this network. Raises ConfigError for anything but CLIPSxCROPS."""
        clips, x, crops = views.partition("x") if isinstance(views, str) else ("", "", "")
        if not (x and clips.isdecimal() and crops.isdecimal()):
            raise ConfigError(f"views are {views!r}; give clips x crops, as '10x3' or '1x1'")
        size = self.preprocessing
        return ViewSpec(
            self._rule, int(clips), int(crops), size["short_side"], size["crop_size"], centre=True
        )

    def _read(self, video: Source, spec: ViewSpec, fps: float | None) -> tuple[Tensor, Tensor]:
        """uint8 (F, H, W, 3) frames at the short side of the test, and each clip's places in them."""
        with opened(video, fps, self._rule.target_fps) as source:
            return read_clips(source, spec)

    def _small(self, frame: Frames) -> Frames:
        return resize_frame(frame, self.preprocessing["short_side"])

    def _centre(self, clip: Frames) -> Tensor:
        places = torch.arange(len(clip))[None]
        return next(view_batches(torch.from_numpy(clip), places, self.view_spec("1x1"), 1))[0]

    def _prepare(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self.device)
        if self.preprocessing["reverse_channels"]:
            inputs = inputs.flip(1)
        return normalize(inputs, self.preprocessing["mean"], self.preprocessing["std"])

    def _pooled(self, x: Tensor) -> Tensor:
        return torch.cat([pathway.mean((2, 3, 4)) for pathway in self.model.features(x)], dim=1)


def load(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    classes: str | Path | Sequence[str] = (),
    input: str | InputSpec | Mapping[str, Any] = "",
) -> Recognizer:
    """A recogniser from a checkpoint of training: classes, clip length, sampling and normalisation come with it.

    path: a file, or the name of a public network (`octvideo pretrained` lists them), which is fetched at
        first use.
    device: by default the GPU where there is one.
    classes, input: of a bare file of another project, which says neither: names (a list, a text file, or "kinetics400")
        and clips ("8x8": frames x frame stride; or the fields of `InputSpec`).

    Raises CheckpointError for a file that is missing, damaged, carries code, or holds weights without what they assume.
    """
    checkpoint = read_weights(str(path))
    if not checkpoint.network and classes and input:
        checkpoint = describe(checkpoint, read_classes(classes), read_input(input))
    if not (checkpoint.network and checkpoint.class_names and checkpoint.input.mean):
        raise CheckpointError(
            f"{path}: holds weights, but not the classes and the input that they assume; say them, as in "
            "octvideo.load(file, classes='kinetics400', input='8x8'), or convert it (`octvideo convert` "
            "--class-names NAMES.txt --input 8x8)"
        )
    if checkpoint.input.num_frames is None:
        raise CheckpointError(
            f"{path}: holds an image network; `octvideo inflate` makes a video network of it"
        )
    chosen = _device(device)
    try:
        return Recognizer(
            network_of(checkpoint),
            checkpoint.class_names,
            checkpoint.input.as_dict(),
            chosen,
            multi_label=checkpoint.multi_label,
            head_act=cast(HeadAct | None, checkpoint.head_act),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its input or output is not described as training does ({error})"
        ) from error


def _device(device: str | torch.device | None) -> torch.device:
    """Raises ConfigError for one that this machine does not have."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={device!r}: cannot be used here ({reason}); leave it out for the best that there is"
        ) from error
    return chosen


def top_predictions(
    scores: NDArray[np.float32], class_names: Sequence[str], k: int
) -> list[Prediction]:
    """The k most probable of (C,) scores; equal ones in the order of the classes."""
    order = np.argsort(-scores, kind="stable")[:k]
    return [Prediction(class_names[i], float(scores[i])) for i in order]


def _seconds_at(
    places: NDArray[np.int64], times: Sequence[float], rate: float
) -> NDArray[np.float64]:
    """When frames begin; behind the last of `times`, when that one ends."""
    if not len(times):
        return places / rate
    known = np.append(times, times[-1] + 1 / rate)
    return known[np.minimum(places, len(times))]


def _finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(scores).all():
        raise CheckpointError("the network's outputs are not finite; its weights have diverged")
    return scores
