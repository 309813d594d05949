"""A run of the trainer: what it writes, when it validates and saves, what it trains on."""

import json

import pytest
import tiny
import torch
from torch import nn
from trained import QUIET, metrics

from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.data.loading.batch import Batch
from octvideo.engine.training.losses import make_loss
from octvideo.errors import ConfigError, DataError


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

    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (
        tmp_path / "b/metrics.jsonl"
    ).read_bytes()


def test_a_checkpoint_has_the_keys_that_others_read(tmp_path):
    path = (
        tiny.make_trainer(
            tmp_path,
            parts={"about": Checkpoint(network={"name": "tiny"}, recipe="A: 1")},
            ema_decay=0.5,
        )
        .train()
        .checkpoint
    )

    state = torch.load(path, weights_only=True)

    assert state["epoch"] == 3
    assert state["meta"] == {
        "format": 1,
        "model": {"name": "tiny"},
        "class_names": [],
        "preprocessing": {"reverse_channels": False},
        "multi_label": False,
        "head_act": None,
    }
    assert state["cfg"] == "A: 1"
    assert state.keys() >= {
        "model_state",
        "optimizer_state",
        "scaler_state",
        "ema_state",
        "progress",
        "rng",
        "best",
    }
    assert (
        state["model_state"].keys()
        == state["ema_state"].keys()
        == tiny.TinyNet().state_dict().keys()
    )


def test_iterations_may_be_counted_instead_of_epochs(tmp_path):
    summary = tiny.make_trainer(tmp_path, max_epoch=99, max_iter=8).train()

    records = metrics(tmp_path)
    assert summary.epochs == 2
    assert [r["step"] for r in records if r["_type"] == "train_iter"] == [2, 4, 6, 8]
    assert [r["epoch"] for r in records if r["_type"] == "val_epoch"] == [1, 2]


def test_validation_and_checkpoints_come_in_their_periods_and_at_the_end(tmp_path):
    tiny.make_trainer(
        tmp_path, max_epoch=5, eval_period=3, checkpoint_period=2, keep_checkpoints=9
    ).train()

    assert [r["epoch"] for r in metrics(tmp_path) if r["_type"] == "val_epoch"] == [3, 5]
    names = sorted(p.name for p in (tmp_path / "checkpoints").glob("checkpoint_*"))
    assert names == [f"checkpoint_epoch_0000{n}.pyth" for n in (2, 4, 5)]


def test_best_is_the_lowest_error_and_not_the_last(tmp_path):
    errors = iter([50.0, 20.0, 30.0])

    summary = tiny.make_trainer(
        tmp_path, parts={"validate": lambda model: {"top1_err": next(errors)}}
    ).train()

    assert summary.best == 20.0
    assert torch.load(tmp_path / "checkpoints/best.pyth", weights_only=True)["epoch"] == 2


def test_a_validation_without_the_metric_of_the_best_weights_is_refused(tmp_path):
    trainer = tiny.make_trainer(tmp_path, best_metric="map_err")

    with pytest.raises(ConfigError, match="validation measures top1_err, not map_err, by which"):
        trainer.train()


def test_the_best_weights_are_written_as_safetensors_too_and_a_run_resumes_beside_them(tmp_path):
    about = Checkpoint(
        network={"name": "tiny"},
        class_names=("jump", "run"),
        input=InputSpec((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2),
        head_act="softmax_of_mean",
        recipe="A: 1",
        training={"data": {"fingerprint": "f", "samples": 8}},
    )
    options = {"parts": {"about": about}, "ema_decay": 0.5, "safetensors": True}
    tiny.make_trainer(tmp_path, max_epoch=1, **options).train()

    best, same = (
        Checkpoint.read(str(tmp_path / "checkpoints" / f"best.{kind}"))
        for kind in ("pyth", "safetensors")
    )

    for field in ("network", "class_names", "input", "head_act", "multi_label", "recipe", "format"):
        assert getattr(same, field) == getattr(best, field)
    assert same.training["data"] == best.training["data"] == about.training["data"]
    assert all(torch.equal(same.weights[name], t) for name, t in best.weights.items())
    assert tiny.make_trainer(tmp_path, max_epoch=2, **options).train().epochs == 2


@pytest.mark.parametrize(("second", "stays"), [(20.0, False), (60.0, True)])
def test_safetensors_that_are_switched_off_stay_as_long_as_they_are_of_the_best_weights(
    tmp_path, second, stays
):
    errors = iter([50.0, second])
    options = {"parts": {"validate": lambda model: {"top1_err": next(errors)}}}
    tiny.make_trainer(tmp_path, max_epoch=1, safetensors=True, **options).train()

    tiny.make_trainer(tmp_path, max_epoch=2, **options).train()

    assert (tmp_path / "checkpoints/best.safetensors").exists() == stays


def test_images_are_trained_by_the_same_trainer(tmp_path):
    class Images(tiny.TinyLoader):
        def epoch(self, epoch, start_sample=0):
            for batch in super().epoch(epoch, start_sample):
                yield Batch(batch.inputs[:, :, 0], batch.targets, batch.indices, batch.paths)

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )

    summary = tiny.make_trainer(
        tmp_path, model=model, loader=Images(batch_size=8), channels_last=True, parts=QUIET
    ).train()

    assert summary.finished


def test_several_labels_at_once_are_trained_with_their_own_loss(tmp_path):
    class Multi(tiny.TinyLoader):
        def epoch(self, epoch, start_sample=0):
            for batch in super().epoch(epoch, start_sample):
                targets = nn.functional.one_hot(batch.targets, 3).float()
                yield Batch(batch.inputs, targets, batch.indices, batch.paths)

    parts = QUIET | {"loss": make_loss("bce_logit")}
    summary = tiny.make_trainer(tmp_path, loader=Multi(batch_size=8), parts=parts).train()

    assert summary.finished


def test_too_few_batches_for_a_step_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="6 batches make no step of 8"):
        tiny.make_trainer(tmp_path, accum_steps=8)
