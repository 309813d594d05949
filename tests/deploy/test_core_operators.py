"""An exported network in the converter's own operators computes what it did, without a second
trace."""

import logging
from functools import partial

import pytest
import torch
from narrow_networks import first_stages, of_one_block
from torch import nn
from torch.nn import functional as F

from octvideo.deploy.core_operators import core_operators
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.openvino import convert

TINY = {"num_classes": 5, "width_per_group": 8, "width_rule": "int"}


class _Layers(nn.Module):
    """Every operator that is replaced, with and without its defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3, self.conv2 = nn.Conv3d(3, 4, 3, padding=1, groups=1), nn.Conv2d(4, 4, 1)
        self.depthwise = nn.Conv3d(4, 4, (1, 3, 3), stride=(1, 2, 2), groups=4, bias=False)
        self.conv1, self.norm = nn.Conv1d(4, 4, 3, dilation=2), nn.BatchNorm3d(4)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool3d(self.norm(self.depthwise(self.conv3(x))), (1, 3, 3), 2, ceil_mode=True)
        x = F.max_pool2d(F.relu6(20 * self.conv2(x.mean(2))), 2)
        return F.dropout(self.conv1(x.flatten(2)), 0.5, False)


def _exported(model: nn.Module, x: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), (x,))


def test_each_replaced_operator_computes_the_same():
    torch.manual_seed(0)
    model, x = _Layers(), torch.randn(2, 3, 4, 32, 32)

    module = core_operators(_exported(model, x))
    module.recompile()

    torch.testing.assert_close(module(x), model.eval()(x))
    names = {str(node.target) for node in module.graph.nodes}
    assert not {name for name in names if "dropout" in name or "conv3d" in name or "relu6" in name}


def test_an_operator_that_writes_into_its_input_is_left_to_a_trace():
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            y[0].mul_(2)
            return y

    assert core_operators(_exported(InPlace(), torch.ones(2, 2))) is None


@pytest.mark.parametrize(
    ("name", "options", "traced_again"),
    [
        ("i3d_r26", {"alpha": 0.25}, False),
        ("i3d_r26", {"alpha": 0.25, "block": "preact"}, False),
        ("i3d_nln_r26", {"alpha": 0.25}, True),
    ],
)
def test_a_network_is_traced_again_only_where_the_converter_lacks_a_rule(
    name, options, traced_again, monkeypatch
):
    openvino = pytest.importorskip("openvino")
    given, real = [], openvino.convert_model
    monkeypatch.setattr(openvino, "convert_model", lambda m: given.append(m) or real(m))
    build = of_one_block if "block" in options else partial(first_stages, count=2)
    model = fold_batch_norm(build(name, **TINY, **options)).eval()
    x = torch.randn(1, 3, 8, 32, 32)

    fast = convert(model, x)

    assert isinstance(given[-1], torch.export.ExportedProgram) == traced_again
    assert logging.getLogger("octvideo").isEnabledFor(logging.WARNING)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
