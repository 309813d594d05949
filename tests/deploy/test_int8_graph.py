"""What is changed in a graph for 8 bits computes the same, and is what a convolution can take in."""

import numpy as np
import pytest
import torch
from narrow_networks import of_one_block

from octvideo.deploy import int8_graph
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.openvino import OpenVINO, convert_low_precision

openvino = pytest.importorskip("openvino")


def test_a_prepared_graph_computes_the_same_and_a_convolution_is_in_each_sum():
    model = of_one_block("i3d_r26", alpha=0.5, num_classes=5, width_per_group=8).eval()
    for module in model.modules():  # A block of a fresh network adds nothing to its shortcut.
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.weight, 0.5, 1)
    model, x = fold_batch_norm(model), torch.randn(1, 3, 8, 64, 64)
    graph = convert_low_precision(model, x, "int8").network
    other = graph.clone()

    int8_graph.prepare(other)

    found, expected = OpenVINO(other, (8, 64, 64))(x), OpenVINO(graph, (8, 64, 64))(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert _sums_without_convolution(graph) == 4
    assert _sums_without_convolution(other) == 0
    pools = [op for op in other.get_ops() if op.get_type_name() == "AvgPool"]
    assert len(pools) < len([op for op in graph.get_ops() if op.get_type_name() == "AvgPool"])


def _sums_without_convolution(graph) -> int:
    """What a ReLU takes is, without the changes, (convolution + other) + shortcut."""
    sums = [op.input_value(0) for op in graph.get_ops() if op.get_type_name() == "Relu"]
    operands = [[a for a, _ in int8_graph._operands(value)] for value in sums]
    return sum(bool(pair) and not any(map(int8_graph._is_convolution, pair)) for pair in operands)


def test_upsampling_has_the_range_of_its_input():
    from openvino import opset11 as ops

    def in_8_bits(x):
        low, high = (np.float32(value) for value in (-2, 2))
        return ops.fake_quantize(x, low, high, low, high, 256)

    given = ops.parameter([1, 4, 6, 6], np.float32)
    scale = np.array([1, 1, 2, 2], np.float32)
    large = ops.interpolate(
        in_8_bits(given), scale, "nearest", "scales", coordinate_transformation_mode="asymmetric"
    )
    graph = openvino.Model([ops.result(in_8_bits(large))], [given], "upsampling")

    int8_graph.drop_ranges_behind_upsampling(graph)

    assert [op.get_type_name() for op in graph.get_ops()].count("FakeQuantize") == 1
