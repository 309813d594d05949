"""Each of the trainer's options does what it says, on a network of a few hundred parameters."""

from contextlib import contextmanager

import pytest
import tiny
import torch
from torch import nn
from trained import QUIET, assert_close, metrics, state_of

from octvideo.data.loading.batch import Batch
from octvideo.engine.distributed import Processes
from octvideo.engine.training.adapt import freeze_batch_norm
from octvideo.engine.training.losses import Mixer, make_loss
from octvideo.engine.training.state import TrainOptions
from octvideo.engine.training.step import Stepper
from octvideo.layers import OctBatchNorm3d, OctConv3d, OctTensor


def without_dropout():
    torch.manual_seed(0)
    return tiny.TinyNet(dropout=0)


class RowsOf(tiny.TinyLoader):
    """The batches of another loader, cut into `parts` each."""

    def __init__(self, loader, parts):
        super().__init__(loader.batches * parts, loader.batch_size // parts)
        self.loader, self.parts = loader, parts

    def epoch(self, epoch, start_sample=0):
        for batch in self.loader.epoch(epoch, start_sample):
            size = len(batch) // self.parts
            for rows in (slice(i, i + size) for i in range(0, len(batch), size)):
                yield Batch(
                    batch.inputs[rows], batch.targets[rows], batch.indices[rows], batch.paths[rows]
                )


def test_accumulating_2_batches_of_4_is_a_batch_of_8(tmp_path):
    whole, parts = without_dropout(), without_dropout()
    loader = tiny.TinyLoader(batch_size=8)

    big = tiny.make_trainer(
        tmp_path / "big",
        model=whole,
        loader=loader,
        parts=QUIET | {"frozen": freeze_batch_norm(whole)},
    )
    small = tiny.make_trainer(
        tmp_path / "small",
        model=parts,
        loader=RowsOf(loader, 2),
        accum_steps=2,
        parts=QUIET | {"frozen": freeze_batch_norm(parts)},
    )

    assert_close(state_of(big), state_of(small))
    assert [r["step"] for r in metrics(tmp_path / "small")] == [
        r["step"] for r in metrics(tmp_path / "big")
    ]


@pytest.mark.parametrize("parts", [2, 8])
def test_weights_of_classes_weigh_the_clips_of_a_step_however_it_is_divided(tmp_path, parts):
    whole, divided = without_dropout(), without_dropout()
    loader, weighted = tiny.TinyLoader(batch_size=8), make_loss(class_weights=[1.0, 9.0, 0.0])

    big = tiny.make_trainer(
        tmp_path / "big",
        model=whole,
        loader=loader,
        parts=QUIET | {"frozen": freeze_batch_norm(whole), "loss": weighted},
    )
    small = tiny.make_trainer(
        tmp_path / "small",
        model=divided,
        loader=RowsOf(loader, parts),
        accum_steps=parts,
        parts=QUIET | {"frozen": freeze_batch_norm(divided), "loss": weighted},
    )

    assert_close(state_of(big), state_of(small))
    losses = [[r["loss"] for r in metrics(tmp_path / name)] for name in ("small", "big")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class OneOfTwo(Processes):
    """Rank 0 of two, whose sums and gradients a test adds up; `other`: what rank 1 sums."""

    def __init__(self, other):
        super().__init__()
        object.__setattr__(self, "other", other)

    def total(self, values):
        return values + self.other if len(values) == 2 else values


def test_weights_of_classes_weigh_the_clips_of_all_ranks():
    inputs = torch.stack([tiny.sample(0, i) for i in range(8)])
    targets = torch.tensor([0, 0, 0, 1, 1, 2, 0, 0])
    weighted = make_loss(class_weights=[1.0, 9.0, 3.0])
    shares = [slice(0, 4), slice(4, 8)]

    def gradient(rows, procs):
        model = without_dropout().requires_grad_(True)
        model[1].eval()
        options = TrainOptions("unused", max_epoch=1)
        step = Stepper(
            model, torch.optim.SGD(model.parameters(), 0.0), weighted, tiny.prepare, options, procs
        )
        batch = Batch(inputs[rows], targets[rows], torch.arange(8)[rows], [""] * 8)
        step([batch], 0.0)
        return model[-1].weight.grad

    others = [weighted.sums(targets[share]) for share in reversed(shares)]
    of_ranks = [gradient(*pair) for pair in zip(shares, map(OneOfTwo, others), strict=True)]

    whole = gradient(slice(0, 8), Processes())
    torch.testing.assert_close(torch.stack(of_ranks).mean(0), whole)


class EightClasses(nn.Module):
    """Its input is its logits."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, logits):
        return logits + self.bias


def test_a_step_counts_the_hits_among_the_first_and_the_first_five_of_all_its_batches():
    model, options = EightClasses(), TrainOptions("unused", max_epoch=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    step = Stepper(model, optimizer, make_loss(), nn.Identity(), options, Processes())
    logits = torch.arange(8.0).flip(0).expand(8, 8)  # the k-th class is the k-th best
    group = [
        Batch(logits[rows], torch.arange(8)[rows], torch.arange(8)[rows], [""] * 8)
        for rows in (slice(0, 3), slice(3, 8))
    ]

    tally = step(group, 0.1).tally

    assert (tally.clips, tally.hits1, tally.hits5) == (8, 1, 5)


@pytest.mark.parametrize("accum_steps", [1, 3])
def test_the_loss_of_a_step_is_the_mean_over_the_clips_of_all_its_batches(tmp_path, accum_steps):
    losses = []

    def loss(logits, targets):
        value = make_loss()(logits, targets)
        losses.append(value.item())
        return value

    tiny.make_trainer(
        tmp_path, max_epoch=1, accum_steps=accum_steps, log_period=1, parts=QUIET | {"loss": loss}
    ).train()

    rows = torch.tensor(losses).view(-1, accum_steps).mean(1)
    records = metrics(tmp_path)
    logged = [r["loss"] for r in records if r["_type"] == "train_iter"]
    assert logged == pytest.approx(rows.tolist(), rel=1e-4)
    (epoch,) = (r["loss"] for r in records if r["_type"] == "train_epoch")
    assert epoch == pytest.approx(rows.mean().item(), rel=1e-4)


def test_ranks_exchange_gradients_in_the_last_batch_of_a_step_alone(tmp_path, monkeypatch):
    made, local = [], []

    @contextmanager
    def without_sync(network):
        local.append(len(made))
        yield

    def loss(logits, targets):
        made.append(1)
        return make_loss()(logits, targets)

    monkeypatch.setattr("octvideo.engine.training.step.without_sync", without_sync)

    tiny.make_trainer(tmp_path, max_epoch=1, accum_steps=3, parts=QUIET | {"loss": loss}).train()

    assert local == [0, 1, 3, 4]


def test_momentum_follows_the_rate_only_where_that_is_asked_for(tmp_path):
    found = [
        state_of(tiny.make_trainer(tmp_path / str(on), parts=QUIET, scale_momentum=on))
        for on in (True, False)
    ]

    assert not torch.allclose(found[0]["0.weight"], found[1]["0.weight"])


def test_the_moving_average_has_counts_as_the_model_has_them(tmp_path):
    trainer = tiny.make_trainer(tmp_path, ema_decay=0.8, max_epoch=1, parts=QUIET)
    trainer.train()

    assert trainer.ema.average["1.num_batches_tracked"] == 6


def test_the_moving_average_is_its_closed_form(tmp_path):
    trainer = tiny.make_trainer(tmp_path, ema_decay=0.8, parts=QUIET)
    history = [trainer.model[0].weight.detach().clone()]
    step = trainer.step

    def recording(group, lr, **options):
        outcome = step(group, lr, **options)
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


@pytest.mark.parametrize("batches", [6, 200])  # of the six that there are
def test_precise_batch_norm_is_the_statistics_of_the_data(tmp_path, batches):
    model = without_dropout()
    trainer = tiny.make_trainer(
        tmp_path, model=model, max_epoch=1, precise_bn_batches=batches, parts=QUIET
    )
    trainer.train()

    batches = list(tiny.TinyLoader(batch_size=8).epoch(0))
    with torch.no_grad():
        features = model[0](torch.cat([tiny.prepare(b.inputs) for b in batches]))
    torch.testing.assert_close(model[1].running_mean, features.mean((0, 2, 3, 4)))
    torch.testing.assert_close(model[1].running_var, features.var((0, 2, 3, 4)), rtol=1e-2, atol=0)
    assert model[1].num_batches_tracked == 6


def test_precise_batch_norm_is_measured_only_where_something_is_made_of_it(tmp_path, monkeypatch):
    trainer = tiny.make_trainer(
        tmp_path, max_epoch=6, eval_period=3, checkpoint_period=5, precise_bn_batches=2
    )
    measured = []
    monkeypatch.setattr(
        trainer, "measure_bn", lambda count: measured.append(trainer.position().epoch)
    )

    trainer.train()

    assert measured == [3, 5, 6]


def test_precise_batch_norm_of_a_moving_average_is_that_of_its_weights(tmp_path):
    seen = {}

    def look(model):
        seen.update({name: value.clone() for name, value in model.state_dict().items()})
        return {"top1_err": 1.0}

    trainer = tiny.make_trainer(
        tmp_path, max_epoch=1, ema_decay=0.5, precise_bn_batches=6, parts={"validate": look}
    )
    weights = state_of(trainer)

    batches = list(tiny.TinyLoader(batch_size=8).epoch(0))
    with torch.no_grad():
        inputs = torch.cat([tiny.prepare(batch.inputs) for batch in batches])
        features = nn.functional.conv3d(inputs, seen["0.weight"])
    torch.testing.assert_close(seen["1.running_mean"], features.mean((0, 2, 3, 4)))
    best = torch.load(tmp_path / "checkpoints/best.pyth", weights_only=True)
    assert_close(seen, best["ema_state"], 0)
    plain = tiny.make_trainer(tmp_path / "plain", max_epoch=1, ema_decay=0.5, parts=QUIET)
    assert_close(weights, state_of(plain), 0)


class WithMainsBuffers(Processes):
    """A rank whose buffers become those of rank 0, which are all 5."""

    def share_buffers(self, model):
        for buffer in model.buffers():
            buffer.fill_(5)


def test_every_rank_validates_the_moving_average_with_the_statistics_of_rank_0(tmp_path):
    seen = []

    def look(model):
        seen.append(model[1].running_mean.clone())
        return {"top1_err": 1.0}

    parts = {"validate": look, "procs": WithMainsBuffers()}
    tiny.make_trainer(tmp_path, max_epoch=1, ema_decay=0.5, parts=parts).train()

    assert torch.equal(seen[0], torch.full((4,), 5.0))


def test_frozen_batch_norm_keeps_what_was_measured_before_the_first_step(tmp_path):
    model = without_dropout()
    with torch.no_grad():
        features = model[0](
            torch.cat([tiny.prepare(b.inputs) for b in tiny.TinyLoader(batch_size=8).epoch(0)])
        )
    trainer = tiny.make_trainer(
        tmp_path,
        model=model,
        loader=tiny.TinyLoader(batch_size=8),
        max_epoch=1,
        precise_bn_first=6,
        ema_decay=0.99,
        parts=QUIET | {"frozen": freeze_batch_norm(model)},
    )
    trainer.train()

    torch.testing.assert_close(model[1].running_mean, features.mean((0, 2, 3, 4)))
    torch.testing.assert_close(model[1].running_var, features.var((0, 2, 3, 4)), rtol=1e-2, atol=0)
    torch.testing.assert_close(trainer.ema.average["1.running_mean"], model[1].running_mean)
    assert model[1].num_batches_tracked == 0


@pytest.mark.parametrize(("option", "limit"), [("clip_grad_norm", 0.05), ("clip_grad_value", 0.01)])
def test_gradients_are_clipped(tmp_path, option, limit):
    trainer = tiny.make_trainer(tmp_path, parts=QUIET, max_epoch=1, **{option: limit})
    trainer.train()

    gradients = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    size = gradients.norm() if option == "clip_grad_norm" else gradients.abs().max()
    assert size == pytest.approx(limit, rel=1e-3)


def test_gradients_are_clipped_by_value_or_else_by_norm(tmp_path):
    limits = {"clip_grad_value": 0.01, "clip_grad_norm": 1e-6}
    trainer = tiny.make_trainer(tmp_path, parts=QUIET, max_epoch=1, **limits)
    trainer.train()

    gradients = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert gradients.abs().max() == pytest.approx(0.01)


def test_channels_last_reaches_the_network(tmp_path):
    seen = []
    model = tiny.TinyNet().to(memory_format=torch.channels_last_3d)
    model[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(
            inputs[0].is_contiguous(memory_format=torch.channels_last_3d)
        )
    )

    tiny.make_trainer(tmp_path, model=model, channels_last=True, max_epoch=1, parts=QUIET).train()

    assert all(seen)


def test_mixup_reaches_the_loss_and_errors_are_counted_for_either_class(tmp_path):
    seen = []

    def loss(logits, targets):
        seen.append(targets)
        return make_loss(label_smoothing=0.1)(logits, targets)

    parts = {"mix": Mixer(tiny.CLASSES, alpha=0.2), "loss": loss}
    tiny.make_trainer(tmp_path, parts=parts, max_epoch=1).train()

    assert all(targets.shape == (8, 3) for targets in seen)
    assert all(torch.allclose(targets.sum(1), torch.ones(8)) for targets in seen)


class OctaveNet(nn.Module):
    """0 -> alpha -> 0, batch norm between: all four paths of the octave convolution. Compiling more
    takes a minute."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = OctConv3d(3, 8, 1, bias=False, alpha=(0, 0.25))
        self.norm = OctBatchNorm3d(self.first.out_channels)
        self.last = OctConv3d(8, tiny.CLASSES, 1, alpha=(0.25, 0))

    def forward(self, x):
        return self.last(self.norm(self.first(OctTensor(x))).map(torch.relu)).high.mean((2, 3, 4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own compiler uses it
def test_a_compiled_octave_network_learns_as_the_plain_one_and_its_checkpoint_is_the_same(tmp_path):
    compiled = tiny.make_trainer(
        tmp_path / "compiled", model=OctaveNet(), compile=True, max_epoch=2
    )
    plain = tiny.make_trainer(tmp_path / "plain", model=OctaveNet(), max_epoch=2)

    assert_close(state_of(compiled), state_of(plain), 1e-3)

    assert isinstance(compiled.step.network, torch._dynamo.OptimizedModule)
    losses = [
        [r["loss"] for r in metrics(tmp_path / name) if "loss" in r]
        for name in ("compiled", "plain")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[1][-1] < losses[1][0]
