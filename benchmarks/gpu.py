"""Does the octave pay on this GPU? Everything that is measured there, in one command.

    python benchmarks/gpu.py --minutes 8 --out DIR

Needs PyTorch with CUDA and Triton alone; pytorchvideo is measured where it can be imported.

Results are checked first: networks on the GPU, in inference and in a training step, against float64
on the CPU. Then networks are timed. Each runs in a process of its own, so that one compiles while
others do; they are measured in turns, by CUDA events, so that a card that slows down slows all of
them. What is wanted most comes first, and what is measured is written at once: DIR/checks.jsonl,
DIR/times.jsonl, DIR/table.md. `--check`, `--layers` and `--profile CASE` do one thing by itself.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

ALPHAS = (0.0, 0.1, 0.2, 0.5)
PROCESSES = 16
ROUNDS = 5
WAVE_SECONDS = 240
FORMS = {"eager": "unfused", "compiled": "fused", "tuned": "fused", "fused": "one-pass"}
"""What the roofline calls the way in which a case computes."""


@dataclass(frozen=True)
class Case:
    """A network and how it is run.

    form: "eager", "compiled" (torch.compile), "fused" (the Triton kernels), or "tuned" (compiled
        with max-autotune).
    in_2d: flat 3D convolutions are computed as 2D ones.
    stem: by space to depth.
    graph: replayed as one CUDA graph.
    source: "octvideo", or "pytorchvideo" with its memory layout: "contiguous", "channels_last_3d".
    """

    model: str
    alpha: float
    train: bool
    form: str
    batch: int = 8
    in_2d: bool = True
    stem: bool = True
    graph: bool = True
    source: str = "octvideo"
    layout: str = "channels_last_3d"

    @property
    def label(self) -> str:
        what = "training" if self.train else "inference"
        return f"{self.model} {what} batch={self.batch} alpha={self.alpha:g} {self.treatment}"

    @property
    def treatment(self) -> str:
        if self.source != "octvideo":
            return f"pytorchvideo, {self.layout}, {self.form}"
        plain = "" if self.in_2d else ", 3D"
        return f"{self.form}{plain}{'' if self.stem else ', plain stem'}"


# --- What is measured, most wanted first


def plan() -> Iterator[Case]:
    for batch in (8, 32):
        for train in (True, False):
            yield Case("i3d_r50", 0.0, train, "compiled", batch)
            for alpha in (0.0, 0.5, 0.1, 0.2):
                yield Case("i3d_r50", alpha, train, "fused", batch)
    for train in (True, False):
        for layout in ("channels_last_3d", "contiguous"):
            yield Case(
                "i3d_r50", 0.0, train, "eager", graph=False, source="pytorchvideo", layout=layout
            )
        yield Case("i3d_r50", 0.0, train, "compiled", source="pytorchvideo")
        for alpha in (0.5, 0.1, 0.2):
            yield Case("i3d_r50", alpha, train, "compiled")
        for alpha in (0.0, 0.5, 0.1, 0.2):
            yield Case("i3d_r50", alpha, train, "eager", graph=False)
        yield Case("i3d_r50", 0.0, train, "compiled", in_2d=False, stem=False)
    for model in ("slowfast_r50", "c2d_r50", "i3d_nln_r50"):
        for train in (True, False):
            yield Case(model, 0.0, train, "compiled")
            for alpha in ALPHAS:
                yield Case(model, alpha, train, "fused")


def waves(cases: list[Case], size: int) -> Iterator[list[Case]]:
    for start in range(0, len(cases), size):
        yield cases[start : start + size]


# --- One case, in a process of its own


def clips_of(case: Case) -> Any:
    import torch

    x = torch.randn(case.batch, *_clip_shape(case), device="cuda")
    if case.layout == "channels_last_3d":
        x = x.contiguous(memory_format=torch.channels_last_3d)
    return x


def _clip_shape(case: Case) -> tuple[int, int, int, int]:
    return 3, 32 if case.model.startswith("slowfast") else 8, 224, 224


def network_of(case: Case) -> Any:
    import torch

    if case.source == "pytorchvideo":
        from octvideo.deploy.pytorchvideo import hub_model

        model = hub_model(case.model).cuda()
        if case.layout == "channels_last_3d":
            model = model.to(memory_format=torch.channels_last_3d)
        return model
    from octvideo import create_model
    from octvideo.layers import compute_in_2d, stem_by_space_to_depth
    from octvideo.layers.fused import fuse

    model = create_model(case.model, alpha=case.alpha, dropout_rate=0.0)
    fuse(model, case.form == "fused")
    compute_in_2d(model, case.in_2d)
    stem_by_space_to_depth(model, case.stem)
    return model.cuda()


def step_of(case: Case) -> tuple[Callable[[], object], float]:
    """One inference or training step of `case`, warmed up and captured where it says so; its peak
    memory in GB."""
    import torch

    torch.backends.cudnn.benchmark = True
    if case.form == "fused":
        _time_tiles_alone()
    torch._inductor.config.conv_1x1_as_mm = True
    model, x = network_of(case), clips_of(case)
    step = _training(case, model, x) if case.train else _inference(case, model, x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 1e9
    if not case.graph:
        return step, peak
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay, peak


def _time_tiles_alone() -> None:
    """Tiles are chosen by their times, which other processes on the card would falsify."""
    import fcntl
    import tempfile

    from octvideo.layers.triton import tiles

    measure = tiles.milliseconds

    def alone(call: Callable[[], object]) -> float | None:
        if not tiles.compiled(call):
            return None
        with (Path(tempfile.gettempdir()) / "octvideo_gpu.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            return measure(call)

    tiles.milliseconds = alone


def warm(case: Case, part: int, parts: int) -> None:
    """Compile every parts-th tile of the kernels of `case` into Triton's cache on disk."""
    from octvideo.layers.triton import tiles

    def compile_some(
        key: Any, launch: Callable[[Any], object], positions: int, channels: int, exact: bool
    ) -> Any:
        if key in tiles._chosen:
            return tiles._chosen[key]
        candidates = tiles.candidates(positions, channels)
        fits = [tile for tile in candidates[part::parts] if tiles.compiled(partial(launch, tile))]
        tiles._chosen[key] = fits[0] if fits else candidates[-1]
        return tiles._chosen[key]

    tiles.choose = compile_some
    model, x = network_of(case), clips_of(case)
    step = (
        _training(case, model, x, eager=True)
        if case.train
        else _inference(case, model, x, eager=True)
    )
    step()


