"""The classifier of a probe: the minimum of a known function."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from octvideo.engine.linear import fit_linear


@pytest.fixture
def clusters():
    """40 + 40 points of three overlapping clusters in 8 dimensions of very different scales."""
    generator = np.random.default_rng(0)
    centers, scales = generator.normal(size=(3, 8)), 10.0 ** np.arange(-3, 5)
    labels = generator.integers(0, 3, 80)
    points = (centers[labels] + generator.normal(size=(80, 8))) * scales + 5 * scales
    return points.astype(np.float32), labels


def test_it_is_the_minimum_of_the_penalized_cross_entropy(clusters):
    points, labels = clusters
    found = fit_linear(points[:40], labels[:40], points[40:], labels[40:], num_classes=3)

    std = points[:40].std(0, dtype=np.float64)
    weight = torch.tensor(found.weight * std, requires_grad=True)  # as on standardized features
    mean = points[:40].mean(0, dtype=np.float64)
    bias = torch.tensor(found.bias + found.weight @ mean, requires_grad=True)
    x = torch.from_numpy((points[:40] - mean) / std)
    loss = F.cross_entropy(x @ weight.T + bias, torch.from_numpy(labels[:40]))
    (loss + found.penalty / 2 * weight.square().sum()).backward()

    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4


def test_weight_and_bias_take_features_as_they_come(clusters):
    points, labels = clusters
    found = fit_linear(points[:40], labels[:40], points[40:], labels[40:], num_classes=3)

    named = (points[40:] @ found.weight.T + found.bias).argmax(1)

    assert 100 * (named == labels[40:]).mean() == pytest.approx(found.val_accuracy)
    assert found.val_accuracy > 60


def test_a_feature_that_never_changes_does_no_harm(clusters):
    points, labels = clusters
    points[:, 0] = 3.0

    found = fit_linear(points, labels, points, labels, num_classes=3)

    assert np.isfinite(found.weight).all()


def test_it_is_the_same_every_time(clusters):
    points, labels = clusters
    first, second = (fit_linear(points, labels, points, labels, num_classes=3) for _ in range(2))

    assert np.array_equal(first.weight, second.weight)
