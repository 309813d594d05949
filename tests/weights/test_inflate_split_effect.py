"""What is said of vanilla weights in an octave network."""

import torch
from torch import nn

from octvideo import create_model
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import inflate
from octvideo.weights.split_effect import Recovery, StageError, measure_recovery, stage_errors


def inflated(alpha: float, **options: object) -> tuple[nn.Module, nn.Module]:
    model_2d = create_model(
        "resnet26", width_per_group=16, num_classes=10, zero_init_final_bn=False
    ).eval()
    model_3d = create_model(
        "c2d_r26", width_per_group=16, num_classes=10, alpha=alpha, width_rule="int", **options
    )
    inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))
    return model_2d, model_3d


def test_a_vanilla_network_has_no_error() -> None:
    model_2d, model_3d = inflated(0.0)

    errors = stage_errors(
        model_2d.state_dict(), model_3d, torch.randn(1, 3, 2, 64, 64), Assumptions.of(model_2d)
    )

    assert [error.stage for error in errors] == ["res2", "res3", "res4", "res5"]
    assert all(error.error == 0 and error.pooled_share == 0 for error in errors)


def test_the_share_of_pooling_is_told_from_that_of_the_split() -> None:
    clips = torch.randn(1, 3, 2, 64, 64)
    model_2d, pooled = inflated(0.25)
    state, assumes = model_2d.state_dict(), Assumptions.of(model_2d)
    strided = create_model(**{**pooled.config, "downsample": "stride"})
    inflate(state, strided, assumes)

    with_pools, without = (
        stage_errors(state, pooled, clips, assumes),
        stage_errors(state, strided, clips, assumes),
    )

    assert all(0.05 < error.error < 1.5 for error in with_pools)
    assert [error.strided for error in with_pools] == [error.error for error in without]
    assert with_pools[0].pooled_share == 0  # res2 has no stride
    assert with_pools[1].pooled_share != 0
    assert (
        str(StageError("res3", 0.5, 0.4))
        == "res3: relative feature error 0.500, 20% of it from pooling"
    )


def test_recovery_is_measured_before_and_after_on_the_same_clips() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, affine=False))
    shifted = torch.eye(2)[torch.arange(8) % 2] + torch.tensor([5.0, 0.0])
    clips = [(shifted, torch.arange(8) % 2)]

    def remeasure(model: nn.Module) -> None:
        model.train()
        model[0].momentum = None
        model(shifted)

    assert measure_recovery(model, clips, remeasure) == Recovery(50.0, 100.0)