def _compile(case: Case, model: Any) -> Any:
    import torch

    if case.form in ("compiled", "tuned"):
        mode = "max-autotune-no-cudagraphs" if case.form == "tuned" else None
        return torch.compile(model, mode=mode)
    if case.form == "fused":
        for name, module in model.named_modules():
            if name.endswith(("stem", "head", "slow_stem", "fast_stem")):
                module.compile()
    return model


def _inference(case: Case, model: Any, x: Any, eager: bool = False) -> Callable[[], object]:
    import torch

    if case.source == "octvideo":
        from octvideo.deploy.fold import fold_batch_norm

        model = fold_batch_norm(model)
    model = model.eval().to(torch.bfloat16)
    model = model if eager else _compile(case, model)
    x = x.to(torch.bfloat16)

    @torch.inference_mode()
    def step() -> object:
        return model(x)

    return step


def _training(case: Case, model: Any, x: Any, eager: bool = False) -> Callable[[], object]:
    import torch
    from torch.nn import functional as F

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 1e-4, momentum=0.9, fused=True)
    model = model.train() if eager else _compile(case, model.train())
    labels = torch.randint(0, 400, (case.batch,), device="cuda")

    def step() -> object:
        # A cache of casts would keep what the capture of a graph may not keep.
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = F.cross_entropy(model(x).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def child(case: Case) -> None:
    """Prepare, then measure as often as the parent asks: a number of calls in, milliseconds out."""
    import torch

    started = time.time()
    call, peak = step_of(case)
    torch.cuda.synchronize()
    _say(ready=round(time.time() - started, 1), peak_gb=round(peak, 2), **predicted(case))
    for line in sys.stdin:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        calls = int(line)
        call()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        _say(ms=start.elapsed_time(end) / calls)


def predicted(case: Case) -> dict[str, float]:
    """Milliseconds, TFLOP and GB of a step by the roofline; nothing for a card or a network it does
    not know."""
    import torch

    from octvideo import create_model
    from octvideo.deploy.roofline import predict
    from octvideo.errors import OctvideoError

    if case.source != "octvideo":
        return {}
    model = create_model(case.model, alpha=case.alpha, dropout_rate=0.0)
    try:
        found = predict(
            model, _clip_shape(case), torch.cuda.get_device_name(), batch=case.batch, form=FORMS[case.form],
            train=case.train,
        )  # fmt: skip
    except OctvideoError:
        return {}
    flops, moved = sum(k.flops for k in found.kernels), sum(k.num_bytes for k in found.kernels)
    return {"predicted_ms": 1e3 * found.seconds, "tflop": flops / 1e12, "gb": moved / 1e9}


def _say(**what: Any) -> None:
    print("@" + json.dumps(what), flush=True)


# --- Are the results right?


FORMS_CHECKED = (
    "fp32",
    "fp32 2D",
    "fp32 fused",
    "tf32",
    "tf32 fused",
    "bf16",
    "bf16 2D",
    "bf16 compiled",
    "bf16 fused",
)
BOUNDS = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 0.1}
"""Of logits, folded logits and running statistics. Gradients cross ReLUs whose sign rounding
decides: they are held to three times the error of PyTorch's own plain form in the same
precision."""


