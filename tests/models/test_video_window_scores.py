"""`window_scores`, PySlowFast's test head: a window of the training crop's map slides, softmax,
then mean."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo import create_model
from octvideo.models.network import pooled_features


def model_of(name: str, crop_size: int) -> nn.Module:
    width = 32 if name.startswith("slowfast") else 16
    model = create_model(
        name, alpha=0.25, num_classes=5, width_per_group=width, crop_size=crop_size
    ).eval()
    nn.init.normal_(model.head.fc.weight, std=1.0)
    return model


def clip_of(name: str, size: int) -> torch.Tensor:
    return torch.randn(3, 3, 8, size, size) * torch.rand(3, 1, 1, size, size)


@pytest.mark.parametrize("name", ["c2d_r26", "i3d_r26", "slowfast_r26"])
def test_at_the_training_size_both_rank_alike(name):
    model, clip = model_of(name, 96), clip_of(name, 96)

    with torch.no_grad():
        scores, logits = model.window_scores(clip), model(clip)

    torch.testing.assert_close(scores, logits.softmax(1))
    assert torch.equal(scores.argsort(1), logits.argsort(1))


@pytest.mark.parametrize("name", ["i3d_r26", "slowfast_r26"])
def test_one_pass_gives_scores_and_features_bit_for_bit(name):
    model, clip = model_of(name, 96), clip_of(name, 128)

    with torch.no_grad():
        found = model.scores_and_features(clip, "sigmoid")

        for ours, alone in zip(
            found, (model.window_scores(clip, "sigmoid"), pooled_features(model, clip)), strict=True
        ):
            assert torch.equal(ours, alone)


@pytest.mark.parametrize("name", ["i3d_r26", "slowfast_r26"])
def test_at_a_larger_size_the_mean_is_over_probabilities_of_four_windows(name):
    model, clip = model_of(name, 96), clip_of(name, 128)

    with torch.no_grad():
        scores, logits = model.window_scores(clip), model(clip)
        maps = [x.mean(2) for x in model.features(clip)]
        windows = [
            torch.cat([x[..., i : i + 3, j : j + 3].mean((2, 3)) for x in maps], 1)
            for i in (0, 1)
            for j in (0, 1)
        ]
        expected = torch.stack(
            [F.linear(w, model.head.fc.weight, model.head.fc.bias).softmax(1) for w in windows]
        )

    assert {tuple(x.shape[2:]) for x in maps} == {(4, 4)}
    torch.testing.assert_close(scores, expected.mean(0))
    assert not torch.allclose(scores, logits.softmax(1), atol=1e-4)


def test_256_pixels_are_four_positions_of_a_network_for_224():
    with torch.device("meta"):
        head = create_model("i3d_r50").head

    assert head.window == 7
    assert head._slide(torch.empty(1, 2048, 4, 8, 8, device="meta")).shape == (1, 2048, 2, 2)


def test_at_224_the_two_heads_agree_and_at_256_they_differ():
    model = model_of("i3d_r26", 224)

    with torch.no_grad():
        clips = [clip_of("i3d_r26", size) for size in (224, 256)]
        at_224, at_256 = ((model.window_scores(clip), model(clip).softmax(1)) for clip in clips)

        torch.testing.assert_close(*at_224)
        assert not torch.allclose(*at_256, atol=1e-4)


def test_a_map_smaller_than_the_window_is_one_position():
    model, clip = model_of("c2d_r26", 224), clip_of("c2d_r26", 64)

    with torch.no_grad():
        torch.testing.assert_close(model.window_scores(clip), model(clip).softmax(1))


def test_scores_are_probabilities():
    scores = model_of("c2d_r26", 64).window_scores(clip_of("c2d_r26", 100))

    torch.testing.assert_close(scores.sum(1), torch.ones(3))
    assert (scores >= 0).all()


@pytest.mark.parametrize("act", ["softmax", "sigmoid", "softmax_of_mean", "sigmoid_of_mean"])
def test_the_activation_comes_before_or_after_the_mean_over_windows(act):
    model, clip = model_of("i3d_r26", 96), clip_of("i3d_r26", 128)

    with torch.no_grad():
        scores = model.window_scores(clip, act)
        maps = F.avg_pool2d(model.features(clip)[0].mean(2), 3, 1)
        logits = model.head.fc(maps.permute(0, 2, 3, 1))

    function = torch.sigmoid if act.startswith("sigmoid") else lambda x: x.softmax(-1)
    late = act.endswith("_of_mean")
    expected = function(logits.mean((1, 2))) if late else function(logits).mean((1, 2))
    torch.testing.assert_close(scores, expected)
