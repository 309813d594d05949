"""The engine trains on a GPU: one nccl rank, mixed precision, synchronized batch norm, resume."""

import pytest
import tiny
import torch
from torch import nn

from octvideo import create_model
from octvideo.engine.distributed import Processes
from octvideo.engine.training.adapt import synchronize_batch_norm
from octvideo.engine.training.optim import make_optimizer
from octvideo.engine.training.prefetch import OnDevice
from octvideo.layers import compute_in_2d, stem_by_space_to_depth

pytestmark = pytest.mark.cuda

SMALL = {"num_classes": tiny.CLASSES, "width_per_group": 8, "width_rule": "int"}


def octave_network():
    model = create_model("i3d_r26", alpha=0.25, dropout_rate=0.2, stem_pool_padding=1, **SMALL)
    return stem_by_space_to_depth(compute_in_2d(model, True), True)


def trainer(folder, device, model=None, **options):
    torch.manual_seed(7)
    model = (tiny.TinyNet() if model is None else model).to(device)
    chosen = {"max_epoch": 2, "parts": {"validate": None}} | options
    return tiny.make_trainer(folder, model=model, procs=Processes(device=device), **chosen)


def weights(folder, epoch=2):
    path = folder / f"checkpoints/checkpoint_epoch_{epoch:05d}.pyth"
    return torch.load(path, map_location="cpu")


def assert_same(found, expected):
    for key, value in expected["model_state"].items():
        assert torch.equal(found["model_state"][key], value), key
    for index, state in expected["optimizer_state"]["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(found["optimizer_state"]["state"][index][name], value), name


class Crash(BaseException):
    """Stands for SIGKILL: nothing in the engine catches it."""


class CrashingLoader(tiny.TinyLoader):
    """Crashes before the tenth batch, in the middle of an epoch."""

    def __init__(self):
        super().__init__(batch_size=8)
        self.left = 9

    def epoch(self, epoch, start_sample=0):
        for batch in super().epoch(epoch, start_sample):
            if self.left == 0:
                raise Crash
            self.left -= 1
            yield batch


@pytest.fixture
def _deterministic(_determinism_as_before):
    from octvideo.engine.training.rng import be_deterministic

    be_deterministic()


def test_one_nccl_rank_trains_as_a_process_without_a_group(tmp_path, device):
    trainer(tmp_path / "alone", device).train()
    with tiny.group_of_one(device):
        run = trainer(tmp_path / "group", device)
        run.train()

    assert isinstance(run.step.network, nn.parallel.DistributedDataParallel)
    found, expected = weights(tmp_path / "group"), weights(tmp_path / "alone")
    for key, value in expected["model_state"].items():
        torch.testing.assert_close(found["model_state"][key], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_trains_an_octave_network(tmp_path, device, dtype):
    run = trainer(tmp_path, device, octave_network(), amp_dtype=dtype, channels_last=True)

    assert run.step.scaler.is_enabled() == (dtype == torch.float16)
    assert run.train().finished
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in run.model.parameters())


def test_an_infinite_gradient_of_float16_is_skipped_and_lowers_the_scale(tmp_path, device):
    run = trainer(tmp_path, device, amp_dtype=torch.float16)
    run.step.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)

    batch = next(iter(run.loader.epoch(0)))
    before = [p.detach().clone() for p in run.model.parameters()]
    outcome = run.step([batch], 0.1)

    assert outcome.trouble == "gradient"
    assert run.step.scaler.get_scale() < 2.0**40
    assert all(map(torch.equal, before, run.model.parameters()))


def test_synchronized_batch_norm_trains(tmp_path, device):
    model = octave_network().to(device)
    synchronize_batch_norm(model, device)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())

    with tiny.group_of_one(device):
        assert trainer(tmp_path, device, model).train().finished


@pytest.mark.parametrize("method", ["sgd", "adamw"])
@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.usefixtures("_deterministic")
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, device, method, dtype):
    options = {"method": method, "lr": 0.01, "amp_dtype": dtype, "checkpoint_minutes": 1e-9}
    trainer(tmp_path / "whole", device, **options).train()
    with pytest.raises(Crash):
        trainer(tmp_path / "parts", device, loader=CrashingLoader(), **options).train()
    trainer(tmp_path / "parts", device, **options).train()

    found, expected = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert_same(found, expected)
    assert found["scaler_state"] == expected["scaler_state"]


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_the_fused_optimizer_updates_as_the_plain_one(device, method):
    runs = {}
    for fused in (True, False):
        torch.manual_seed(0)
        model = tiny.TinyNet(dropout=0.0).to(device)
        optimizer = make_optimizer(model, lr=0.01, method=method, fused=fused)
        for _ in range(3):
            # The same gradients on both sides: those of a GPU differ a little from call to call.
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape).to(device)
            optimizer.step()
        assert bool(optimizer.param_groups[0]["fused"]) == fused
        runs[fused] = list(model.parameters())

    for found, expected in zip(runs[True], runs[False], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_batches_copied_early_arrive_whole_and_in_order(device):
    loader = tiny.TinyLoader(batches=20, batch_size=64)
    pinned = (batch.pin_memory() for batch in loader.epoch(0))
    batches, work = OnDevice(pinned, device), torch.randn(2048, 2048, device=device)

    for expected in loader.epoch(0):
        found = batches.next()
        for _ in range(4):
            work = work @ work / 2048
        batches.prefetch(2)
        assert found.inputs.device == device
        assert torch.equal(found.inputs.cpu(), expected.inputs)
        assert torch.equal(found.targets.cpu(), expected.targets)


def test_a_run_of_a_gpu_goes_on_on_a_cpu_and_back(tmp_path, device):
    for place, epochs in ((device, 1), (torch.device("cpu"), 2), (device, 3)):
        run = trainer(tmp_path, place, max_epoch=epochs)
        assert run.train().epochs == epochs

    assert all(p.isfinite().all() for p in run.model.parameters())