def check() -> None:
    """Relative errors on the GPU against float64 on the CPU, one said per check."""
    import torch

    for name, alpha in (
        ("i3d_r26", 0.5),
        ("i3d_r26", 0.0),
        ("slowfast_r26", 0.2),
        ("c2d_r26", 0.1),
    ):
        plain: dict[str, float] = {}
        for form in FORMS_CHECKED:
            errors, precision = network_errors(name, alpha, form), form.split()[0]
            plain.setdefault(precision, errors["gradients"])
            bounds = dict.fromkeys(errors, BOUNDS[precision])
            bounds["gradients"] = 3 * plain[precision] + 1e-6
            ok = all(error <= bounds[what] for what, error in errors.items())
            _say(
                check=f"{name} alpha {alpha:g} {form}",
                ok=ok,
                **{k: float(f"{v:.2g}") for k, v in errors.items()},
            )
        torch.cuda.empty_cache()


def network_errors(name: str, alpha: float, form: str) -> dict[str, float]:
    """Of logits in training, folded inference, and all gradients: |a - b| / |b| in the 2-norm."""
    import copy

    import torch

    from octvideo import create_model
    from octvideo.deploy.fold import fold_batch_norm
    from octvideo.layers import compute_in_2d
    from octvideo.layers.fused import fuse

    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = form.startswith(
        "tf32"
    )
    model = create_model(name, alpha=alpha, num_classes=7, width_per_group=64, dropout_rate=0.0,
                         zero_init_final_bn=False)  # fmt: skip
    frames = 16 if name.startswith("slowfast") else 8
    x, w = torch.randn(2, 3, frames, 66, 98), torch.randn(2, 7)
    reference = copy.deepcopy(model).double()
    compute_in_2d(model, "2D" in form)
    fuse(model, "fused" in form).cuda()
    if "compiled" in form:
        model.compile()
    results = []
    for net, clips, device in ((reference, x.double(), "cpu"), (model, x.cuda(), "cuda")):
        amp = torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda" and "bf16" in form)
        with amp:
            logits = net.train()(clips)
        (logits.double() * w.to(device)).sum().backward()
        gradient = torch.cat([p.grad.double().flatten().cpu() for p in net.parameters()])
        with amp, torch.no_grad():
            folded = fold_batch_norm(net)(clips)
        running = torch.cat([b.double().flatten().cpu() for b in net.buffers()])
        results.append([t.detach().double().cpu() for t in (logits, gradient, folded, running)])
    names = ("logits", "gradients", "folded", "running statistics")
    return {n: float((b - a).norm() / a.norm()) for n, a, b in zip(names, *results, strict=True)}


