"""An optimized network and its recognizer belong to any number of threads, and can be sent to
another process."""

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import octvideo
from octvideo.deploy.engines import Compiled, Eager
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.graphed import Graphed
from octvideo.deploy.openvino import convert
from octvideo.errors import ConfigError

# What torch's exporters and compiler say about themselves.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)

SHAPES = ((1, 3, 4, 16, 16), (2, 3, 4, 16, 16), (3, 3, 4, 16, 16), (4, 3, 4, 16, 16))


@pytest.fixture
def small() -> nn.Module:
    pooled = (nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5))
    return nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), *pooled).eval()


def test_a_request_is_never_shared_by_two_calls(small, monkeypatch):
    fast = convert(small, torch.randn(SHAPES[0]))
    inside, all_inside = [], threading.Barrier(4, timeout=30)
    take = fast._take_request

    def slowly(shape):
        request = take(shape)
        inside.append(id(request))
        all_inside.wait()
        return request

    monkeypatch.setattr(fast, "_take_request", slowly)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fast, torch.randn(4, *SHAPES[0])))

    assert len(set(inside)) == 4


def test_a_network_is_compiled_for_the_threads_of_where_it_was_made(small):
    torch.set_num_threads(2)
    fast = convert(small, torch.randn(SHAPES[0]))
    torch.set_num_threads(1)

    fast(torch.randn(SHAPES[0]))

    (compiled,) = fast._compiled.values()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2


def make(engine: str, model: nn.Module, example: torch.Tensor) -> nn.Module:
    """The engine without its search for the fastest form."""
    return convert(model, example) if engine == "openvino" else Compiled(model)


@pytest.mark.parametrize("kind", [Eager, Compiled, Graphed])
def test_an_engine_inside_a_module_that_is_trained_stays_in_evaluation(kind, small):
    model = nn.Sequential(small, nn.Dropout(0.5))
    x = torch.randn(SHAPES[0])
    around = nn.ModuleList([kind(fold_batch_norm(model))]).train()

    assert around[0].training
    for engine in (around[0], copy.deepcopy(around)[0].train(), kind(model.train())):
        assert not any(part.training for part in engine.model.modules())
    torch.testing.assert_close(Eager(around[0].model)(x), model.eval()(x))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_eight_threads_with_four_shapes_get_the_outputs_of_one(engine, small):
    clips = [torch.randn(SHAPES[number % 4]) for number in range(160)]
    with torch.no_grad():
        expected = [small(x) for x in clips]
    fast = make(engine, small, clips[0])

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(fast, clips))

    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_an_optimized_network_is_pickled(engine, small):
    x = torch.randn(SHAPES[1])
    fast = make(engine, small, x)
    expected = fast(x)

    again = pickle.loads(pickle.dumps(fast))

    torch.testing.assert_close(again(x), expected)


def test_a_pickle_of_the_version_before_which_knew_no_number_of_frames_computes(small):
    x = torch.randn(SHAPES[0])
    fast = convert(small, x)
    again = type(fast).__new__(type(fast))

    again.__setstate__({**fast.__getstate__(), "size": (16, 16)})

    torch.testing.assert_close(again(x), fast(x))
    with pytest.raises(ConfigError, match="input is 16 x 8, the network was optimized for 16 x 16"):
        again(x[..., :8])


@pytest.fixture(scope="module")
def recognizers(tiny_checkpoint):
    """The recognizer as it is loaded, and optimized. (Engines are made without their search, which
    takes long.)"""
    plain, fast = (octvideo.load(tiny_checkpoint, device="cpu") for _ in range(2))
    fast._score = convert(fast._score, torch.rand(1, 3, 4, 32, 32))
    return {"eager": plain, "openvino": fast}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_threads_that_share_a_recognizer_get_their_own_answers(recognizers, engine):
    recognizer = recognizers[engine]
    rng = np.random.default_rng(0)
    videos = [rng.integers(0, 256, (12, 36, 36 + i, 3), np.uint8) for i in range(6)]
    jobs = [(video, views) for views in ("1x1", "2x1", "1x3", "2x3") for video in videos]
    expected = [recognizer.scores(video, views=views) for video, views in jobs]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda job: recognizer.scores(job[0], views=job[1]), jobs * 3))

    for ours, theirs in zip(found, expected * 3, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_optimized_recognizer_is_sent_to_another_process(recognizers, tmp_path):
    recognizer = recognizers["openvino"]
    frames = np.random.default_rng(0).integers(0, 256, (12, 36, 40, 3), np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    (tmp_path / "recognizer.pickle").write_bytes(pickle.dumps(recognizer))

    program = (
        "import pickle, numpy as np\n"
        "recognizer = pickle.loads(open('recognizer.pickle', 'rb').read())\n"
        "np.save('scores.npy', recognizer.scores(np.load('frames.npy')))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)

    np.testing.assert_allclose(
        np.load(tmp_path / "scores.npy"), recognizer.scores(frames), rtol=1e-4, atol=1e-6
    )


def test_a_signal_is_handled_after_networks_were_freed():
    """Several runtimes of OpenVINO in a process left its thread a freed stack for signals."""
    script = """
import gc, os, signal
import torch
from octvideo.deploy.openvino import convert
from octvideo.deploy.precision import computes_bf16

computes_bf16()
x = torch.randn(1, 3, 4, 16, 16)
for _ in range(2):
    fast = convert(torch.nn.Conv3d(3, 8, 3).eval(), x)
    again = __import__("pickle").loads(__import__("pickle").dumps(fast))
    fast(x), again(x)
del fast, again
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120
    )

    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
