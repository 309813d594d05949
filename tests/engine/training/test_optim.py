"""Learning rates against PySlowFast's and Caffe2's rules; weight decay by kind of parameter."""

import copy
import math

import pytest
import torch
from torch import nn

from octvideo.config.defaults import CHOICES
from octvideo.engine.training.optim import (
    OPTIMIZERS,
    SCHEDULES,
    Schedule,
    load_optimizer_state,
    make_optimizer,
    name_groups,
    scale_lr,
    set_lr,
)
from octvideo.errors import ConfigError

KINETICS = Schedule("cosine", base_lr=0.1, length=196, warmup=34, warmup_start_lr=0.01)


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [
        (0, 0.01),
        (17, (0.01 + 0.1 * (math.cos(math.pi * 34 / 196) + 1) / 2) / 2),
        (34, 0.1 * (math.cos(math.pi * 34 / 196) + 1) / 2),
        (98, 0.05),
        (196, 0.0),
    ],
)
def test_cosine_with_warm_up_is_pyslowfast_s(epoch, lr):
    assert KINETICS.lr(epoch) == pytest.approx(lr)


def test_cosine_ends_at_its_end():
    assert Schedule("cosine", base_lr=0.1, length=10, end_lr=0.001).lr(10) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("step", "lr"),
    [(0, 0.01), (149_999, 0.01), (150_000, 0.001), (250_000, 0.0001), (299_999, 0.0001)],
)
def test_the_300k_schedule_steps_by_iteration(step, lr):
    """video-nonlocal-net: lr .01 with factors 1 / .1 / .01 for 150k / 100k / 50k iterations."""
    schedule = Schedule(
        "steps_with_relative_lrs",
        base_lr=0.01,
        length=300_000,
        steps=(0, 150_000, 250_000),
        lrs=(1, 0.1, 0.01),
        per_iteration=True,
    )

    assert schedule.lr(step) == pytest.approx(lr)


def test_a_last_step_at_the_end_keeps_the_last_rate():
    """PySlowFast's *_IN1K files: steps 0, 44, 88, 118 of 118 epochs."""
    schedule = Schedule(
        "steps_with_relative_lrs",
        base_lr=1.0,
        length=118,
        steps=(0, 44, 88, 118),
        lrs=(1, 0.1, 0.01, 0.001),
    )

    assert [schedule.lr(epoch) for epoch in (0, 43.9, 44, 88, 117.9)] == [1, 1, 0.1, 0.01, 0.01]


def test_linear_scaling_is_in_proportion_to_the_batch():
    assert scale_lr(0.1, 16, 64) == pytest.approx(0.025)
    assert scale_lr(0.1, 16, 0) == 0.1


def test_batch_norm_is_not_decayed():
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(4, 2))

    groups = make_optimizer(model, lr=0.1, weight_decay=1e-4).param_groups

    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [1e-4, 1e-4, 0, 0, 1e-4, 1e-4]


def test_biases_are_not_decayed_on_request():
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Linear(4, 2))

    groups = make_optimizer(
        model, lr=0.1, weight_decay=0.1, zero_decay_1d=True, method="adamw"
    ).param_groups

    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.1, 0, 0.1, 0]


def test_frozen_parameters_are_not_optimized():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)

    groups = make_optimizer(model, lr=0.1).param_groups

    assert sum(len(group["params"]) for group in groups) == 2


def caffe2_path(gradients, rates, momentum, correct):
    """Caffe2's Nesterov update with the rate inside the velocity; correction scales it when the
    rate changes."""
    weight, velocity, old = 0.0, 0.0, rates[0]
    for gradient, lr in zip(gradients, rates, strict=True):
        velocity *= lr / old if correct else 1
        new = momentum * velocity + lr * gradient
        weight -= (1 + momentum) * new - momentum * velocity
        velocity, old = new, lr
    return weight


@pytest.mark.parametrize("correct", [True, False])
def test_momentum_at_a_step_of_the_rate_is_caffe2_s(correct):
    gradients, rates = [1.0, -2.0, 3.0, 0.5, 1.5], [0.1, 0.1, 0.01, 0.01, 0.01]
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True)

    for gradient, lr in zip(gradients, rates, strict=True):
        set_lr(optimizer, lr, scale_momentum=correct)
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()

    assert weight.item() == pytest.approx(caffe2_path(gradients, rates, 0.9, correct), rel=1e-12)


def test_unknown_words_are_refused():
    with pytest.raises(ConfigError, match=r"there is no optimizer 'adam'; there are sgd, adamw"):
        make_optimizer(nn.Linear(2, 2), method="adam", lr=0.1)
    with pytest.raises(ConfigError, match=r"there is no schedule 'linear'; there are cosine"):
        Schedule("linear", base_lr=0.1, length=10)


@pytest.mark.parametrize("method", CHOICES["SOLVER.OPTIMIZING_METHOD"])
def test_every_optimizer_of_the_settings_is_made(method):
    optimizer = make_optimizer(nn.Linear(2, 2), method=method, lr=0.1)

    assert type(optimizer).__name__.lower() == method
    assert set(CHOICES["SOLVER.OPTIMIZING_METHOD"]) == OPTIMIZERS.keys()


@pytest.mark.parametrize("policy", CHOICES["SOLVER.LR_POLICY"])
def test_every_schedule_of_the_settings_gives_its_rate(policy):
    assert Schedule(policy, base_lr=0.1, length=10).lr(0) == pytest.approx(0.1)
    assert set(CHOICES["SOLVER.LR_POLICY"]) == SCHEDULES.keys()


