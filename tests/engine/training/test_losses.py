"""Losses against their definitions."""

import math

import pytest
import torch
from torch import nn

from octvideo.config.defaults import CHOICES
from octvideo.engine.training.losses import LOSSES, Mixer, hits, make_loss
from octvideo.errors import ConfigError

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
TARGETS = torch.tensor([0, 2])


def log_probability(row, column):
    return (LOGITS[row, column] - LOGITS[row].exp().sum().log()).item()


def test_label_smoothing_spreads_its_share_evenly():
    smoothed = make_loss(label_smoothing=0.3)(LOGITS, TARGETS).item()

    rows = [
        -sum((0.7 * (c == t) + 0.1) * log_probability(r, c) for c in range(3))
        for r, t in enumerate(TARGETS.tolist())
    ]
    assert smoothed == pytest.approx(sum(rows) / 2, rel=1e-6)


def test_class_weights_weigh_the_mean():
    weighted = make_loss(class_weights=[1.0, 5.0, 3.0])(LOGITS, TARGETS).item()

    assert weighted == pytest.approx(
        -(log_probability(0, 0) + 3 * log_probability(1, 2)) / 4, rel=1e-6
    )


def test_binary_loss_is_the_mean_over_labels():
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])

    loss = make_loss("bce_logit")(LOGITS, targets).item()

    terms = [
        math.log1p(math.exp(-x if t else x))
        for x, t in zip(LOGITS.flatten().tolist(), targets.flatten().tolist(), strict=True)
    ]
    assert loss == pytest.approx(sum(terms) / 6, rel=1e-6)


def test_class_weights_of_the_binary_loss_count_the_positives():
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])

    loss = make_loss("bce_logit", class_weights=[1.0, 2.0, 3.0])(LOGITS, targets).item()

    terms = [
        weight * math.log1p(math.exp(-x)) if t else math.log1p(math.exp(x))
        for row, labels in zip(LOGITS.tolist(), targets.tolist(), strict=True)
        for x, t, weight in zip(row, labels, (1, 2, 3), strict=True)
    ]
    assert loss == pytest.approx(sum(terms) / 6, rel=1e-6)


def test_mixup_blends_clips_and_classes_alike():
    inputs = torch.stack([torch.zeros(3, 2, 4, 4), torch.ones(3, 2, 4, 4)])

    mixed, soft = Mixer(3, alpha=0.4)(inputs, torch.tensor([0, 2]))

    share = soft[0, 0]
    assert 0 <= share <= 1
    torch.testing.assert_close(
        soft,
        torch.stack(
            [
                share * (1 - torch.eye(3)[2]) * torch.eye(3)[0] + (1 - share) * torch.eye(3)[2],
                (1 - share) * torch.eye(3)[0] + share * torch.eye(3)[2],
            ]
        ),
    )
    torch.testing.assert_close(mixed[0], torch.full((3, 2, 4, 4), 1 - share.item()))


def test_mixup_is_different_from_batch_to_batch():
    shares = {
        Mixer(2, alpha=0.2)(torch.zeros(2, 3), torch.tensor([0, 1]))[1][0, 0].item()
        for _ in range(5)
    }

    assert len(shares) == 5


@pytest.mark.parametrize(("k", "expected"), [(1, 1), (2, 1), (3, 2), (5, 2)])
def test_hits_among_the_first_k(k, expected):
    assert hits(LOGITS, TARGETS, k) == expected


def test_any_of_several_labels_is_a_hit():
    targets = torch.tensor([[0.0, 0.5, 0.5], [0.0, 1.0, 1.0]])

    assert hits(LOGITS, targets, 1) == 1
    assert hits(LOGITS, targets, 3) == 2


def test_loss_weights_follow_the_logits_type():
    loss = make_loss(class_weights=[1.0, 1.0, 1.0])

    assert loss(LOGITS.double(), TARGETS).dtype == torch.float64
    assert nn.functional.cross_entropy(LOGITS.double(), TARGETS) == pytest.approx(
        loss(LOGITS.double(), TARGETS)
    )


