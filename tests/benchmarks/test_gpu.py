"""What the GPU benchmark plans and says; what it measures needs a GPU."""

import importlib.util
import json
import subprocess
import sys

import pytest

NOT_ON_A_GPU_MACHINE = ["av", "fvcore", "iopath", "matplotlib", "tqdm", "yacs", "yaml"]


@pytest.fixture(scope="module")
def gpu(repo):
    spec = importlib.util.spec_from_file_location("gpu_benchmark", repo / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(gpu, alpha, form="fused", ms=(1.0, 1.1, 0.9), **fields):
    case = gpu.asdict(gpu.Case("i3d_r50", alpha, False, form, **fields))
    return {**case, "ms": ms[0], "high": ms[1], "low": ms[2], "peak_gb": 1.0}


def cells(gpu, rows, of):
    return dict(zip(gpu.HEADER, gpu._cells(of, rows), strict=True))


def test_what_is_wanted_most_is_measured_first(gpu):
    plan = list(gpu.plan())

    first = plan[:10]
    assert {case.alpha for case in first} == {0.0, 0.1, 0.2, 0.5}
    assert {(case.model, case.batch) for case in first} == {("i3d_r50", 8)}
    assert len(plan) == len(set(plan))


def test_every_network_at_every_alpha_is_in_the_plan(gpu):
    seen = {(case.model, case.alpha, case.train) for case in gpu.plan()}

    models = ("i3d_r50", "c2d_r50", "i3d_nln_r50", "slowfast_r50")
    assert seen == {(m, a, t) for m in models for a in gpu.ALPHAS for t in (True, False)}


def test_a_case_is_held_to_vanilla_at_its_best_and_to_its_own_form(gpu):
    vanilla, compiled = row(gpu, 0.0, ms=(2.0, 2.0, 2.0)), row(gpu, 0.0, "compiled")
    octave = row(gpu, 0.5, ms=(0.8, 0.81, 0.79))

    found = cells(gpu, [vanilla, compiled, octave], octave)

    assert found["to vanilla, same form"] == "0.400"
    assert found["to vanilla at its best"] == "0.800"
    assert found["verdict"] == "the octave pays: 20% less time"


@pytest.mark.parametrize(
    ("ms", "verdict"),
    [((1.2, 1.3, 1.1), "the octave does not pay"), ((0.99, 1.02, 0.97), "cannot tell")],
)
def test_a_difference_within_the_spread_is_none(gpu, ms, verdict):
    vanilla, octave = row(gpu, 0.0), row(gpu, 0.5, ms=ms)

    assert cells(gpu, [vanilla, octave], octave)["verdict"] == verdict


def test_another_batch_size_is_not_compared(gpu):
    vanilla, octave = row(gpu, 0.0, batch=32), row(gpu, 0.5)

    assert cells(gpu, [vanilla, octave], octave)["to vanilla at its best"] == ""


def test_rates_follow_from_what_the_roofline_counts(gpu):
    octave = row(gpu, 0.5, ms=(2.0, 2.0, 2.0)) | {"tflop": 0.5, "gb": 4.0, "predicted_ms": 1.0}

    found = cells(gpu, [octave], octave)

    assert (found["TFLOP/s"], found["TB/s"], found["of the roofline"]) == ("250", "2.00", "0.50")


def test_what_was_not_measured_is_listed_with_its_cause(gpu):
    case = gpu.asdict(gpu.Case("i3d_r50", 0.5, True, "compiled"))

    assert "alpha 0.5: out of memory" in gpu.table([{**case, "error": "out of memory"}])


def test_a_wrong_result_and_a_check_that_never_ended_are_failures(gpu, tmp_path):
    checks = [{"check": "i3d", "ok": True}, {"check": "slowfast", "ok": False, "logits": 0.5}]
    file = tmp_path / "checks.jsonl"

    file.write_text("noise\n" + "".join(f"@{json.dumps(check)}\n" for check in checks))
    assert len(gpu.failed_checks(tmp_path)) == 1
    file.write_text("Traceback ...\n")
    assert "no check ended" in gpu.failed_checks(tmp_path)[0]


def test_without_a_gpu_it_says_so_in_one_line(gpu, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(SystemExit, match="PyTorch finds no GPU here"):
        gpu.environment()


@pytest.mark.parametrize("words", [[], ["i3d_r50", "inference"]])
def test_the_cases_that_were_asked_for_are_measured(gpu, tmp_path, monkeypatch, words):
    asked = []
    monkeypatch.setattr(gpu, "environment", lambda: "a GPU")
    monkeypatch.setattr(gpu, "measure_wave", lambda wave, *rest: asked.extend(wave) or [])
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda *args, **kwargs: Checks())

    gpu.run(60, tmp_path, words)

    assert asked == [case for case in gpu.plan() if all(word in case.label for word in words)]


class Checks:
    def wait(self, seconds):
        return 0


def test_a_gpu_machine_needs_torch_and_numpy_alone(repo):
    """What a case and a check import and compute, on a CPU and with nothing else installed."""
    script = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_ON_A_GPU_MACHINE}))
sys.path.insert(0, {str(repo / "benchmarks")!r})
import torch
for owner in (torch.Tensor, torch.nn.Module):
    owner.cuda = lambda self, *args, **kwargs: self
to = torch.Tensor.to
torch.Tensor.to = lambda x, *args, **kwargs: to(x, *("cpu" if a == "cuda" else a for a in args), **kwargs)
torch.cuda.get_device_name = lambda: "NVIDIA H100 80GB HBM3"
import gpu
case = gpu.Case("c2d_r26", 0.5, True, "compiled", 1)
assert gpu.predicted(case)
for train in (True, False):
    step = gpu._training if train else gpu._inference
    model, x = gpu.network_of(case).train(train), torch.randn(1, 3, 2, 96, 96)
    randint = torch.randint
    torch.randint = lambda *args, device=None: randint(*args)
    step(case, model, x, eager=True)()
import octvideo
create = octvideo.create_model
octvideo.create_model = lambda *args, **options: create(*args, **options | {{"width_per_group": 16}})
for form in ("fp32 2D", "bf16"):
    assert gpu.network_errors("c2d_r26", 0.5, form)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )

    assert not ended.returncode, ended.stderr