# --- Where the time goes


def layers() -> None:
    """Each kind of convolution of I3D by itself, folded, bf16, batch 8: PyTorch's form and the
    kernels."""
    rows: dict[str, dict[str, float]] = {}
    for alpha in (0.0, 0.1, 0.5):
        for fused in (False, True):
            for name, ms in layer_times(alpha, fused).items():
                rows.setdefault(name, {})[f"{alpha:g}{' fused' if fused else ''}"] = ms
    columns = list(next(iter(rows.values())))
    print("| layer | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[column]:.4f}" for column in columns) + " |")


def layer_times(alpha: float, fused: bool) -> dict[str, float]:
    """Milliseconds of the first two blocks' layers in each stage, with the inputs that they see in
    the network."""
    import torch

    from octvideo import create_model
    from octvideo.deploy.fold import fold_batch_norm
    from octvideo.layers.fused import fuse
    from octvideo.models.blocks import ConvNorm

    model = fuse(fold_batch_norm(create_model("i3d_r50", alpha=alpha)).cuda().bfloat16(), fused)
    inputs: dict[Any, tuple[Any, Any]] = {}

    def remember(module: Any, args: Any, kwargs: Any) -> None:
        inputs.setdefault(module, (args, kwargs))

    for module in model.modules():
        if isinstance(module, ConvNorm):
            module.register_forward_pre_hook(remember, with_kwargs=True)
    x = torch.randn(8, 3, 8, 224, 224, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        model(x.contiguous(memory_format=torch.channels_last_3d))
        names = {
            module: name
            for name, module in model.named_modules()
            if name.split(".")[1:2] < ["block2"]
        }
        return {
            names[module]: graph_ms(partial(module.forward, *args, **kwargs))
            for module, (args, kwargs) in inputs.items()
            if module in names
        }


def graph_ms(call: Callable[[], object], repeat: int = 10) -> float:
    import torch

    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeat):
            call()
    best = float("inf")
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / repeat)
    return best


def profile(case: Case) -> None:
    """The kernels of one step by their time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    call, _ = step_of(case)
    with torch_profile(activities=[ProfilerActivity.CUDA]) as record:
        call()
    print(case)
    events = [e for e in record.key_averages() if e.self_device_time_total > 0]
    total = sum(e.self_device_time_total for e in events)
    print(f"{total / 1e3:.2f} ms in {sum(e.count for e in events)} kernels")
    for e in sorted(events, key=lambda e: -e.self_device_time_total)[:24]:
        print(f"{e.self_device_time_total / 1e3:8.3f} ms {e.count:5d}  {e.key[:110]}")


# --- The parent


class Worker:
    """A child process and what it says."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.log = (folder / "log.txt").open("a")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--case", json.dumps(asdict(case))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "4"},
        )  # fmt: skip
        self.said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.tail: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                self.said.put(json.loads(line[1:]))
            else:
                self.tail = [*self.tail[-30:], line.rstrip()]
        self.said.put(None)

    def hear(self, seconds: float) -> dict[str, Any] | None:
        try:
            return self.said.get(timeout=max(seconds, 0.1))
        except queue.Empty:
            return None

    def measure(self, calls: int) -> float | None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{calls}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        answer = self.hear(30)
        return answer["ms"] if answer else None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def why(self) -> str:
        return next((line for line in reversed(self.tail) if line.strip()), "no word")


