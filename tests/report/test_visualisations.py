"""Figures that look into a network: spectra, octave paths, Grad-CAM, strips, trade-off."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from octvideo.errors import ConfigError
from octvideo.layers import OctConv3d, OctTensor, merge
from octvideo.models import create_model
from octvideo.report.gradcam import gradcam, layer_to_look_at, overlay
from octvideo.report.hooks import captured, find_layer
from octvideo.report.octave_maps import draw_paths, path_maps
from octvideo.report.pictures import film_strip, with_color_bar
from octvideo.report.plots import color_map
from octvideo.report.spectrum import draw_spectra, energy_spectrum, pad_spectrum, radial_profile
from octvideo.report.tradeoff import Point, draw_tradeoff


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return create_model(
        "i3d_r26", alpha=0.5, num_classes=5, width_per_group=16, width_rule="int"
    ).eval()


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.randn(1, 3, 4, 64, 64)


def test_a_wave_has_all_its_energy_at_its_own_frequency():
    x = torch.cos(2 * torch.pi * 4 * torch.arange(32) / 32).expand(2, 3, 5, 32, 32)

    spectrum = energy_spectrum(x)

    assert spectrum[16, 16 + 4] == pytest.approx(0.25)
    assert spectrum[16, 16 - 4] == pytest.approx(0.25)
    assert spectrum.sum() == pytest.approx(0.5)


def test_a_constant_has_the_same_energy_at_every_size():
    small, large = (energy_spectrum(torch.full((1, 1, size, size), 3.0)) for size in (8, 15))

    assert small.max() == pytest.approx(9) == large.max()
    np.testing.assert_array_equal(np.argwhere(large > 1e-9), [[7, 7]])


def test_a_low_group_carries_nothing_above_its_own_nyquist():
    low = energy_spectrum(torch.randn(1, 4, 14, 14))

    radii, energy = radial_profile(pad_spectrum(low, 28, 28))

    assert (energy[radii < 0.25] > 0).all()
    assert (energy[radii > 0.25 * 2**0.5 + 1 / 28] == 0).all()


def test_spectra_are_drawn_beside_each_other(tmp_path):
    spectra = {
        "vanilla": energy_spectrum(torch.randn(1, 2, 16, 16)),
        "low": energy_spectrum(torch.randn(1, 2, 8, 8)),
    }

    draw_spectra(spectra, "res3").savefig(tmp_path / "spectra.png")

    assert (tmp_path / "spectra.png").stat().st_size > 10_000


def test_the_paths_add_up_to_the_output_of_an_octave_layer(network, clip):
    name = "res3.block1.spatial.conv"
    conv = find_layer(network, name)
    assert isinstance(conv, OctConv3d)

    maps = path_maps(network, clip, name)

    assert set(maps) == {"high", "low", "h2h", "l2h", "l2l", "h2l"}
    assert maps["h2h"].shape == maps["high"].shape
    assert maps["l2h"].shape == maps["low"].shape == maps["h2l"].shape
    draw_paths(np.zeros((64, 64, 3), np.uint8), maps, name)


def test_a_path_is_drawn_as_it_was_before_the_sum(network, clip):
    name = "res3.block1.spatial.conv"
    conv = find_layer(network, name)
    entered = []
    with conv.register_forward_pre_hook(lambda _, args: entered.append(args[0])):
        maps = path_maps(network, clip, name)

    with torch.no_grad():
        h2h = conv.h2h(entered[0].high)
    np.testing.assert_array_equal(maps["h2h"], h2h[:, :, h2h.shape[2] // 2].abs().mean(1)[0])
    assert (maps["h2h"] != maps["high"]).any()


def test_a_layer_that_is_no_octave_convolution_is_refused_by_name(network, clip):
    with pytest.raises(ConfigError, match="no octave convolution"):
        path_maps(network, clip, "res3")
    with pytest.raises(ConfigError, match=r"did you mean res3"):
        path_maps(network, clip, "res33")


def test_hooks_are_gone_after_a_look(network, clip):
    with captured(network, ["res2", "res5"]) as found:
        network(clip)

    assert isinstance(found["res2"], OctTensor)
    assert merge(found["res2"]).shape == (1, 64, 4, 16, 16)
    assert not network.get_submodule("res2")._forward_hooks


def test_gradcam_finds_where_the_evidence_is():
    """A network that looks at one quarter only has its evidence there."""

    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv3d(3, 2, 1, bias=False)
            nn.init.ones_(self.body.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)[..., :8, :8].mean((2, 3, 4))

    clip = torch.zeros(1, 3, 2, 16, 16)
    clip[..., :8, :8] = 1

    evidence = gradcam(Corner(), clip, 1, layer="body")["high"]

    assert evidence.shape == (2, 16, 16)
    assert evidence[:, :7, :7].min() > 0.5
    assert evidence[:, 9:, 9:].max() == 0


def test_gradcam_sees_both_octaves_at_the_size_of_the_clip(network, clip):
    of_classes = [gradcam(network, clip, c, layer="res4") for c in range(5)]

    for evidence in of_classes:
        assert {name: e.shape for name, e in evidence.items()} == {
            "high": (4, 64, 64),
            "low": (4, 64, 64),
        }
        assert all(e.min() >= 0 for e in evidence.values())
    assert max(e.max() for evidence in of_classes for e in evidence.values()) == pytest.approx(1)
    frames = overlay(np.full((4, 64, 64, 3), 128, np.uint8), evidence["high"])
    assert frames.shape == (4, 64, 64, 3)
    assert frames.dtype == np.uint8


@pytest.mark.parametrize(
    ("size", "layer"), [(224, "res5"), (112, "res4"), (64, "res3"), (32, "res2")]
)
def test_gradcam_looks_where_there_are_enough_positions(network, size, layer):
    chosen = layer_to_look_at(network, torch.zeros(1, 3, 2, size, size))

    assert chosen == layer


def test_gradcam_of_a_slowfast_looks_at_its_slow_pathway():
    slowfast = create_model("slowfast_r50", num_classes=3, width_per_group=16).eval()
    clip = torch.randn(1, 3, 32, 64, 64)

    layer = layer_to_look_at(slowfast, clip)

    assert layer == "slow.res3"
    assert gradcam(slowfast, clip, 0, layer)["high"].shape == (32, 64, 64)
    assert find_layer(slowfast, "res3") is slowfast.slow.res3


def test_gradcam_of_another_network_looks_at_a_child_with_a_map():
    net = nn.Sequential(
        nn.Conv3d(3, 4, 3, stride=(1, 2, 2)), nn.Conv3d(4, 4, 3, stride=(1, 2, 2)), nn.Flatten()
    )

    assert layer_to_look_at(net, torch.zeros(1, 3, 5, 32, 32)) == "1"
    with pytest.raises(ConfigError, match="name a layer"):
        layer_to_look_at(nn.Flatten(), torch.zeros(1, 3, 5, 32, 32))


def test_the_axes_of_a_spectrum_are_centered_on_its_entries():
    figure = draw_spectra({"a": np.full((8, 8), 1.0), "b": np.full((5, 5), 2.0)}, "res3")

    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    pixel = (right - left) / 8
    assert left + 4.5 * pixel == pytest.approx(0)  # entry 4 is the zero frequency
    assert (left, right) == (-0.5 - pixel / 2, 0.5 - pixel / 2) == (top, bottom)


def test_half_of_an_even_map_s_last_frequency_is_the_positive_one():
    padded = pad_spectrum(np.ones((4, 4)), 8, 8)

    np.testing.assert_allclose(padded[4, 2:7], [0.5, 1, 1, 1, 0.5])
    assert padded.sum() == pytest.approx(16)


def test_octave_maps_share_one_scale(network, clip):
    maps = path_maps(network, clip, "res3.block1.spatial.conv")

    figure = draw_paths(np.zeros((64, 64, 3), np.uint8), maps, "a")

    limits = {axes.images[0].get_clim() for axes in figure.axes[1 : 1 + len(maps)]}
    assert limits == {(0.0, max(float(m.max()) for m in maps.values()))}


def test_a_color_bar_stands_beside_a_strip():
    sheet = film_strip([("a", np.zeros((2, 20, 30, 3), np.uint8))])

    wide = np.asarray(with_color_bar(sheet, color_map("inferno"), "evidence"))

    assert wide.shape[1] > sheet.width
    bar = wide[22:-22, sheet.width + 4]
    assert bar[0].sum() > bar[-1].sum()


def test_labels_of_a_tradeoff_keep_clear_of_lines():
    points = [Point("a", alpha, 10 - 8 * alpha, 60 - 10 * alpha, 55, 65) for alpha in (0, 0.2, 0.5)]

    (axes,) = draw_tradeoff(points, paper=()).axes

    pixels = axes.transData.transform
    line = [pixels((p.gflops, p.accuracy)) for p in reversed(points)]
    texts = [t for t in axes.texts if t.get_text() in (".2", ".5")]
    assert len(texts) == 2
    for text in texts:
        spot = pixels(text.get_position())
        for (x0, y0), (x1, y1) in pairwise(line):
            share = np.linspace(0, 1, 50)
            away = np.hypot(x0 + share * (x1 - x0) - spot[0], y0 + share * (y1 - y0) - spot[1])
            assert away.min() > 6


def test_a_film_strip_has_a_row_per_clip_and_keeps_first_and_last_frame():
    clip = np.stack([np.full((20, 30, 3), shade, np.uint8) for shade in range(0, 250, 25)])

    sheet = np.asarray(film_strip([("a", clip), ("b", clip)], most=4, height=20))

    shades = set(np.unique(sheet[4 + 18 : 4 + 18 + 20]))
    assert shades == {0, 75, 150, 225, 255}
    assert sheet.shape[0] == 2 * (20 + 18 + 4) + 4


def test_the_tradeoff_shows_runs_and_paper_side_by_side(tmp_path):
    runs = [Point("I3D", 0.0, 28.1, 80.0), Point("I3D", 0.1, 25.6, 81.0)]

    figure = draw_tradeoff(runs)

    assert len(figure.axes) == 2
    figure.savefig(tmp_path / "tradeoff.png")


def test_the_tradeoff_names_what_its_points_and_bars_are():
    points = [Point("I3D", 0.0, 28.1, 30.0, 28.0, 32.0)]

    runs, paper = draw_tradeoff(points, metric="mAP").axes

    assert [axes.get_ylabel() for axes in (runs, paper)] == ["mAP, %", "top-1, %"]
    assert "standard deviation over runs" in [t.get_text() for t in runs.get_legend().get_texts()]
