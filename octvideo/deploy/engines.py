"""Optimize a trained network for inference: one call, equal outputs.

fast = optimize(model, example)            # the fastest engine that is installed
fast(clips)                                # logits to 1e-4 relative
"""

import threading
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.counted_run import evaluating
from octvideo.deploy.cache import hash_of, kept, key_of, structure_of, weights_of
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.graphed import Evaluating, fused_engine
from octvideo.deploy.merge_choice import merge_where_faster
from octvideo.deploy.openvino import (
    OpenVINO,
    OpenVINOTimes,
    compile_layers,
    convert,
    convert_low_precision,
)
from octvideo.deploy.precision import TOLERANCE as TOLERANCES
from octvideo.deploy.precision import (
    check_int8,
    quantized,
    resolve,
    split_clips,
    warn_of_slow_octave,
)
from octvideo.errors import ConfigError, OctvideoError, logger
from octvideo.layers import channels_last
from octvideo.models.network import HeadAct

TOLERANCE = TOLERANCES["fp32"]


class WindowScores(nn.Module):
    """A network whose output is its test-time probabilities: what an evaluation optimizes.

    act: "softmax", or "sigmoid" where each of several labels has a probability of its own; see
    `HeadAct`.
    """

    def __init__(self, model: nn.Module, act: HeadAct = "softmax") -> None:
        super().__init__()
        self.model, self.act = model, act

    def forward(self, x: Tensor) -> Tensor:
        return self.model.window_scores(x, self.act)  # type: ignore[operator]


def optimize(
    model: nn.Module,
    example: Tensor,
    *,
    engine: str = "auto",
    precision: str = "fp32",
    calibration: Tensor | None = None,
) -> nn.Module:
    """A module for inference that computes what `model` does in evaluation mode; `model` stays as
    it is.

    example: float input of the shape and on the device of later calls; another batch size works and
    compiles once more.
    engine: "torch" (batch norms folded, compiled with frozen weights where there is a C++
    compiler), "openvino" (CPU
        only, when it is installed), "fused" (GPU only: one Triton kernel per layer, replayed as
        a CUDA graph), or "auto": openvino on CPUs that have it, else torch.
    precision: "fp32"; with OpenVINO also "bf16" (AMX or AVX512-BF16), "int8", or "auto": bf16 where
    the CPU has it.
    calibration: real inputs (N, ...) for int8, at least 8, better 32, by turns one to set its
    ranges and one to check
        it. Those that check should be new to the network.

    What was measured and made is kept on disk (`octvideo.deploy.cache`), so the second time is
    quick. The result is
    compared with `model` on the example (on a GPU with its folded form): OctvideoError for a
    relative difference above 1e-4 (bf16: .03), and of int8 where more than 1 % of the held-out
    clips get another class or the output changes by more than a tenth. Raises ConfigError as
    `choose` does, and for what OpenVINO computes already; of other results of this function, the
    network in them is optimized.
    """
    while isinstance(model, Evaluating):
        model = model.model
    if isinstance(model, OpenVINO):
        raise ConfigError(
            "optimize got a network that OpenVINO computes already; give the one that it was made"
            " of"
        )
    engine, precision = choose(engine, precision, example.device, calibration is not None)
    folded = fold_batch_norm(model)
    if precision != "fp32":
        warn_of_slow_octave(folded, precision)
        with evaluating(model):
            return _lower_precision(folded, model, example, precision, calibration)
    fast = ENGINES[engine](folded, example)
    with evaluating(model):
        # On a GPU, TensorFloat-32 rounds folded weights otherwise, by more than the tolerance.
        expected = folded if example.is_cuda else model
        difference = _difference(fast, expected, example)
    if not difference <= TOLERANCE and example.dtype == torch.float32:
        raise OctvideoError(
            f"engine {engine} differs by {difference:.1e} from the network; the rule is"
            f" {TOLERANCE:.0e}"
        )
    return fast