def measure_wave(cases: list[Case], folder: Path, deadline: float) -> list[dict[str, Any]]:
    """Start all, wait until they are ready, measure in turns. Failures are rows with a reason."""
    workers = [Worker(case, folder) for case in cases if case.form != "fused"]
    compile_kernels([case for case in cases if case.form == "fused"], deadline - 60)
    workers += [Worker(case, folder) for case in cases if case.form == "fused"]
    ready: list[tuple[Worker, dict[str, Any]]] = []
    rows = []
    for worker in workers:
        answer = worker.hear(deadline - 25 - time.time())
        if answer is None:
            late = worker.process.poll() is None
            worker.stop()
            rows.append(
                {**asdict(worker.case), "error": "not ready in time" if late else worker.why()}
            )
            with (folder / "errors.txt").open("a") as file:
                file.write(f"{worker.case}\n" + "\n".join(worker.tail) + "\n\n")
        else:
            ready.append((worker, answer))
    times: list[list[float]] = [[] for _ in ready]
    calls = [_calls(worker.measure(2)) for worker, _ in ready]
    for _ in range(ROUNDS):
        for i, (worker, _) in enumerate(ready):
            ms = worker.measure(calls[i])
            if ms is not None:
                times[i].append(ms)
        rows_now = rows + [
            _row(w, answer, ms) for (w, answer), ms in zip(ready, times, strict=True) if ms
        ]
        (folder / "table.md").write_text(table(rows_now) + "\n")
        if time.time() > deadline:
            break
    for worker, _ in ready:
        worker.stop()
    with (folder / "times.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows_now)
    return rows_now


def _calls(ms: float | None) -> int:
    """So many that a round of a case takes 60 ms."""
    return max(3, min(100, round(60 / (ms or 20))))


def _row(worker: "Worker", answer: dict[str, Any], ms: list[float]) -> dict[str, Any]:
    said = {key: value for key, value in answer.items() if key != "ready"}
    return {**asdict(worker.case), "ms": median(ms), "low": min(ms), "high": max(ms), **said}


def compile_kernels(cases: list[Case], deadline: float) -> None:
    """Let many processes compile the kernels that the cases will need, each some of their tiles."""
    distinct = {(case.model, case.alpha, case.train): case for case in cases}
    processes = []
    for case in distinct.values():
        parts = 3 if case.train else 2
        for part in range(parts):
            command = [
                sys.executable,
                __file__,
                "--warm",
                json.dumps(asdict(case)),
                str(part),
                str(parts),
            ]
            processes.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
    for process in processes:
        try:
            process.wait(max(deadline - time.time(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
    print(
        f"kernels compiled, {sum(p.returncode == 0 for p in processes)} of {len(processes)}",
        flush=True,
    )


HEADER = (
    "network", "batch", "what", "form", "alpha", "ms (low-high)", "clips/s", "GB", "TFLOP/s", "TB/s", "of the roofline",
    "to vanilla, same form", "to vanilla at its best", "verdict",
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """A line per case, and a line per failure."""
    done = [row for row in rows if "ms" in row]
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for row in sorted(
        done, key=lambda r: (r["model"], r["batch"], not r["train"], treatment(r), r["alpha"])
    ):
        lines.append("| " + " | ".join(_cells(row, done)) + " |")  # noqa: PERF401
    failed = [f"not measured: {group(row)} {treatment(row)} alpha {row['alpha']:g}: {row['error']}"
              for row in rows if "error" in row]  # fmt: skip
    return "\n".join(lines + failed)


def _cells(row: dict[str, Any], done: list[dict[str, Any]]) -> list[str]:
    vanilla = [
        r for r in done if group(r) == group(row) and r["alpha"] == 0 and r["source"] == "octvideo"
    ]
    own = next((r["ms"] for r in vanilla if treatment(r) == treatment(row)), None)
    best = min((r["ms"] for r in vanilla), default=None)
    ms = row["ms"]

    def over(key: str, digits: int, scale: float = 1.0) -> str:
        return f"{scale * row[key] / ms:.{digits}f}" if key in row else ""

    return [
        row["model"], str(row["batch"]), "training" if row["train"] else "inference", treatment(row),
        f"{row['alpha']:g}", f"{ms:.2f} ({row['low']:.2f}-{row['high']:.2f})", f"{1e3 * row['batch'] / ms:.0f}",
        f"{row['peak_gb']:.1f}", over("tflop", 0, 1e3), over("gb", 2), over("predicted_ms", 2),
        _ratio(ms, own), _ratio(ms, best), _verdict(row, best),
    ]  # fmt: skip


def _verdict(row: dict[str, Any], best: float | None) -> str:
    """In the reader's words; a difference within the spread of the rounds is none."""
    if best is None or row["ms"] == best:
        return ""
    if row["source"] != "octvideo":
        return f"ours is {row['ms'] / best:.2f} times as fast"
    if not row["alpha"]:
        return ""
    if row["high"] < best:
        return f"the octave pays: {1 - row['ms'] / best:.0%} less time"
    return "cannot tell" if row["low"] < best else "the octave does not pay"


def group(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["train"], row["batch"]


def treatment(row: dict[str, Any]) -> str:
    fields = {k: row[k] for k in Case.__dataclass_fields__}
    return Case(**fields).treatment


def _ratio(ms: float, base: float | None) -> str:
    return "" if base is None else f"{ms / base:.3f}"


def measure(cases: list[Case], folder: Path, deadline: float) -> list[dict[str, Any]]:
    """All cases, a wave after another while there is time; the table is written after each."""
    rows: list[dict[str, Any]] = []
    for wave in waves(cases, PROCESSES):
        if time.time() > deadline - 60:
            break
        rows += measure_wave(wave, folder, min(deadline, time.time() + WAVE_SECONDS))
        (folder / "table.md").write_text(table(rows) + "\n")
        print(f"{len(rows)} of {len(cases)} cases, {deadline - time.time():.0f} s left", flush=True)
    return rows


def failed_checks(folder: Path) -> list[str]:
    lines = (folder / "checks.jsonl").read_text().splitlines()
    said = [json.loads(line[1:]) for line in lines if line.startswith("@")]
    failures = [f"wrong on this GPU: {check}" for check in said if not check["ok"]]
    return failures if said else ["no check ended; DIR/checks.jsonl says why"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=8, help="spend at most so many (default: 8)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("gpu"), help="folder for what is measured (default: gpu)"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        help="words that a case must contain: i3d_r50 fused training",
    )
    parser.add_argument("--check", action="store_true", help="only whether results are right")
    parser.add_argument(
        "--layers", action="store_true", help="only the layers of I3D by themselves"
    )
    parser.add_argument(
        "--profile", metavar="CASE", help='only the kernels of one case, as JSON: {"model": ...}'
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--warm", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        child(Case(**json.loads(args.case)))
    elif args.warm:
        warm(Case(**json.loads(args.warm[0])), int(args.warm[1]), int(args.warm[2]))
    elif args.profile:
        profile(Case(**json.loads(args.profile)))
    elif args.check or args.layers:
        (check if args.check else layers)()
    else:
        return run(args.minutes, args.out, args.only)
    return 0


def run(minutes: float, folder: Path, words: list[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + 60 * minutes
    print(environment(), flush=True)
    with (folder / "checks.jsonl").open("w") as file:
        checks = subprocess.Popen([sys.executable, __file__, "--check"], stdout=file, stderr=file)
        cases = list(plan())
        for word in words:
            cases = [case for case in cases if word in case.label]
        rows = measure(cases, folder, deadline)
        try:
            checks.wait(max(deadline - time.time(), 1))
        except subprocess.TimeoutExpired:
            checks.kill()
    failures = failed_checks(folder)
    print(table(rows), *failures, sep="\n")
    return 1 if failures else 0


def environment() -> str:
    import torch

    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU here; benchmarks/predict_gpu.py tells what to expect of one")
    card, cudnn = torch.cuda.get_device_name(), torch.backends.cudnn.version()
    return f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}"


if __name__ == "__main__":
    sys.exit(main())
