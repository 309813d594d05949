"""Optimizers and learning rates. A schedule is a pure function of the position in training, without
state to save."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, AdamW, Optimizer

from octvideo.errors import ConfigError


def parameter_groups(
    model: nn.Module, weight_decay: float, bn_weight_decay: float = 0.0, zero_decay_1d: bool = False
) -> list[dict[str, object]]:
    """Trainable parameters by weight decay: batch norms, other vectors (with zero_decay_1d), and
    the rest. names: theirs, which tell moments apart when a run goes on with other groups."""
    norm = {
        id(p)
        for m in model.modules()
        if isinstance(m, _BatchNorm)
        for p in m.parameters(recurse=False)
    }
    groups: dict[float, dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if zero_decay_1d and parameter.ndim <= 1 else weight_decay
            decay = bn_weight_decay if id(parameter) in norm else decay
            groups.setdefault(decay, {})[name] = parameter
    return [
        {"params": list(named.values()), "weight_decay": decay, "names": list(named)}
        for decay, named in groups.items()
    ]


# Class and the options it takes, by its name in SOLVER.OPTIMIZING_METHOD.
OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], tuple[str, ...]]] = {
    "sgd": (SGD, ("momentum", "dampening", "nesterov", "fused")),
    "adamw": (AdamW, ("betas", "fused")),
}
OPTIONS = {"names", *signature(SGD).parameters, *signature(AdamW).parameters} - {"params", "lr"}


def make_optimizer(
    model: nn.Module,
    *,
    method: str = "sgd",
    lr: float,
    momentum: float = 0.9,
    dampening: float = 0.0,
    nesterov: bool = True,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 1e-4,
    bn_weight_decay: float = 0.0,
    zero_decay_1d: bool = False,
    fused: bool = True,
) -> Optimizer:
    """method: a key of `OPTIMIZERS`, which lists the options of each. Raises ConfigError for an
    unknown method.

    fused: on a GPU, one kernel updates all parameters. The model is on its device.
    """
    if method not in OPTIMIZERS:
        raise ConfigError(f"there is no optimizer {method!r}; there are {', '.join(OPTIMIZERS)}")
    groups = parameter_groups(model, weight_decay, bn_weight_decay, zero_decay_1d)
    on_gpu = all(p.is_cuda for p in model.parameters() if p.requires_grad)
    optimizer, names = OPTIMIZERS[method]
    given = {
        "momentum": momentum,
        "dampening": dampening,
        "nesterov": nesterov,
        "betas": betas,
        "fused": True if fused and on_gpu and groups else None,
    }
    return optimizer(groups, lr=lr, **{name: given[name] for name in names})


def name_groups(optimizer: Optimizer, model: nn.Module) -> None:
    """Give the groups of another's optimizer the names of their parameters, as `parameter_groups`
    does; not a group with parameters that `model` does not have."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        if "names" not in group and all(id(p) in names for p in group["params"]):
            group["names"] = [names[id(p)] for p in group["params"]]


