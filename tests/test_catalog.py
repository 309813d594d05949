"""`list_models`: names at once, costs on demand."""

import octvideo
from octvideo import catalog


def test_names_are_listed_without_counting(monkeypatch):
    monkeypatch.setattr(catalog, "_cost", None)

    assert "i3d_r50" in octvideo.list_models()
    assert "i3d_r51" not in octvideo.list_models()
    assert list(octvideo.list_models("slowfast*")) == [
        "slowfast_r101",
        "slowfast_r26",
        "slowfast_r50",
    ]


def test_a_network_shows_its_parameters_and_gflops():
    header, line = repr(octvideo.list_models("i3d_r50")).splitlines()

    assert header.split() == ["name", "parameters", "GFLOPs", "input"]
    # GFLOPs of PySlowFast's I3D 8x8 (padded stem pooling); the paper pools unpadded: 28.1.
    assert line.split()[:4] == ["i3d_r50", "28.04", "M", "28.41"]
    assert octvideo.list_models()["i3d_r50"].parameters == 28_043_472


def test_every_family_is_counted_on_the_input_it_is_made_for():
    costs = octvideo.list_models()

    assert not any(cost.uncounted for cost in (costs["slowfast_r50"], costs["resnet50"]))
    assert round(costs["slowfast_r50"].macs / 1e9, 1) == 27.6
    assert round(costs["resnet50"].macs / 1e9, 1) == 4.1
    assert round(costs["resnet20_cifar"].macs / 1e6) == 41
