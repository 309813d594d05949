"""Frozen, synchronized and recomputing modules keep names and values and do what they say."""

import pytest
import tiny
import torch
from reparametrized import pruned
from torch import nn

from octvideo.engine.training.adapt import (
    freeze,
    freeze_batch_norm,
    recompute_activations,
    synchronize_batch_norm,
)
from octvideo.errors import ConfigError


class Staged(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.ReLU())
        self.res2 = nn.Sequential(
            nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Dropout(0.3)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.res2(self.stem(x)).mean((2, 3, 4)))


@pytest.fixture
def model():
    return Staged()


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, module):
    return {
        name for name, value in module.state_dict().items() if not torch.equal(value, before[name])
    }


def test_a_frozen_stage_does_not_change_and_the_rest_does(tmp_path, model):
    frozen = freeze(model, ["stem"])
    before = snapshot(model)

    tiny.make_trainer(
        tmp_path, model=model, max_epoch=1, parts={"frozen": frozen, "validate": None}
    ).train()

    names = changed(before, model)
    assert not any(name.startswith("stem") for name in names)
    assert {"res2.0.weight", "res2.1.running_mean", "head.weight"} <= names


def test_an_unknown_stage_is_refused_with_the_nearest_name(model):
    with pytest.raises(ConfigError, match=r"no part 'res3' to freeze; did you mean res2"):
        freeze(model, ["res3"])


def test_frozen_batch_norm_does_not_change_and_convolutions_do(tmp_path, model):
    frozen = freeze_batch_norm(model)
    before = snapshot(model)

    tiny.make_trainer(
        tmp_path, model=model, max_epoch=1, parts={"frozen": frozen, "validate": None}
    ).train()

    names = changed(before, model)
    assert names == {
        "stem.0.weight",
        "stem.0.bias",
        "res2.0.weight",
        "res2.0.bias",
        "head.weight",
        "head.bias",
    }


def test_recomputed_activations_change_nothing_but_memory(tmp_path, model):
    twin = Staged()
    twin.load_state_dict(model.state_dict())
    names = list(dict(twin.named_parameters()))
    recompute_activations([twin.stem, twin.res2])

    tiny.make_trainer(tmp_path / "plain", model=model).train()
    tiny.make_trainer(tmp_path / "recomputed", model=twin).train()

    assert list(dict(twin.named_parameters())) == names
    assert changed(model.state_dict(), twin) == set()
    assert (tmp_path / "plain/metrics.jsonl").read_bytes() == (
        tmp_path / "recomputed/metrics.jsonl"
    ).read_bytes()


def test_recomputed_activations_save_less(model):
    def saved(network):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            network(torch.rand(2, 3, 4, 8, 8)).sum()
        return sum(sizes)

    before = saved(model)
    recompute_activations([model.stem, model.res2])

    assert saved(model) < 0.3 * before


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(3), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm3d(3, affine=False)]
)
def test_synchronized_batch_norm_in_one_process_is_batch_norm(norm):
    torch.manual_seed(1)
    shape = (4, 3, 5, 6, 7)[: {nn.BatchNorm1d: 3, nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}[type(norm)]]
    holder = nn.Sequential(type(norm)(3, momentum=norm.momentum, affine=norm.affine))
    synchronize_batch_norm(holder, torch.device("cpu"))

    for batch in torch.randn(3, *shape):
        torch.testing.assert_close(holder(batch), norm(batch), rtol=1e-5, atol=1e-5)

    torch.testing.assert_close(holder[0].state_dict(), norm.state_dict())
    batch = torch.randn(shape)
    torch.testing.assert_close(holder.eval()(batch), norm.eval()(batch))


def test_on_a_gpu_synchronized_batch_norm_is_torchs_own(model):
    norm = model.res2[1]

    synchronize_batch_norm(model, torch.device("cuda"))

    assert type(model.res2[1]) is nn.SyncBatchNorm
    assert model.res2[1].weight is norm.weight
    assert model.res2[1].running_mean is norm.running_mean


def test_synchronizing_keeps_the_parameters_that_an_optimizer_holds(model):
    held = list(model.parameters())

    synchronize_batch_norm(model, torch.device("cpu"))

    assert all(a is b for a, b in zip(held, model.parameters(), strict=True))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_batch_norm_that_cannot_be_synchronized_is_refused(device):
    class Ghost(nn.BatchNorm3d):
        pass

    network = nn.Sequential(nn.BatchNorm3d(3), nn.Sequential(Ghost(3)))

    with pytest.raises(ConfigError, match=r"1\.0 is a Ghost; .* BN\.NORM_TYPE batchnorm"):
        synchronize_batch_norm(network, torch.device(device))

    assert type(network[0]) is nn.BatchNorm3d


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_synchronizing_keeps_hooks_and_what_they_compute(model, device):
    norm, seen = pruned(model.res2[1]), []
    norm.register_forward_hook(lambda *_: seen.append("called"))
    before = {name: id(tensor) for name, tensor in norm.named_parameters()}

    synchronize_batch_norm(model, torch.device(device))

    model.eval()(torch.rand(2, 3, 2, 4, 4))
    assert "Sync" in type(model.res2[1]).__name__
    assert seen == ["called"]
    assert (norm.weight == 0).sum() == 2
    assert {name: id(tensor) for name, tensor in model.res2[1].named_parameters()} == before


def test_batch_norms_that_synchronize_themselves_stay():
    class NaiveSyncBatchNorm3d(nn.BatchNorm3d):
        pass

    network = nn.Sequential(nn.SyncBatchNorm(3), NaiveSyncBatchNorm3d(3))

    synchronize_batch_norm(network, torch.device("cpu"))

    assert [type(norm).__name__ for norm in network] == ["SyncBatchNorm", "NaiveSyncBatchNorm3d"]


def test_synchronizing_twice_changes_nothing(model):
    synchronize_batch_norm(model, torch.device("cpu"))
    synchronize_batch_norm(model, torch.device("cpu"))


def test_a_recomputed_module_takes_named_arguments():
    class Scaled(nn.Module):
        def forward(self, x, *, scale):
            return x * x * scale

    block, x = Scaled(), torch.ones(2, requires_grad=True)
    recompute_activations([block])

    block(x, scale=3).sum().backward()

    assert x.grad.tolist() == [6, 6]
    with torch.no_grad():
        assert block(x, scale=3).tolist() == [3, 3]
