"""bf16 and fp16, and what becomes of losses and gradients that are not finite."""

import itertools
import json
import logging
import math

import pytest
import tiny
import torch
from trained import QUIET, assert_close, metrics

from octvideo.engine.training.state import Callbacks
from octvideo.errors import OctvideoError


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_computes_in_it_and_learns(tmp_path, dtype):
    seen = []
    model = tiny.TinyNet()
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    trainer = tiny.make_trainer(tmp_path, model=model, amp_dtype=dtype, max_epoch=4)
    trainer.train()

    assert dtype in seen
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert trainer.step.scaler.is_enabled() == (dtype == torch.float16)
    losses = [r["loss"] for r in metrics(tmp_path) if r["_type"] == "train_epoch"]
    assert losses[-1] < 0.8 * losses[0]


def test_the_scale_of_fp16_survives_a_resume(tmp_path):
    options = {"amp_dtype": torch.float16, "parts": QUIET}
    tiny.make_trainer(tmp_path / "whole", **options).train()
    tiny.make_trainer(tmp_path / "parts", **options, max_iter=6).train()
    tiny.make_trainer(tmp_path / "parts", **options).train()

    states = [
        torch.load(tmp_path / f / "checkpoints/checkpoint_epoch_00003.pyth")
        for f in ("whole", "parts")
    ]
    assert states[0]["scaler_state"] == states[1]["scaler_state"]
    assert_close(states[0]["model_state"], states[1]["model_state"], 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, torch.float16), (torch.bfloat16, torch.float16), (torch.float16, None)],
)
def test_a_run_goes_on_in_another_precision(tmp_path, before, after):
    tiny.make_trainer(tmp_path, amp_dtype=before, max_epoch=1).train()
    trainer = tiny.make_trainer(tmp_path, amp_dtype=after, max_epoch=2)

    assert trainer.train().epochs == 2
    assert trainer.step.scaler.is_enabled() == (after == torch.float16)