def stepped(kind, fused):
    """An optimizer after two steps, and the weights that it moved."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5))
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind([weight], lr=0.1, fused=fused, **options)
    for _ in range(2):
        weight.grad = weight.detach() + 1
        optimizer.step()
    return optimizer, weight


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("saved", [None, True])
@pytest.mark.parametrize("loaded", [None, True])
def test_a_state_moves_between_fused_and_plain_optimizers(kind, saved, loaded):
    (old, old_weight), (new, new_weight) = stepped(kind, saved), stepped(kind, loaded)
    old.param_groups[0]["lr"] = 0.01
    for other in new.state[new_weight].values():
        other.zero_()

    load_optimizer_state(new, copy.deepcopy(old.state_dict()))

    assert new.param_groups[0]["fused"] == loaded
    assert new.param_groups[0]["lr"] == 0.01
    for optimizer, weight in ((old, old_weight), (new, new_weight)):
        weight.data.fill_(1)
        weight.grad = torch.ones(5)
        optimizer.step()
    torch.testing.assert_close(new_weight, old_weight)


def mixed_network():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.mark.parametrize("method", OPTIMIZERS)
@pytest.mark.parametrize(
    "other", [{"weight_decay": 0.0}, {"bn_weight_decay": 1e-4}, {"zero_decay_1d": True}], ids=str
)
def test_moments_stay_with_their_parameters_where_another_decay_makes_other_groups(method, other):
    models = mixed_network(), mixed_network()
    old = make_optimizer(models[0], lr=0.1, method=method)
    new = make_optimizer(models[1], lr=0.5, method=method, **other)
    models[0](torch.randn(4, 2)).square().sum().backward()
    old.step()

    load_optimizer_state(new, copy.deepcopy(old.state_dict()))

    for then, now in zip(*(model.parameters() for model in models), strict=True):
        for name, moment in old.state[then].items():
            assert torch.equal(new.state[now][name], moment)
    expected = make_optimizer(models[1], lr=0.1, method=method, **other).param_groups
    assert [group["weight_decay"] for group in new.param_groups] == [
        group["weight_decay"] for group in expected
    ]
    assert {group["lr"] for group in new.param_groups} == {0.1}


def test_a_state_without_names_goes_on_in_the_same_groups():
    old, new = (make_optimizer(mixed_network(), lr=lr) for lr in (0.1, 0.5))
    state = old.state_dict()
    for group in state["param_groups"]:
        del group["names"]

    load_optimizer_state(new, state)

    assert {group["lr"] for group in new.param_groups} == {0.1}


class WithOwnState(torch.optim.SGD):
    """Keeps something of all parameters, and something in its groups, as Prodigy does."""

    def __init__(self, parameters, lr=0.1, d=1.0):
        super().__init__(parameters, lr=lr, momentum=0.9)
        for group in self.param_groups:
            group["d"] = d


class Wrapped(torch.optim.SGD):
    """With a state of a form of its own, as Lookahead has one."""

    slow = 0

    def state_dict(self):
        inner = super().state_dict()
        return {"fast": inner["state"], "slow": self.slow, "param_groups": inner["param_groups"]}

    def load_state_dict(self, state):
        inner = {"state": state["fast"], "param_groups": state["param_groups"]}
        super().load_state_dict(inner)
        self.slow = state["slow"]


@pytest.mark.parametrize("is_named", [True, False])
def test_what_an_optimizer_keeps_beside_moments_goes_on(is_named):
    model = nn.Linear(2, 2)
    optimizer, other = WithOwnState(model.parameters(), d=2.0), WithOwnState(model.parameters())
    optimizer.state["global"] = 3
    for made in (optimizer, other) if is_named else ():
        name_groups(made, model)

    load_optimizer_state(other, optimizer.state_dict())

    assert other.state["global"] == 3
    assert other.param_groups[0]["d"] == 2.0


def test_a_state_of_another_form_is_the_optimizer_s_own_matter():
    model = nn.Linear(2, 2)
    optimizer, other = (Wrapped(model.parameters(), lr=lr, momentum=0.9) for lr in (0.2, 0.1))
    optimizer.slow = 5
    for made in (optimizer, other):
        name_groups(made, model)

    load_optimizer_state(other, optimizer.state_dict())
    assert (other.slow, other.param_groups[0]["lr"]) == (5, 0.2)

    turned = Wrapped([*model.parameters()][::-1], lr=0.1, momentum=0.9)
    name_groups(turned, model)
    with pytest.raises(ValueError, match="parameters in another order"):
        load_optimizer_state(turned, optimizer.state_dict())


def test_parameters_that_are_not_of_the_network_leave_their_group_without_names():
    model, other = nn.Linear(2, 2), nn.Parameter(torch.zeros(1))
    groups = [{"params": [model.bias, model.weight]}, {"params": [other]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)

    name_groups(optimizer, model)

    assert [group.get("names") for group in optimizer.param_groups] == [["bias", "weight"], None]


def test_a_state_of_parameters_of_other_names_is_refused():
    old, new = (make_optimizer(model, lr=0.1) for model in (mixed_network(), nn.Linear(2, 2)))

    with pytest.raises(ValueError, match="of other parameters"):
        load_optimizer_state(new, old.state_dict())


def test_a_state_of_other_groups_is_refused():
    optimizer, _ = stepped(torch.optim.SGD, None)
    other = make_optimizer(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), lr=0.1)

    with pytest.raises(ValueError, match="parameter group"):
        load_optimizer_state(optimizer, other.state_dict())


def test_on_a_cpu_no_optimizer_is_fused():
    assert make_optimizer(nn.Linear(2, 2), lr=0.1).param_groups[0]["fused"] is None
