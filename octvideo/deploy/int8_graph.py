"""Changes of an OpenVINO graph that keep what is between an octave network's layers in 8 bits."""

from typing import Any

import numpy as np


def prepare(network: Any) -> None:
    """Change a graph in place, before the ranges of its maps are measured."""
    pools_as_convolutions(network)
    add_shortcuts_first(network)


def pools_as_convolutions(network: Any) -> None:
    """Replace 2 x 2 average pools on maps of even size by depthwise convolutions, which are
    computed in int8; pools are computed in fp32.

    An octave network has a pool before every convolution from the high to the low group.
    """
    from openvino import opset8 as ops

    for pool in [op for op in network.get_ops() if op.get_type_name() == "AvgPool"]:
        source, facts = pool.input_value(0), pool.get_attributes()
        _, channels, *_, height, width = source.get_partial_shape()
        kernel, zeros = list(facts["kernel"]), [0] * len(facts["kernel"])
        known = channels.is_static and height.is_static and width.is_static
        halves = kernel[-2:] == [2, 2] and set(kernel[:-2]) <= {1}
        if not (known and halves and kernel == list(facts["strides"])):
            continue
        if height.get_length() % 2 or width.get_length() % 2 or any(facts["pads_begin"]):
            continue
        quarter = np.full((channels.get_length(), 1, 1, *kernel), 0.25, np.float32)
        ones = [1] * len(kernel)
        conv = ops.group_convolution(source, quarter, kernel, zeros, zeros, ones)
        conv.set_friendly_name(pool.get_friendly_name())
        pool.output(0).replace(conv.output(0))


def add_shortcuts_first(network: Any) -> None:
    """Replace (convolution + other group) + shortcut by convolution + (other group + shortcut).

    A convolution adds one 8-bit map while it writes its output; a sum of three would stay in fp32,
    which takes four times the memory.
    """
    from openvino import opset8 as ops

    for relu in [op for op in network.get_ops() if op.get_type_name() == "Relu"]:
        outer = relu.input_value(0)
        for inner, shortcut in _operands(outer):
            if len(inner.get_target_inputs()) == 1 and (parts := _convolution_and_other(inner)):
                first = ops.add(parts[1], shortcut)
                first.set_friendly_name(inner.get_node().get_friendly_name())
                second = ops.add(parts[0], first)
                second.set_friendly_name(outer.get_node().get_friendly_name())
                outer.replace(second.output(0))
                break


def drop_ranges_behind_upsampling(network: Any) -> None:
    """Remove the ranges of upsampled maps from a quantized graph.

    Upsampling by repetition keeps the range of its input; another one takes a pass over memory, in
    fp32 if a sum follows.
    """
    for op in [op for op in network.get_ops() if op.get_type_name() == "FakeQuantize"]:
        source = op.input_value(0)
        if _type(source) != "Interpolate":
            continue
        if _type(source.get_node().input_value(0)) == "FakeQuantize":
            op.output(0).replace(source)


def _convolution_and_other(value: Any) -> tuple[Any, Any] | None:
    if _is_convolution(value):
        return None
    return next((pair for pair in _operands(value) if _is_convolution(pair[0])), None)


def _operands(value: Any) -> list[tuple[Any, Any]]:
    """(a, b) and (b, a) of a sum, else nothing."""
    if _type(value) != "Add":
        return []
    a, b = value.get_node().input_values()
    return [(a, b), (b, a)]


def _is_convolution(value: Any) -> bool:
    """With or without its bias."""
    if _type(value) == "Add":
        value, bias = value.get_node().input_values()
        return _type(value) == "Convolution" and _type(bias) == "Constant"
    return _type(value) == "Convolution"


def _type(value: Any) -> str:
    return str(value.get_node().get_type_name())