class Poisoned(tiny.TinyLoader):
    """A loss that is not a number from some clips on: their class is outside the network's."""

    def __init__(self, bad):
        super().__init__(batch_size=8)
        self.bad = bad

    def epoch(self, epoch, start_sample=0):
        for number, batch in enumerate(super().epoch(epoch, start_sample), start_sample // 8):
            if (epoch, number) in self.bad:
                batch.inputs[0, 0, 0, 0, 0] = 255
            yield batch


def poison(inputs):
    """The one clip that is marked becomes infinite."""
    floats = tiny.prepare(inputs)
    marked = inputs[:, 0, 0, 0, 0] == 255
    floats[marked] = math.inf
    return floats


def test_a_loss_that_is_not_finite_names_its_files_and_the_last_checkpoint(tmp_path):
    trainer = tiny.make_trainer(tmp_path, loader=Poisoned({(1, 2)}), parts={"prepare": poison})

    with pytest.raises(OctvideoError) as error:
        trainer.train()

    message = str(error.value)
    assert message.startswith(
        "the loss is not finite at epoch 2, iteration 3, files clip_16.mp4, clip_17.mp4, "
    )
    assert f"last checkpoint: {tmp_path}/checkpoints/checkpoint_epoch_00001.pyth; lower" in message
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_mixed_precision_skips_such_a_step_counts_it_and_goes_on(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    trainer = tiny.make_trainer(
        tmp_path,
        loader=Poisoned({(0, 1), (1, 2)}),
        parts={"prepare": poison},
        amp_dtype=torch.bfloat16,
    )

    assert trainer.train().finished
    assert [r["skipped"] for r in metrics(tmp_path) if r["_type"] == "train_epoch"] == [1, 2, 2]
    assert "files clip_8.mp4" in caplog.text
    assert all(buffer.isfinite().all() for buffer in trainer.model.buffers())


def test_skipped_steps_with_one_between_them_are_not_in_a_row(tmp_path):
    trainer = tiny.make_trainer(
        tmp_path,
        loader=Poisoned({(0, 1), (0, 3)}),
        parts={"prepare": poison},
        amp_dtype=torch.bfloat16,
        max_skipped=1,
    )

    assert trainer.train().finished


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_skipped_step_leaves_weights_and_statistics_as_they_were(tmp_path, fault):
    model = tiny.TinyNet()
    parts = {"prepare": poison} if fault == "loss" else {}
    loader = Poisoned({(0, 1)} if fault == "loss" else set())
    trainer = tiny.make_trainer(
        tmp_path, model=model, loader=loader, parts=parts, amp_dtype=torch.bfloat16
    )
    first, second, *_ = trainer.loader.epoch(0)
    trainer.step([first], 0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if fault == "gradient":
        model[-1].weight.register_hook(lambda gradient: gradient * math.inf)

    outcome = trainer.step([second], 0.1)

    assert outcome.trouble == fault
    assert {
        name for name in before if not torch.equal(before[name], model.state_dict()[name])
    } == set()


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_an_infinite_gradient_is_not_clipped_to_a_finite_one(tmp_path, dtype):
    model = tiny.TinyNet()
    trainer = tiny.make_trainer(tmp_path, model=model, amp_dtype=dtype, clip_grad_value=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model[-1].weight.register_hook(lambda gradient: gradient * math.inf)

    outcome = trainer.step([next(trainer.loader.epoch(0))], 0.1)

    assert outcome.trouble == "gradient"
    assert not math.isfinite(outcome.grad_norm)
    assert not trainer.optimizer.state
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_a_window_whose_steps_were_all_skipped_has_no_loss(tmp_path):
    steps = []
    tiny.make_trainer(
        tmp_path,
        loader=Poisoned({(0, 2), (0, 3)}),
        parts=QUIET | {"prepare": poison, "callbacks": Callbacks(on_step=steps.append)},
        amp_dtype=torch.bfloat16,
        max_epoch=1,
    ).train()

    first, skipped, last = (r for r in metrics(tmp_path) if r["_type"] == "train_iter")
    for name in ("loss", "top1_err", "top5_err", "grad_norm"):
        assert skipped[name] is None
        assert isinstance(first[name], float)
        assert isinstance(last[name], float)
        assert [math.isnan(step[name]) for step in steps] == [False] * 2 + [True] * 2 + [False] * 2


def test_an_infinite_gradient_leaves_metrics_that_are_json(tmp_path):
    steps = []
    trainer = tiny.make_trainer(
        tmp_path,
        parts=QUIET | {"callbacks": Callbacks(on_step=steps.append)},
        amp_dtype=torch.bfloat16,
        max_epoch=1,
        log_period=1,
    )
    calls = itertools.count(1)
    trainer.model[-1].weight.register_hook(
        lambda gradient: gradient * (math.inf if next(calls) == 3 else 1)
    )

    trainer.train()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [records[2][name] for name in ("grad_norm", "loss")] == [None, None]
    assert not math.isfinite(steps[2]["grad_norm"])
    assert math.isfinite(steps[2]["loss"])


@pytest.mark.parametrize("amp_dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_skips_a_gradient_that_is_not_finite(tmp_path, amp_dtype):
    model = tiny.TinyNet()
    calls = itertools.count(1)
    model[-1].weight.register_hook(
        lambda gradient: gradient * (math.inf if next(calls) == 3 else 1)
    )
    trainer = tiny.make_trainer(tmp_path, model=model, amp_dtype=amp_dtype, max_epoch=1)

    trainer.train()

    assert [r["skipped"] for r in metrics(tmp_path) if r["_type"] == "train_epoch"] == [1]
    assert all(p.isfinite().all() for p in model.parameters())


def test_fp16_halves_its_scale_at_an_overflow_and_keeps_the_weights(tmp_path):
    trainer = tiny.make_trainer(tmp_path, amp_dtype=torch.float16, max_epoch=1, parts=QUIET)
    calls, history = itertools.count(1), []
    trainer.model[-1].weight.register_hook(
        lambda gradient: gradient * (math.inf if next(calls) == 3 else 1)
    )
    trainer.report = lambda lr, norm: history.append(
        (trainer.step.scaler.get_scale(), trainer.model[0].weight.clone())
    )
    first = trainer.step.scaler.get_scale()

    trainer.train()

    assert [scale / first for scale, _ in history] == [1, 1, 0.5, 0.5, 0.5, 0.5]
    changes = [not torch.equal(one, other) for (_, one), (_, other) in itertools.pairwise(history)]
    assert changes == [True, False, True, True, True]
    assert trainer.progress.skipped == 1


def test_full_precision_stops_at_a_gradient_that_is_not_finite(tmp_path):
    model = tiny.TinyNet()
    model[-1].weight.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(
        OctvideoError,
        match=r"the gradient is not finite at epoch 1, iteration 1, files clip_0\.mp4",
    ):
        tiny.make_trainer(tmp_path, model=model).train()

    assert all(p.isfinite().all() for p in model.parameters())


def test_mixed_precision_stops_when_nothing_but_skipping_is_left(tmp_path):
    loader = Poisoned({(0, n) for n in range(1, 6)})
    trainer = tiny.make_trainer(
        tmp_path, loader=loader, parts={"prepare": poison}, amp_dtype=torch.bfloat16, max_skipped=2
    )

    with pytest.raises(OctvideoError, match="at epoch 1, iteration 4"):
        trainer.train()


def test_a_first_step_that_fp16_skips_leaves_no_momentum(tmp_path):
    trainer = tiny.make_trainer(tmp_path, amp_dtype=torch.float16, parts=QUIET)
    parameters = list(trainer.model.parameters())
    trainer.step.optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True)
    trainer.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)

    outcome = trainer.step([next(trainer.loader.epoch(0))], lr=0.1)

    assert outcome.trouble == "gradient"
    assert trainer.step.scaler.get_scale() == 2.0**99
    assert not any(
        state.get("momentum_buffer") is not None for state in trainer.step.optimizer.state.values()
    )
