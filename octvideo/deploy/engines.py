"""A trained network made fast for inference: one call, the same outputs.

fast = optimize(model, example)            # the fastest engine that is installed
fast(clips)                                # logits to 1e-4 relative
"""

import logging
import threading
from collections.abc import Callable
from importlib.util import find_spec
from shutil import which
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.layer_times import EagerTimes, LayerTimes
from octvideo.deploy.merge import merge_convs, mergeable
from octvideo.deploy.openvino import OpenVINOTimes, convert
from octvideo.errors import ConfigError, OctvideoError
from octvideo.layers import channels_last
from octvideo.models.network import HeadAct

logger = logging.getLogger("octvideo")

TOLERANCE = 1e-4


class WindowScores(nn.Module):
    """A network whose output is its test-time probabilities: what an evaluation optimises.

    act: "softmax", or "sigmoid" where each of several labels has a probability of its own; see `HeadAct`.
    """

    def __init__(self, model: nn.Module, act: HeadAct = "softmax") -> None:
        super().__init__()
        self.model, self.act = model, act

    def forward(self, x: Tensor) -> Tensor:
        return self.model.window_scores(x, self.act)  # type: ignore[operator]


def optimize(model: nn.Module, example: Tensor, *, engine: str = "auto") -> nn.Module:
    """A module for inference that computes what `model` does in evaluation mode; `model` stays as it is.

    example: float input of the shape and on the device of later calls; another batch size works and compiles once more.
    engine: "torch" (batch norms folded, compiled with frozen weights where there is a C++ compiler), "openvino" (CPU
        only, when it is installed), or "auto": openvino on CPUs that have it, else torch.

    The result is compared with `model` on the example: OctvideoError for a relative difference above 1e-4 (fp32).
    """
    if engine not in ("auto", *ENGINES):
        raise ConfigError(f"there is no engine {engine!r}; there are auto, {', '.join(ENGINES)}")
    if engine == "auto":
        engine = "openvino" if example.device.type == "cpu" and find_spec("openvino") else "torch"
    folded = fold_batch_norm(model)
    fast = ENGINES[engine](folded, example)
    with torch.inference_mode():
        difference = relative_difference(fast(example), folded.eval()(example))
    if difference > TOLERANCE and example.dtype == torch.float32:
        raise OctvideoError(
            f"engine {engine} differs by {difference:.1e} from the network; the rule is {TOLERANCE:.0e}"
        )
    return fast


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


class Compiled(nn.Module):
    """torch.compile with frozen weights, in inference mode.

    Any number of threads may call it. Inputs of a new kind are compiled one after another; the compiler's settings and
    its caches belong to the process. A pickle of it holds the network and compiles again where it is loaded.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._start()

    _compiled: Callable[[Tensor], Tensor]

    def _start(self) -> None:
        self._known = set[Any]()
        # Not as a submodule: a pickle would hold it, and a state dict every weight twice.
        vars(self)["_compiled"] = torch.compile(self.model)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        kind = (x.shape, x.dtype, x.device, x.is_inference(), torch.is_inference_mode_enabled())
        if kind in self._known:
            return self._compiled(x)
        import torch._inductor.config as inductor

        with _compiling, inductor.patch(freezing=True):
            out = self._compiled(x)
        self._known.add(kind)
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_compiled", "_known")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()


_compiling = threading.RLock()


def _torch_engine(model: nn.Module, example: Tensor) -> nn.Module:
    if example.device.type == "cpu" and not (which("c++") or which("g++") or which("clang++")):
        logger.warning(
            "no C++ compiler: the network is folded but not compiled; install g++ for the rest"
        )
        return Eager(model)
    if example.device.type == "cpu":
        model = _merged_where_faster(model, example, EagerTimes)
    return Compiled(channels_last(model))


class Eager(nn.Module):
    """The module as it is, without gradients."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _openvino_engine(model: nn.Module, example: Tensor) -> nn.Module:
    return convert(_merged_where_faster(model, example, OpenVINOTimes), example)


def openvino_times(model: nn.Module, example: Tensor) -> OpenVINOTimes:
    """What each layer takes in the network that engine "openvino" makes of `model`."""
    return OpenVINOTimes(
        _merged_where_faster(fold_batch_norm(model), example, OpenVINOTimes), example
    )


def _merged_where_faster(
    model: nn.Module,
    example: Tensor,
    times: Callable[[nn.Module, Tensor], LayerTimes],
    rounds: int = 5,
) -> nn.Module:
    """A copy of the folded `model` in which those octave convolutions are merged that take less time so, in turns."""
    names = mergeable(model)
    if not names:
        return model
    plain, merged = (times(m, example) for m in (model, merge_convs(model, names)))
    for _ in range(rounds):
        plain()
        merged()
    return merge_convs(
        model, [name for name in names if merged.seconds[name] < plain.seconds[name]]
    )


ENGINES: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "torch": _torch_engine,
    "openvino": _openvino_engine,
}