def test_cutmix_takes_a_box_of_all_frames_from_the_other_clip():
    inputs = torch.stack([torch.zeros(3, 2, 16, 20), torch.ones(3, 2, 16, 20)])

    for _ in range(20):
        mixed, soft = Mixer(3, alpha=0, cutmix_alpha=1)(inputs, torch.tensor([0, 2]))

        assert set(mixed.unique().tolist()) <= {0.0, 1.0}
        assert (mixed[:, 0, 0] == mixed[:, 2, 1]).all()
        assert soft[0, 2] == pytest.approx(mixed[0].mean().item())
        assert soft.sum(1).tolist() == pytest.approx([1, 1])


def test_mixer_draws_whether_and_how_it_mixes():
    inputs, targets = torch.rand(2, 3, 1, 8, 8), torch.tensor([0, 1])

    never, soft = Mixer(2, prob=0)(inputs, targets)
    cut = Mixer(2, alpha=0.8, cutmix_alpha=1, switch_prob=1)(inputs, targets)[0]
    smoothed = Mixer(2, alpha=0, cutmix_alpha=0)(inputs, targets)[0]

    assert torch.equal(never, inputs)
    assert torch.equal(soft, torch.eye(2))
    assert torch.equal(smoothed, inputs)
    assert ((cut == inputs) | (cut == inputs.flip(0))).all()


@pytest.mark.parametrize("cut", [True, False])
def test_each_form_of_mixing_draws_its_share_by_its_own_alpha(cut):
    """Beta(1000, 1000) is near one half, and Beta(.001, .001) near 0 or 1."""
    near_half = {"cutmix_alpha" if cut else "alpha": 1000}
    mix = Mixer(2, **({"alpha": 0.001, "cutmix_alpha": 0.001} | near_half), switch_prob=float(cut))
    inputs = torch.stack([torch.zeros(3, 1, 64, 64), torch.ones(3, 1, 64, 64)])

    mixed = [mix(inputs, torch.tensor([0, 1]))[0][0] for _ in range(200)]

    assert all(set(clip.unique().tolist()) <= {0.0, 1.0} for clip in mixed) == cut
    # A box that the border cuts takes less than its share.
    assert max(clip.mean().item() for clip in mixed) == pytest.approx(0.5, abs=0.06)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match=r"there is no loss 'focal'; there are cross_entropy"):
        make_loss("focal")


@pytest.mark.parametrize("name", CHOICES["MODEL.LOSS_FUNC"])
def test_every_loss_of_the_settings_is_made(name):
    targets = torch.eye(3)[[0, 2]] if name == "bce_logit" else TARGETS

    assert make_loss(name)(LOGITS, targets).item() > 0
    assert set(CHOICES["MODEL.LOSS_FUNC"]) == LOSSES.keys()


def test_a_batch_of_classes_that_do_not_count_has_no_loss():
    logits = LOGITS.clone().requires_grad_()

    loss = make_loss(class_weights=[0.0, 1.0, 0.0])(logits, TARGETS)
    loss.backward()

    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("of", [TARGETS, nn.functional.one_hot(TARGETS, 3).float()])
def test_weighted_classes_are_those_of_torch(smoothing, of):
    weights = torch.tensor([1.0, 5.0, 3.0])

    found = make_loss(class_weights=weights.tolist(), label_smoothing=smoothing)(LOGITS, of)

    expected = nn.functional.cross_entropy(LOGITS, TARGETS, weights, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)


def test_the_size_of_class_weights_is_of_no_matter_to_mixed_clips():
    mixed = torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.5, 0.5]])

    one, ten = (make_loss(class_weights=[n * 1.0, n * 5.0, n * 3.0]) for n in (1, 10))

    torch.testing.assert_close(ten(LOGITS, mixed), one(LOGITS, mixed))


def test_mixed_clips_weigh_in_a_step_what_its_clips_weigh():
    weighted, targets = make_loss(class_weights=[1.0, 9.0, 0.0]), torch.tensor([0, 1, 1, 2])

    _, mixed = Mixer(3, alpha=1.0)(torch.zeros(4, 3), targets)

    torch.testing.assert_close(weighted.sums(mixed), weighted.sums(targets))
