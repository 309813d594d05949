"""Each of the trainer's options does what it says, on a network of a few hundred parameters."""

import itertools
import json
import logging
import math

import pytest
import tiny
import torch
from torch import nn

from octvideo.data.batch import Batch
from octvideo.engine.adapt import freeze_batch_norm
from octvideo.engine.losses import make_loss, mixup
from octvideo.errors import DataError, OctvideoError

QUIET = {"validate": None}


def state_of(trainer):
    trainer.train()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_close(one, other, tolerance=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance, msg=name)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_dropout():
    torch.manual_seed(0)
    return tiny.TinyNet(dropout=0)


class RowsOf(tiny.TinyLoader):
    """The batches of another loader, cut into `parts` each."""

    def __init__(self, loader, parts):
        super().__init__(loader.batches * parts)
        self.loader, self.parts = loader, parts

    def epoch(self, epoch, start_batch=0):
        for batch in self.loader.epoch(epoch, start_batch // self.parts):
            size = len(batch) // self.parts
            for rows in (slice(i, i + size) for i in range(0, len(batch), size)):
                yield Batch(batch.inputs[rows], batch.targets[rows], batch.indices[rows], batch.paths[rows])


def test_training_lowers_the_loss_and_writes_what_it_did(tmp_path):
    summary = tiny.make_trainer(tmp_path, max_epoch=4).train()

    records = metrics(tmp_path)
    losses = [r["loss"] for r in records if r["_type"] == "train_epoch"]
    assert losses[-1] < 0.7 * losses[0]
    assert summary.finished
    assert summary.best == min(r["top1_err"] for r in records if r["_type"] == "val_epoch")
    assert [r["step"] for r in records if r["_type"] == "train_iter"][:3] == [2, 4, 6]
    timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert timing[0].keys() >= {"dt", "dt_data", "dt_net", "clips_per_second", "memory_gb", "eta"}


def test_two_runs_from_one_seed_are_the_same_to_the_bit(tmp_path):
    tiny.make_trainer(tmp_path / "a").train()
    tiny.make_trainer(tmp_path / "b").train()

    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()


def test_a_checkpoint_has_the_keys_that_others_read(tmp_path):
    path = (
        tiny.make_trainer(tmp_path, parts={"meta": {"format": 1}, "cfg_text": "A: 1"}, ema_decay=0.5).train().checkpoint
    )

    state = torch.load(path, weights_only=True)

    assert state["epoch"] == 3
    assert state["meta"] == {"format": 1}
    assert state["cfg"] == "A: 1"
    assert state.keys() >= {"model_state", "optimizer_state", "scaler_state", "ema_state", "progress", "rng", "best"}
    assert state["model_state"].keys() == state["ema_state"].keys() == tiny.TinyNet().state_dict().keys()


def test_iterations_may_be_counted_instead_of_epochs(tmp_path):
    summary = tiny.make_trainer(tmp_path, max_epoch=99, max_iter=8).train()

    records = metrics(tmp_path)
    assert summary.epochs == 2
    assert [r["step"] for r in records if r["_type"] == "train_iter"] == [2, 4, 6, 8]
    assert [r["epoch"] for r in records if r["_type"] == "val_epoch"] == [1, 2]


def test_validation_and_checkpoints_come_in_their_periods_and_at_the_end(tmp_path):
    tiny.make_trainer(tmp_path, max_epoch=5, eval_period=3, checkpoint_period=2, keep_checkpoints=9).train()

    assert [r["epoch"] for r in metrics(tmp_path) if r["_type"] == "val_epoch"] == [3, 5]
    names = sorted(p.name for p in (tmp_path / "checkpoints").glob("checkpoint_*"))
    assert names == [f"checkpoint_epoch_0000{n}.pyth" for n in (2, 4, 5)]


def test_best_is_the_lowest_error_and_not_the_last(tmp_path):
    errors = iter([50.0, 20.0, 30.0])

    summary = tiny.make_trainer(tmp_path, parts={"validate": lambda model: {"top1_err": next(errors)}}).train()

    assert summary.best == 20.0
    assert torch.load(tmp_path / "checkpoints/best.pyth", weights_only=True)["epoch"] == 2


def test_accumulating_2_batches_of_4_is_a_batch_of_8(tmp_path):
    whole, parts = without_dropout(), without_dropout()
    loader = tiny.TinyLoader(batch_size=8)

    big = tiny.make_trainer(
        tmp_path / "big", model=whole, loader=loader, parts=QUIET | {"frozen": freeze_batch_norm(whole)}
    )
    small = tiny.make_trainer(
        tmp_path / "small",
        model=parts,
        loader=RowsOf(loader, 2),
        accum_steps=2,
        parts=QUIET | {"frozen": freeze_batch_norm(parts)},
    )

    assert_close(state_of(big), state_of(small))
    assert [r["step"] for r in metrics(tmp_path / "small")] == [r["step"] for r in metrics(tmp_path / "big")]


def test_the_moving_average_is_its_closed_form(tmp_path):
    trainer = tiny.make_trainer(tmp_path, ema_decay=0.8, parts=QUIET)
    history = [trainer.model[0].weight.detach().clone()]
    step = trainer.step

    def recording(group, lr):
        outcome = step(group, lr)
        history.append(trainer.model[0].weight.detach().clone())
        return outcome

    recording.scaler = step.scaler
    trainer.step = recording
    trainer.train()

    n = len(history) - 1
    closed = 0.8**n * history[0] + sum(0.2 * 0.8 ** (n - k) * history[k] for k in range(1, n + 1))
    torch.testing.assert_close(trainer.ema.average["0.weight"], closed)


def test_validation_sees_the_average_and_training_goes_on_from_the_weights(tmp_path):
    seen = {}

    def look(model):
        seen.update({k: v.clone() for k, v in model.state_dict().items()})
        return {"top1_err": 1.0}

    with_average = tiny.make_trainer(tmp_path / "a", ema_decay=0.9, parts={"validate": look})
    weights = state_of(with_average)

    assert_close(seen, with_average.ema.average, 0)
    assert_close(weights, state_of(tiny.make_trainer(tmp_path / "b", parts=QUIET)), 0)


def test_precise_batch_norm_is_the_statistics_of_the_data(tmp_path):
    model = without_dropout()
    trainer = tiny.make_trainer(tmp_path, model=model, max_epoch=1, precise_bn_batches=6, parts=QUIET)
    trainer.train()

    batches = list(tiny.TinyLoader(batch_size=8).epoch(0))
    with torch.no_grad():
        features = model[0](torch.cat([tiny.prepare(b.inputs) for b in batches]))
    torch.testing.assert_close(model[1].running_mean, features.mean((0, 2, 3, 4)))
    torch.testing.assert_close(model[1].running_var, features.var((0, 2, 3, 4)), rtol=1e-2, atol=0)
    assert model[1].num_batches_tracked == 6


@pytest.mark.parametrize(("option", "limit"), [("clip_grad_norm", 0.05), ("clip_grad_value", 0.01)])
def test_gradients_are_clipped(tmp_path, option, limit):
    trainer = tiny.make_trainer(tmp_path, parts=QUIET, max_epoch=1, **{option: limit})
    trainer.train()

    gradients = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    size = gradients.norm() if option == "clip_grad_norm" else gradients.abs().max()
    assert size == pytest.approx(limit, rel=1e-3)


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

    states = [torch.load(tmp_path / f / "checkpoints/checkpoint_epoch_00003.pyth") for f in ("whole", "parts")]
    assert states[0]["scaler_state"] == states[1]["scaler_state"]
    assert_close(states[0]["model_state"], states[1]["model_state"], 0)


class Poisoned(tiny.TinyLoader):
    """A loss that is not a number from some clips on: their class is outside the network's."""

    def __init__(self, bad):
        super().__init__(batch_size=8)
        self.bad = bad

    def epoch(self, epoch, start_batch=0):
        for number, batch in enumerate(super().epoch(epoch, start_batch), start_batch):
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
    assert message.startswith("the loss is not finite at epoch 2, iteration 3, files clip_16.mp4, clip_17.mp4, ")
    assert f"last checkpoint: {tmp_path}/checkpoints/checkpoint_epoch_00001.pyth; lower" in message
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_mixed_precision_skips_such_a_step_counts_it_and_goes_on(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    parts = {"prepare": poison, "frozen": []}
    model = tiny.TinyNet()
    parts["frozen"] = freeze_batch_norm(model)
    trainer = tiny.make_trainer(
        tmp_path, model=model, loader=Poisoned({(0, 1), (1, 2)}), parts=parts, amp_dtype=torch.bfloat16
    )

    assert trainer.train().finished
    assert [r["skipped"] for r in metrics(tmp_path) if r["_type"] == "train_epoch"] == [1, 2, 2]
    assert "files clip_8.mp4" in caplog.text


@pytest.mark.parametrize("amp_dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_skips_a_gradient_that_is_not_finite(tmp_path, amp_dtype):
    model = tiny.TinyNet()
    calls = itertools.count(1)
    model[-1].weight.register_hook(lambda gradient: gradient * (math.inf if next(calls) == 3 else 1))
    trainer = tiny.make_trainer(tmp_path, model=model, amp_dtype=amp_dtype, max_epoch=1)

    trainer.train()

    assert [r["skipped"] for r in metrics(tmp_path) if r["_type"] == "train_epoch"] == [1]
    assert all(p.isfinite().all() for p in model.parameters())


def test_full_precision_stops_at_a_gradient_that_is_not_finite(tmp_path):
    model = tiny.TinyNet()
    model[-1].weight.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(OctvideoError, match=r"the gradient is not finite at epoch 1, iteration 1, files clip_0\.mp4"):
        tiny.make_trainer(tmp_path, model=model).train()

    assert all(p.isfinite().all() for p in model.parameters())


def test_mixed_precision_stops_when_nothing_but_skipping_is_left(tmp_path):
    loader = Poisoned({(0, n) for n in range(1, 6)})
    trainer = tiny.make_trainer(
        tmp_path, loader=loader, parts={"prepare": poison}, amp_dtype=torch.bfloat16, max_skipped=2
    )

    with pytest.raises(OctvideoError, match="at epoch 1, iteration 4"):
        trainer.train()


def test_channels_last_reaches_the_network(tmp_path):
    seen = []
    model = tiny.TinyNet().to(memory_format=torch.channels_last_3d)
    model[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last_3d))
    )

    tiny.make_trainer(tmp_path, model=model, channels_last=True, max_epoch=1, parts=QUIET).train()

    assert all(seen)


def test_images_are_trained_by_the_same_trainer(tmp_path):
    class Images(tiny.TinyLoader):
        def epoch(self, epoch, start_batch=0):
            for batch in super().epoch(epoch, start_batch):
                yield Batch(batch.inputs[:, :, 0], batch.targets, batch.indices, batch.paths)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    summary = tiny.make_trainer(
        tmp_path, model=model, loader=Images(batch_size=8), channels_last=True, parts=QUIET
    ).train()

    assert summary.finished


def test_mixup_reaches_the_loss_and_errors_are_counted_for_either_class(tmp_path):
    seen = []

    def loss(logits, targets):
        seen.append(targets)
        return make_loss(label_smoothing=0.1)(logits, targets)

    parts = {"mix": lambda x, y: mixup(x, y, tiny.CLASSES, 0.2), "loss": loss}
    tiny.make_trainer(tmp_path, parts=parts, max_epoch=1).train()

    assert all(targets.shape == (8, 3) for targets in seen)
    assert all(torch.allclose(targets.sum(1), torch.ones(8)) for targets in seen)


def test_several_labels_at_once_are_trained_with_their_own_loss(tmp_path):
    class Multi(tiny.TinyLoader):
        def epoch(self, epoch, start_batch=0):
            for batch in super().epoch(epoch, start_batch):
                targets = nn.functional.one_hot(batch.targets, 3).float()
                yield Batch(batch.inputs, targets, batch.indices, batch.paths)

    parts = QUIET | {"loss": make_loss("bce_logit")}
    summary = tiny.make_trainer(tmp_path, loader=Multi(batch_size=8), parts=parts).train()

    assert summary.finished


def test_too_few_batches_for_a_step_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="6 batches make no step of 8"):
        tiny.make_trainer(tmp_path, accum_steps=8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own compiler uses it
def test_a_compiled_network_trains_and_its_checkpoint_is_the_plain_one(tmp_path):
    def linear():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 6 * 6, 3))

    trainer = tiny.make_trainer(tmp_path, model=linear(), compile=True, max_epoch=1, parts=QUIET)
    plain = tiny.make_trainer(tmp_path / "plain", model=linear(), max_epoch=1, parts=QUIET)

    assert_close(state_of(trainer), state_of(plain), 1e-4)