def choose(engine: str, precision: str, device: torch.device, calibrated: bool) -> tuple[str, str]:
    """The engine and the precision that `optimize` takes for these arguments, "auto" replaced.

    Raises ConfigError for what does not exist, for what `device` or this machine does not have, and
    for a calibration of another precision than int8.
    """
    if engine not in ("auto", *ENGINES):
        raise ConfigError(f"there is no engine {engine!r}; there are auto, {', '.join(ENGINES)}")
    if engine == "auto":
        engine = "openvino" if device.type == "cpu" and find_spec("openvino") else "torch"
    elif engine == "openvino" and device.type != "cpu":
        raise ConfigError(
            f"engine openvino is for CPUs, and the example is on {device.type}; take engine auto,"
            " or a network on the CPU"
        )
    if calibrated and precision != "int8":
        raise ConfigError(
            f"calibration is for precision int8, and precision is {precision}; take int8, or leave"
            " calibration out"
        )
    return engine, resolve(precision, engine)


def _lower_precision(
    model: nn.Module,
    expected: nn.Module,
    example: Tensor,
    precision: str,
    calibration: Tensor | None,
) -> nn.Module:
    """The folded `model` in bf16 or int8, cached on disk and compared with `expected` each time.
    Layers are not merged: merged ones are not faster here.
    """
    clips, held_out = split_clips(calibration) if precision == "int8" else (None, None)
    size = tuple(example.shape[1:])
    parts = (structure_of(model), weights_of(model), size, "" if clips is None else hash_of(clips))

    def check(fast: OpenVINO) -> OpenVINO:
        if held_out is not None:
            check_int8(fast, expected, held_out)
        elif not (difference := _difference(fast, expected, example[:1])) <= TOLERANCES[precision]:
            raise OctvideoError(
                f"precision {precision} differs by {difference:.1e} from the network; the rule is "
                f"{TOLERANCES[precision]:g}; take precision fp32"
            )
        return fast

    def make() -> OpenVINO:
        if clips is None:
            return convert_low_precision(model, example, precision)
        return convert_low_precision(
            model, example, precision, lambda graph: quantized(graph, clips)
        )

    return kept(
        key_of(precision, *parts),
        lambda folder: check(OpenVINO.read(folder / "network.xml", size[1:])),
        lambda: check(make()),
        lambda fast, folder: fast.save(folder / "network.xml"),
    )


def _difference(fast: nn.Module, model: nn.Module, x: Tensor) -> float:
    with torch.inference_mode():
        return relative_difference(fast(x), model.eval()(x))


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value. It may be NaN where an output is not finite, and
    NaN is never above a tolerance: ask `not difference <= tolerance`."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


class Compiled(Evaluating):
    """torch.compile with frozen weights, in inference mode.

    Any number of threads may call it. Inputs of a new kind are compiled one after another; the
    compiler's settings and its caches belong to the process. A pickle of it holds the network and
    compiles again where it is loaded.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
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
        model = merge_where_faster(model, example, "torch", _eager_layers)
    return Compiled(channels_last(model))


class Eager(Evaluating):
    """The module as it is, without gradients."""

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _eager_layers(
    layers: list[nn.Module], inputs: list[tuple[Tensor, Tensor]]
) -> list[Callable[[], object]]:
    infer = torch.inference_mode()(lambda layer, x: layer(*x))
    return [partial(infer, layer, x) for layer, x in zip(layers, inputs, strict=True)]


def _openvino_engine(model: nn.Module, example: Tensor) -> nn.Module:
    key = key_of("openvino", structure_of(model), weights_of(model), tuple(example.shape[1:]))

    def read(folder: Path) -> OpenVINO:
        found = OpenVINO.read(folder / "network.xml", example.shape[2:])
        difference = _difference(found, model, example[:1])
        if not difference <= TOLERANCE:
            raise OctvideoError(f"it differs by {difference:.1e} from the network")
        return found

    def make() -> OpenVINO:
        return convert(_merged_for_openvino(model, example), example)

    return kept(key, read, make, lambda fast, folder: fast.save(folder / "network.xml"))


def openvino_times(model: nn.Module, example: Tensor) -> OpenVINOTimes:
    """The time of each layer in the network that engine "openvino" makes of `model`."""
    return OpenVINOTimes(_merged_for_openvino(fold_batch_norm(model), example), example)


def _merged_for_openvino(model: nn.Module, example: Tensor) -> nn.Module:
    return merge_where_faster(model, example, "openvino", compile_layers)


ENGINES: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "torch": _torch_engine,
    "openvino": _openvino_engine,
    "fused": fused_engine,
}
