import numpy as np
import pytest

from octvideo.engine.evaluation import metrics

NAN = float("nan")


def test_equal_scores_rank_in_class_order():
    ranked = metrics.ranking(np.array([[0.2, 0.4, 0.4]]), 3)

    assert ranked.tolist() == [[1, 2, 0]]
    many = np.arange(400)[None] % 2 / 2
    assert metrics.ranking(many, 400).tolist() == [[*range(1, 400, 2), *range(0, 400, 2)]]


def test_top_k_of_few_classes_is_all_of_them():
    ranked = metrics.ranking(np.array([[0.1, 0.9]]), 5)

    assert ranked.shape == (1, 2)
    assert metrics.hits(ranked, np.array([0])).all()


def test_an_unread_video_is_wrong_under_any_k():
    ranked = metrics.ranking(np.array([[NAN, NAN], [0.9, 0.1]]), 5)

    assert metrics.hits(ranked, np.array([0, 0])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[0.7, 0.3], [0.7, 0.3]], -np.log([0.7, 0.3]).mean()),
        ([[0.9, 0.9], [0.9, 0.9]], np.log(2)),  # the maxima of two views: the scores of chance
        ([[1.0, 1.0], [1.0, 3.0]], -np.log([0.5, 0.75]).mean()),
        ([[0.2, 0.2], [NAN, NAN]], np.log(2)),
    ],
)
def test_the_log_loss_is_of_a_labels_share_of_scores_that_need_not_sum_to_one(scores, expected):
    loss = metrics.log_loss(np.array(scores, np.float32), np.array([0, 1]))

    assert loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scores", [[[0.0, 1.0]], [[0.0, 0.0]]])
def test_a_label_without_a_score_costs_much_not_infinity(scores):
    assert 80 < metrics.log_loss(np.array(scores, np.float32), np.array([0])) < 90


def test_mean_class_accuracy_ignores_classes_without_a_video():
    ranked = np.array([[0], [0], [0], [1]])
    labels = np.array([0, 0, 1, 1])

    table = metrics.class_table(ranked, labels, 3)

    assert table.tolist() == [[2, 2], [2, 1], [0, 0]]
    assert metrics.mean_class_accuracy(table) == 0.75


def test_confusion_counts_read_videos_by_label_and_named_class():
    ranked = np.array([[0], [2], [2], [-1]])
    labels = np.array([0, 1, 1, 1])

    matrix = metrics.confusion_matrix(ranked, labels, 3)

    assert matrix.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]


def test_unread_videos_lower_the_recall_and_no_precision():
    ranked, labels = np.array([[0], [0], [-1]]), np.array([0, 1, 0])
    confusion = metrics.confusion_matrix(ranked, labels, 2)

    shares = metrics.precision_recall(confusion, np.array([2, 1]))

    assert shares[0].tolist() == [0.5, 0.5, 0.5]


def test_the_paired_bootstrap_agrees_with_spelt_out_resampling():
    videos = np.arange(200)
    one, other = videos % 10 < 7, videos % 20 < 12

    low, high = metrics.paired_interval(one, other)

    chosen = np.random.default_rng(1).integers(0, 200, (20_000, 200))
    draws = one[chosen].mean(axis=1) - other[chosen].mean(axis=1)
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.006)


def test_a_hundred_videos_without_a_difference_are_not_certainty():
    right = np.arange(100) < 60

    assert metrics.paired_interval(right, right) == pytest.approx((-0.0362, 0.0362), abs=1e-4)


def test_a_single_difference_makes_no_certainty_of_the_other_direction():
    """Without it the bound is 0.0362; Tango's interval of 0 and 1 of 100 ends at 0.027."""
    right = np.arange(100) < 60

    low, high = metrics.paired_interval(right, np.arange(100) < 61)

    assert -0.04 < low < -0.01
    assert high == pytest.approx(0.0262, abs=1e-4)


@pytest.mark.parametrize(
    ("more", "num_videos", "leaves_open"),
    [(3, 3, True), (5, 5, True), (6, 6, False), (3, 4, True), (5, 100, True), (6, 100, False)],
)
def test_a_difference_in_one_direction_is_as_sure_as_mcnemars_test(more, num_videos, leaves_open):
    """Exact, of both sides: p is 0.0625 of 5 of 5, and 0.031 of 6 of 6."""
    right, other = np.full(num_videos, True), np.arange(num_videos) >= more

    low, high = metrics.paired_interval(right, other)

    assert (low <= 0) == leaves_open
    assert low < more / num_videos <= high
    assert metrics.paired_interval(other, right) == pytest.approx((-high, -low), abs=0.02)


@pytest.mark.parametrize("interval", [metrics.bootstrap_interval, metrics.paired_interval])
def test_an_interval_is_drawn_by_its_seed_alone(interval):
    videos = np.arange(200)
    both = [videos % 3 > 0, videos % 7 > 2][: 2 if interval is metrics.paired_interval else 1]

    assert interval(*both) == interval(*both)
    assert interval(*both, resamples=50) != interval(*both, resamples=50, seed=1)


def test_the_bootstrap_agrees_with_spelt_out_resampling():
    correct = np.arange(200) % 10 < 7

    low, high = metrics.bootstrap_interval(correct)

    draws = np.random.default_rng(1).choice(correct, (20_000, 200)).mean(axis=1)
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.006)


@pytest.mark.parametrize(("right", "expected"), [(True, (0.963, 1.0)), (False, (0.0, 0.037))])
def test_a_hundred_hits_or_misses_are_not_certainty(right, expected):
    """Clopper-Pearson at 100 of 100: (0.025 ** (1 / 100), 1)."""
    assert metrics.bootstrap_interval(np.full(100, right)) == pytest.approx(expected, abs=1e-3)


def test_average_precision_by_hand():
    """Ranked +-+-: precisions at the positives are 1/1 and 2/3."""
    scores = np.array([0.9, 0.8, 0.7, 0.1])

    value = metrics.average_precision(scores, np.array([True, False, True, False]))

    assert value == pytest.approx((1 + 2 / 3) / 2)


def test_equal_scores_enter_average_precision_together():
    """All tied: one step to recall 1 at the share of positives, whichever comes first in the
    list."""
    scores = np.full(4, 0.5)

    value = metrics.average_precision(scores, np.array([True, False, False, False]))

    assert value == 0.25


def test_unread_videos_share_the_last_place_in_average_precision():
    scores = np.array([NAN, 0.9, NAN, 0.8])

    value = metrics.average_precision(scores, np.array([True, True, False, False]))

    assert value == pytest.approx((1 + 2 / 4) / 2)


def test_unread_videos_come_behind_one_whose_score_is_zero():
    assert metrics.average_precision(np.array([NAN, 0.0]), np.array([False, True])) == 1.0


def test_mean_average_precision_skips_classes_without_a_positive():
    scores = np.array([[0.9, 0.5], [0.1, 0.6]])
    targets = np.array([[True, False], [False, False]])

    assert metrics.mean_average_precision(scores, targets) == 1.0