def check_order(state: dict[str, Any], names: Iterable[str], model: nn.Module) -> None:
    """Raises ValueError for a state without names of parameters that had another order.

    names: of the network's state when it was saved, in its order.
    """
    now = [name for name, _ in model.named_parameters()]
    then = [name for name in names if name in set(now)]
    if then != now and not all("names" in group for group in state["param_groups"]):
        raise ValueError("the optimizer's state has no names, and its parameters another order")


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load moments, learning rate and what else an optimizer keeps from `state`; weight decay, with
    the groups that it makes, and other options of torch's optimizers are those of this run.

    Raises ValueError, as torch does, for the state of other parameters.
    """
    now, saved = optimizer.param_groups, state["param_groups"]
    are_named = all("names" in group for group in (*now, *saved))
    if are_named and isinstance(state.get("state"), dict):
        state = _regrouped(optimizer, state)
    elif are_named and [group["names"] for group in now] != [group["names"] for group in saved]:
        raise ValueError("the optimizer's state is of parameters in another order")
    elif len(now) == len(saved):  # of a version that kept no names, or of a form of its own
        groups = [_continued(*pair) for pair in zip(now, saved, strict=True)]
        state = {**state, "param_groups": groups}
    optimizer.load_state_dict(state)


def _continued(group: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """A group with this run's options and the rest of a saved one: some optimizers keep state
    there, as Prodigy its step size."""
    return group | {name: value for name, value in saved.items() if name not in OPTIONS}


def _regrouped(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The state in the groups and with the options of `optimizer`."""
    saved = state["param_groups"]
    numbers = {
        name: number
        for group in saved
        for name, number in zip(group["names"], group["params"], strict=True)
    }
    groups = optimizer.state_dict()["param_groups"]
    names = [name for group in groups for name in group["names"]]
    if set(names) != numbers.keys():
        raise ValueError("the optimizer's state is of other parameters")
    moments = {
        place: state["state"][numbers[name]]
        for place, name in enumerate(names)
        if numbers[name] in state["state"]
    }
    of_none = {k: v for k, v in state["state"].items() if k not in numbers.values()}
    same = {tuple(group["names"]): group for group in saved}
    rate = {"lr": saved[0]["lr"]}
    groups = [
        _continued(group, same.get(tuple(group["names"]), rate)) | {"params": group["params"]}
        for group in groups
    ]
    return {**state, "state": moments | of_none, "param_groups": groups}


def scale_lr(lr: float, batch_size: int, base_batch_size: int) -> float:
    """Linear scaling: `lr` was found for base_batch_size (0: no scaling). (Goyal et al. 2017.)"""
    return lr * batch_size / base_batch_size if base_batch_size else lr


@dataclass(frozen=True)
class Schedule:
    """Learning rate over training. All positions count epochs, or optimizer steps if
    `per_iteration`.

    cosine: base_lr -> end_lr on half a period over `length`.
    steps_with_relative_lrs: base_lr * lrs[i] from position steps[i] on; steps[0] is 0. Over the
    first `warmup` positions it rises in a line from warmup_start_lr to the rate at the end of
    warm-up.
    """

    policy: str
    base_lr: float
    length: float
    end_lr: float = 0.0
    steps: Sequence[float] = (0,)
    lrs: Sequence[float] = (1.0,)
    warmup: float = 0.0
    warmup_start_lr: float = 0.0
    per_iteration: bool = False

    def __post_init__(self) -> None:
        if self.policy not in SCHEDULES:
            raise ConfigError(
                f"there is no schedule {self.policy!r}; there are {', '.join(SCHEDULES)}"
            )

    def lr(self, position: float) -> float:
        policy = SCHEDULES[self.policy]
        if position < self.warmup:
            start, end = self.warmup_start_lr, policy(self, self.warmup)
            return start + (end - start) * position / self.warmup
        return policy(self, position)


def cosine(schedule: Schedule, position: float) -> float:
    height = (1 + math.cos(math.pi * position / schedule.length)) / 2
    return schedule.end_lr + (schedule.base_lr - schedule.end_lr) * height


def steps_with_relative_lrs(schedule: Schedule, position: float) -> float:
    passed = sum(step <= position for step in schedule.steps)
    return schedule.base_lr * schedule.lrs[min(passed, len(schedule.lrs)) - 1]


# Rate after warm-up at a position, by its name in SOLVER.LR_POLICY.
SCHEDULES: dict[str, Callable[[Schedule, float], float]] = {
    "cosine": cosine,
    "steps_with_relative_lrs": steps_with_relative_lrs,
}


def set_lr(optimizer: Optimizer, lr: float, scale_momentum: bool = True) -> None:
    """Set the learning rate of all groups.

    torch keeps the momentum of *gradients*, so a new rate applies to past gradients at once:
    Caffe2's recipes call this momentum correction. scale_momentum=False keeps the size of past
    updates instead, as Caffe2 does without the correction.
    """
    for group in optimizer.param_groups:
        old, group["lr"] = group["lr"], lr
        if not scale_momentum and lr > 0 and old != lr:
            for parameter in group["params"]:
                buffer = optimizer.state[parameter].get("momentum_buffer")
                if isinstance(buffer, torch.Tensor):
                    buffer *= old / lr
