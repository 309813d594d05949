"""Does the octave pay on this machine? Times of networks, measured in turns, so that other work on
the machine affects all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.complexity import count, without
from octvideo.deploy.engines import openvino_times, optimize
from octvideo.deploy.export import ONNX, export_model
from octvideo.deploy.layer_times import EagerTimes
from octvideo.deploy.openvino import OpenVINOTimes
from octvideo.deploy.pytorchvideo import hub_model
from octvideo.deploy.timing import (
    MIN_ROUNDS,
    Call,
    interleaved,
    interval_of_median,
    peak_megabytes,
    spread,
)
from octvideo.errors import ConfigError, import_optional, logger
from octvideo.layers.memory import saved_bytes
from octvideo.models import create_model
from octvideo.models.network import recomputable_parts

ENGINES = ("eager", "torch", "openvino", "onnxruntime", "fused")
COMPILED = ("", "network", "blocks")
_MANY_GRAPHS = 1000


@dataclass(frozen=True, slots=True)
class Case:
    """A network, its input, and how it is run.

    source: "octvideo", or "pytorchvideo" for its network of this name, in eager mode.
    train: forward and backward, in the plain or the memory-saving form.
    width_rule: how widths are split; None is the network's own rule.
    bf16: under autocast, in eager mode.
    compiled: what torch.compile takes, in eager mode: the "network", its "blocks" one by one
    (blocks of one shape share a graph), or "" for nothing. Engine "torch" folds and rewrites first,
    and does not train.
    device: "cpu" or "cuda".
    """

    model: str
    alpha: float
    input_shape: tuple[int, ...]
    batch: int = 1
    train: bool = False
    memory_saving: bool = False
    engine: str = "eager"
    source: str = "octvideo"
    width_rule: str | None = None
    bf16: bool = False
    compiled: str = ""
    device: str = "cpu"

    @property
    def label(self) -> str:
        return f"{self.alpha:g}" if self.source == "octvideo" else self.source

    @property
    def memory(self) -> str:
        """The memory that is reported: "peak" allocation on a GPU, activations "saved" for the
        backward pass of fp32 training on a CPU, "" for none."""
        if self.device == "cuda":
            return "peak"
        return "saved" if self.train and not self.bf16 else ""

    def create(self) -> nn.Module:
        if self.source == "pytorchvideo":
            return hub_model(self.model)
        rule: dict[str, Any] = {"width_rule": self.width_rule} if self.width_rule else {}
        return create_model(
            self.model, alpha=self.alpha, dropout_rate=0.0, memory_saving=self.memory_saving, **rule
        )

    def example(self) -> Tensor:
        return torch.randn(self.batch, *self.input_shape, device=self.device)

    def check(self) -> None:
        """Raise ConfigError for an engine or a device that cannot do it."""
        if self.engine not in ENGINES:
            raise ConfigError(f"there is no engine {self.engine!r}; there are {', '.join(ENGINES)}")
        for chosen, problem in (
            (self.train, "does not train; leave --engine out, or --train"),
            (self.bf16, "computes in fp32 here; leave --engine out, or --bf16"),
            (self.compiled, "compiles in its own way; leave --engine out, or --compile"),
        ):
            if chosen and self.engine != "eager":
                raise ConfigError(f"engine {self.engine} {problem}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "--device cuda: PyTorch finds no GPU here; leave --device out to measure the CPU"
            )
        if self.device == "cuda" and self.engine not in ("eager", "torch", "fused"):
            raise ConfigError(
                f"engine {self.engine} is for CPUs here; on a GPU there are eager, torch and fused"
            )
        if self.compiled not in COMPILED:
            raise ConfigError(
                f"nothing is compiled as {self.compiled!r}; there are {', '.join(COMPILED[1:])}"
            )

    def make(self) -> Call:
        """A function that runs the case once per call. Raises the errors of `check`."""
        self.check()
        model, x = self.create().to(self.device), self.example()
        if self.compiled == "network":
            model.compile()
        elif self.compiled == "blocks":
            compile_blocks(model)
        return self._training(model, x) if self.train else self._inference(model.eval(), x)

    def _training(self, model: nn.Module, x: Tensor) -> Call:
        def step() -> None:
            with self._autocast():
                loss = model(x).square().mean()
            loss.backward()
            model.zero_grad(set_to_none=True)

        return step

    def _inference(self, model: nn.Module, x: Tensor) -> Call:
        if self.engine == "eager":
            return torch.inference_mode()(self._autocast()(lambda: model(x)))
        if self.engine == "onnxruntime":
            return _onnxruntime(model, x)
        fast = optimize(model, x, engine=self.engine)
        return lambda: fast(x)

    def check_layers(self) -> None:
        """Raise ConfigError for a case whose layers cannot be timed one by one."""
        is_other = self.train or self.bf16 or bool(self.compiled) or self.device != "cpu"
        if is_other or self.engine not in ("eager", "openvino"):
            raise ConfigError(
                "--layers is for fp32 inference on the CPU with engine eager or openvino; leave"
                " it out"
            )

    def layer_times(self) -> EagerTimes | OpenVINOTimes:
        """A function that times the layers at each call. Raises the errors of `check_layers`."""
        self.check_layers()
        if self.engine == "eager":
            return EagerTimes(self.create().eval(), self.example())
        return openvino_times(self.create(), self.example())

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)

    def macs(self) -> int:
        """Multiply-adds of one forward pass of one clip; logs what they are without."""
        cost = count(self.create(), self.input_shape)
        if cost.uncounted:
            logger.warning("multiply-adds of %s%s", self.model, without(cost.uncounted))
        return cost.macs

    def saved_megabytes(self) -> float:
        """Megabytes that a training step saves for its backward pass, without weights."""
        model, x = self.create(), self.example()
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        return (saved_bytes(lambda: model(x)) - weights) / 1e6


def compile_blocks(model: nn.Module) -> None:
    """Compile each block by itself, for fixed shapes."""
    import torch._dynamo

    # Every shape of a block counts as a recompilation; beyond a limit blocks would run eagerly.
    torch._dynamo.config.recompile_limit = _MANY_GRAPHS
    torch._dynamo.config.accumulated_recompile_limit = _MANY_GRAPHS
    for block in recomputable_parts(model):
        block.compile(dynamic=False)


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds per call, and their ratio to the first case.

    ratio: the median over the rounds of this case's time over the first case's in the same round.
    low, high: an interval that holds the true median with 95 % confidence, whenever the rounds
    ended; 0 and infinity where they are too few.
    best_ratio: of the fastest calls. spread: the middle half of the times, over their median.
    megabytes: what `Case.memory` names; None where it names nothing.
    """

    case: Case
    seconds: float
    ratio: float
    best_ratio: float
    macs_ratio: float
    megabytes: float | None = None
    low: float = 0.0
    high: float = float("inf")
    spread: float = 0.0
    rounds: int = 1

    @property
    def clips_per_second(self) -> float:
        return self.case.batch / self.seconds

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON, which has no infinity: there it is None."""
        return asdict(self) | {"high": self.high if isfinite(self.high) else None}

    @property
    def is_clear(self) -> bool:
        """Whether the rounds agree on which of the two is faster."""
        return self.high < 1 or self.low > 1


def compare(cases: Sequence[Case], rounds: int, repeats: int = 2) -> list[Measured]:
    """Measure in turns, `rounds` times after an unmeasured call each. Ratios are to the first case.

    repeats: how often all rounds are repeated while they do not agree on which case is faster. Each
    end of the rounds is a look at the intervals, and these are wider for it (`interval_of_median`).
    """
    looks = 1 + repeats if rounds >= MIN_ROUNDS else 1
    calls = {case: case.make() for case in cases}
    macs = [case.macs() for case in cases]
    times = interleaved(calls, rounds, cases[0].device)
    for _ in range(looks - 1):
        if all(m.is_clear for m in _summaries(times, macs, looks)[1:]):
            break
        for case, more in interleaved(calls, rounds, cases[0].device).items():
            times[case] += more
    measured = _summaries(times, macs, looks)
    return [replace(m, megabytes=memory_of(m.case, calls[m.case])) for m in measured]


def _summaries(
    times: Mapping[Case, list[float]], macs: Sequence[int], looks: int
) -> list[Measured]:
    first = next(iter(times.values()))
    measured = []
    for (case, seconds), m in zip(times.items(), macs, strict=True):
        ratios = [ours / theirs for ours, theirs in zip(seconds, first, strict=True)]
        low, high = interval_of_median(ratios, looks)
        measured.append(
            Measured(
                case,
                median(seconds),
                median(ratios),
                min(seconds) / min(first),
                m / macs[0],
                low=low,
                high=high,
                spread=spread(seconds),
                rounds=len(seconds),
            )
        )
    return measured


def memory_of(case: Case, call: Call) -> float | None:
    if case.memory == "saved":
        return case.saved_megabytes()
    return peak_megabytes(call) if case.memory == "peak" else None


def compare_layers(cases: Sequence[Case], rounds: int) -> dict[str, list[float]]:
    """Seconds of each layer in each case, measured in turns; 0 where a case lacks the layer."""
    times = [case.layer_times() for case in cases]
    for _ in range(rounds):
        for run in times:
            run()
    found: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for run in times for name in run.seconds):
        found[name] = [run.seconds.get(name, 0.0) for run in times]
    return found


def verdict(measured: Sequence[Measured]) -> str:
    """A line per case after the first: the compute that it saves, and the time, or that the rounds
    do not agree; then warnings about the numbers."""
    lines = [_verdict_on(m) for m in measured[1:]]
    if measured[0].rounds < MIN_ROUNDS:
        lines.append(f"fewer than {MIN_ROUNDS} rounds tell nothing; give more with --rounds")
    elif measured[0].spread > 0.1:
        lines.append(
            f"the machine is busy: times of the first case spread by {measured[0].spread:.0%};"
            " measure again when idle"
        )
    return "\n".join(lines)


def _verdict_on(m: Measured) -> str:
    interval = f"{m.low:.2f} to {m.high:.2f}"
    if m.case.source != "octvideo":
        return f"{m.case.source} takes {m.ratio:.2f} times as long ({interval})"
    name = f"alpha {m.case.alpha:g}"
    if not m.is_clear:
        return f"{name}: cannot tell: {m.rounds} rounds put its time at {interval} of the first's"
    if m.low > 1:
        return f"{name} does not pay here: it takes {m.ratio:.2f} times as long ({interval})"
    won, saved = f"{1 - m.ratio:.0%} less time ({interval})", f"{1 - m.macs_ratio:.0%} fewer"
    if m.high < m.macs_ratio:
        return (
            f"{name} is doubtful: {won} for {saved} multiply-adds, which do not explain it; the"
            " first case may have taken a slow path (see --layers)"
        )
    return f"{name} pays: {won} for {saved} multiply-adds"


def _onnxruntime(model: nn.Module, x: Tensor) -> Call:
    import_optional("onnxruntime", "engine onnxruntime", "pip install onnxruntime")
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export_model(model, torch.cat([x, x]), path)
        return partial(ONNX(path), x)
