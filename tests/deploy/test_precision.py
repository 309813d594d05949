"""Lower precision is near to fp32, or refused with the reason."""

import copy
import pickle
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from octvideo.deploy import engines, precision
from octvideo.deploy.engines import optimize, relative_difference
from octvideo.deploy.openvino import OpenVINO, convert_low_precision
from octvideo.errors import ConfigError, OctvideoError
from octvideo.layers import OctConv3d
from octvideo.layers.conv3d_as_2d import Conv3d

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Tiny(nn.Module):
    """A strided stem and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv3d(3, 16, (3, 7, 7), (1, 2, 2), (1, 3, 3))
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(self.stem(x).relu().mean((2, 3, 4)))


@pytest.fixture(autouse=True)
def _cache_of_a_test(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTVIDEO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model():
    return Tiny().eval().requires_grad_(False)


@pytest.fixture
def clips():
    return torch.randn(16, 3, 2, 17, 20)


@pytest.fixture
def has_bf16(monkeypatch):
    monkeypatch.setattr(precision, "computes_bf16", lambda: True)


@pytest.fixture
def nncf(monkeypatch):
    """Stands in for nncf; its quantization changes nothing."""
    fake = SimpleNamespace(
        set_log_level=lambda level: None,
        Dataset=list,
        quantize=lambda network, data, subset_size: network,
    )
    monkeypatch.setitem(sys.modules, "nncf", fake)
    return fake


@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_the_graph_of_a_lower_precision_is_exact_but_for_rounding(model, clips, form, nncf):
    """Its stem by space to depth among other things, at odd and even sizes."""
    fast = convert_low_precision(model, clips, form)
    fast.precision = "fp32"

    assert relative_difference(fast(clips), model(clips)) < 1e-5
    assert not model.stem.by_space_to_depth


class Pools(nn.Module):
    """Two pools on even maps, one on an odd one, and one of another size."""

    def forward(self, x):
        x = nn.functional.avg_pool3d(x, (1, 2, 2))
        x = nn.functional.avg_pool2d(x[:, :, 0], 2)
        x = nn.functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return nn.functional.avg_pool2d(x, (2, 1)).mean((2, 3))


def test_pools_of_even_maps_become_convolutions_which_have_int8(nncf):
    x = torch.randn(2, 3, 4, 24, 12)
    fast = convert_low_precision(Pools(), x, "int8", lambda graph: precision.quantized(graph, x))

    kinds = Counter(op.get_type_name() for op in fast.network.get_ops())

    assert (kinds["GroupConvolution"], kinds["AvgPool"]) == (2, 2)
    assert relative_difference(fast(x), Pools()(x)) < 1e-5


def test_the_bars_of_the_quantizer_leave_stdout_alone(nncf, monkeypatch, capsys):
    monkeypatch.setattr(nncf, "quantize", lambda *_, **__: print("Statistics collection 100%"))
    for step in ("prepare", "drop_ranges_behind_upsampling"):
        monkeypatch.setattr(precision.int8_graph, step, lambda network: None)

    precision.quantized(None, torch.rand(8, 3, 2, 8, 8))

    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Statistics collection 100%\n")


def test_bf16_is_near(model, clips, has_bf16):
    fast = optimize(model, clips, precision="bf16")

    assert fast.precision == "bf16"
    assert relative_difference(fast(clips), model(clips)) < 0.03


def test_the_precision_goes_where_the_graph_goes(model, clips, tmp_path):
    fast = convert_low_precision(model, clips, "bf16")
    fast.save(tmp_path / "fast.xml")

    for again in (
        OpenVINO.read(tmp_path / "fast.xml", (17, 20)),
        pickle.loads(pickle.dumps(fast)),
    ):
        assert again.precision == "bf16"


def test_an_int8_that_passes_its_check_is_given_and_kept(model, clips, nncf, monkeypatch):
    monkeypatch.setattr(engines, "convert_low_precision", counted := Counted(convert_low_precision))

    fast, again = (optimize(model, clips, precision="int8", calibration=clips) for _ in range(2))

    assert fast.precision == again.precision == "int8"
    assert counted.calls == 1
    assert relative_difference(again(clips), model(clips)) < 0.01


class Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


def test_an_int8_that_changes_classes_is_refused_with_the_reason(model, clips, nncf, monkeypatch):
    wrong = copy.deepcopy(model)
    wrong.fc.weight.data.neg_()
    wrong.fc.bias.data.neg_()
    monkeypatch.setattr(
        engines, "convert_low_precision", lambda m, *rest: convert_low_precision(wrong, *rest)
    )

    with pytest.raises(OctvideoError, match=r"int8 is refused: of 8 held-out clips \d get another"):
        optimize(model, clips, precision="int8", calibration=clips)


def test_a_class_that_was_undecided_may_change():
    expected = torch.tensor([[1.0, 0.99, 0.0]])
    outputs = {"fast": expected[:, [1, 0, 2]], "model": expected}
    nets = {name: Constant(value) for name, value in outputs.items()}

    precision.check_int8(nets["fast"], nets["model"], torch.zeros(3, 1))


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


def test_a_network_of_one_class_is_held_to_the_change_of_its_output_alone():
    near, far, model = (Constant(torch.tensor([[p]])) for p in (0.89, 0.7, 0.9))

    precision.check_int8(near, model, torch.zeros(3, 1))
    with pytest.raises(OctvideoError, match=r"3 held-out clips 0 get another class .* by 22\.2%"):
        precision.check_int8(far, model, torch.zeros(3, 1))


@pytest.mark.parametrize("form", ["fp32", "bf16"])
def test_an_engine_whose_output_is_not_finite_is_refused(model, clips, form, has_bf16, monkeypatch):
    broken = Constant(torch.full((1, 4), torch.nan))
    monkeypatch.setattr(engines, "convert_low_precision", lambda *_: broken)
    monkeypatch.setitem(engines.ENGINES, "openvino", lambda *_: broken)

    with pytest.raises(OctvideoError, match="differs by nan from the network"):
        optimize(model, clips, engine="openvino", precision=form)


def test_an_output_that_is_not_finite_is_refused():
    with pytest.raises(OctvideoError, match="int8 is refused"):
        precision.check_int8(
            Constant(torch.full((1, 3), torch.nan)), Constant(torch.rand(1, 3)), torch.zeros(3, 1)
        )


@pytest.mark.parametrize("form", ["fp32", "bf16", "auto"])
def test_a_calibration_of_another_precision_is_refused(model, clips, form, has_bf16):
    with pytest.raises(ConfigError, match=f"calibration is for precision int8, and .* is {form};"):
        optimize(model, clips, precision=form, calibration=clips)


def test_openvino_is_refused_off_the_cpu(model, clips):
    with pytest.raises(ConfigError, match="openvino is for CPUs, and the example is on meta"):
        optimize(model, clips.to("meta"), engine="openvino")


@pytest.mark.parametrize("count", [0, 7])
def test_int8_needs_clips(model, clips, count):
    with pytest.raises(ConfigError, match=f"got {count} clips to calibrate on; give at least 8"):
        optimize(model, clips, precision="int8", calibration=clips[:count] if count else None)


def test_a_missing_quantizer_is_one_line_with_the_remedy(model, clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)

    with pytest.raises(OctvideoError, match="nncf is missing; pip install nncf"):
        optimize(model, clips, precision="int8", calibration=clips)


def test_a_cpu_without_bf16_is_told_so_and_auto_stays_fp32(model, clips, monkeypatch):
    monkeypatch.setattr(precision, "computes_bf16", lambda: False)

    assert precision.resolve("auto", "openvino") == "fp32"
    with pytest.raises(ConfigError, match="neither AMX nor AVX512-BF16; take precision fp32"):
        optimize(model, clips, precision="bf16")


def test_auto_is_bf16_where_the_cpu_has_it(has_bf16):
    assert precision.resolve("auto", "openvino") == "bf16"
    assert precision.resolve("auto", "torch") == "fp32"


def test_another_engine_and_another_precision_are_refused(model, clips):
    with pytest.raises(ConfigError, match="precision int8: only engine openvino has it"):
        optimize(model, clips, engine="torch", precision="int8")
    with pytest.raises(ConfigError, match="no precision 'fp8'; there are auto, fp32, bf16, int8"):
        optimize(model, clips, precision="fp8")


@pytest.mark.parametrize(
    ("alpha", "form", "slow"),
    [(0.125, "bf16", True), (0.5, "bf16", False), (0.5, "int8", True), (0.0, "int8", False)],
)
def test_an_octave_that_does_not_pay_is_announced(alpha, form, slow, caplog):
    precision.warn_of_slow_octave(OctConv3d(64, 64, 1, alpha=alpha), form)

    assert bool(caplog.records) == slow


def test_the_clips_that_check_have_not_calibrated():
    clips = torch.arange(9)

    first, second = precision.split_clips(clips)

    assert first.tolist() == [0, 2, 4, 6, 8]
    assert second.tolist() == [1, 3, 5, 7]


def test_a_difference_is_the_largest_over_the_largest_value():
    assert relative_difference(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 2.0, 4.0])) == 0.25


def test_int8_that_computes_no_numbers_is_refused():
    """The first of classes that are no numbers is class 0, which is right here."""
    clips = torch.tensor([[2.0, 1.0]]).expand(8, 2)

    with pytest.raises(OctvideoError, match="int8 is refused"):
        precision.check_int8(lambda x: x * float("nan"), nn.Identity(), clips)


def test_a_class_that_led_by_little_may_change_and_by_more_not():
    def swapped(x):
        return x.flip(-1)

    precision.check_int8(swapped, nn.Identity(), torch.tensor([[1.0, 0.96]]).repeat(8, 1))
    with pytest.raises(OctvideoError, match="8 get another class"):
        precision.check_int8(swapped, nn.Identity(), torch.tensor([[1.0, 0.94]]).repeat(8, 1))
