"""The memory-saving form: the same gradients from fewer saved bytes."""

import pytest
import torch
from narrow_networks import theirs_of_two_blocks
from torch.nn.modules.module import register_module_forward_hook

from octvideo import create_model, octavize
from octvideo.layers import Channels, OctConv2d, OctConv3d, OctTensor, save_memory, up_to
from octvideo.layers.memory import AddUpsampled, add_upsampled, recomputed, saved_bytes

TINY = {"num_classes": 5, "width_per_group": 16, "width_rule": "int", "dropout_rate": 0.0}


def gradients(model: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("name", ["c2d_r26", "i3d_r26", "slowfast_r26"])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5])
def test_gradients_are_the_same_bits(name, alpha):
    model, x = create_model(name, alpha=alpha, **TINY), torch.randn(2, 3, 8, 45, 45)

    plain = gradients(model, x)
    saving = gradients(save_memory(model), x)

    assert all(torch.equal(a, b) for a, b in zip(plain, saving, strict=True))


def test_fewer_bytes_are_saved_than_in_the_plain_form_and_in_the_vanilla_network():
    x = torch.randn(2, 3, 4, 64, 64)
    vanilla, plain, saving = (
        create_model("i3d_r26", alpha=alpha, memory_saving=memory_saving, **TINY)
        for alpha, memory_saving in ((0.0, False), (0.5, False), (0.5, True))
    )

    weights = 4 * sum(p.numel() for p in vanilla.parameters())
    of_vanilla, of_plain, of_saving = (
        saved_bytes(lambda m=m: m(x)) - weights for m in (vanilla, plain, saving)
    )

    assert of_saving < 0.9 * of_plain
    assert of_saving < 0.7 * of_vanilla


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("make", [OctConv2d, OctConv3d])
def test_a_layer_alone_keeps_its_gradient(make, stride):
    conv = make(Channels(12, 4), Channels(12, 4), 3, (1, stride, stride)[3 - make.dims :], 1)
    size = (2, 12, 4, 9, 9) if make.dims == 3 else (2, 12, 9, 9)
    low = (2, 4, *size[2:-2], 5, 5)
    high_input, low_input = (
        torch.randn(shape, dtype=torch.float32, requires_grad=True) for shape in (size, low)
    )

    def of_inputs() -> tuple[torch.Tensor, ...]:
        y = conv(OctTensor(high_input, low_input))
        return torch.autograd.grad(y.high.sum() + y.low.square().sum(), [high_input, low_input])

    plain = of_inputs()
    save_memory(conv)

    assert all(torch.equal(a, b) for a, b in zip(plain, of_inputs(), strict=True))


def test_what_is_recomputed_is_not_saved():
    x = torch.randn(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        doubled = (x * 2).detach().requires_grad_()
        with recomputed(doubled, lambda: x.detach() * 2):
            return doubled.exp().log().sum() * 0 + doubled.square().sum()

    forward().backward()
    assert saved_bytes(forward) <= 4 * 1000


def test_a_part_of_what_is_recomputed_is_found_in_its_place():
    x = torch.randn(10, requires_grad=True)
    doubled = (x * 2).detach().requires_grad_()

    with recomputed(doubled, lambda: x.detach() * 2):
        loss = doubled[7:].square().sum()
    loss.backward()

    assert torch.equal(doubled.grad[7:], 2 * doubled[7:])


def test_saving_memory_is_no_part_of_what_a_network_is():
    assert (
        create_model("i3d_r26", alpha=0.5, memory_saving=True, **TINY).config
        == create_model("i3d_r26", alpha=0.5, **TINY).config
    )


def test_octave_layers_that_octavize_makes_save_memory_where_the_network_did():
    def saving(model):
        return {m.memory_saving for m in model.modules() if isinstance(m, OctConv2d)}

    x = torch.rand(2, 3, 16, 16)
    vanilla = {"name": "resnet20_cifar", "blocks": (1, 1, 1)}
    octave = octavize(create_model(**vanilla), 0.5, x)

    assert saving(octave) == saving(create_model(**octave.config)) == {False}
    assert saving(octavize(create_model(**vanilla, memory_saving=True), 0.5, x)) == {True}
    assert saving(create_model(**octave.config, memory_saving=True)) == {True}


@pytest.mark.parametrize("name", ["resnet20_cifar", "ptv:x3d_xs", "mobilenet_v1", "slowfast_r26"])
def test_a_line_says_where_saving_memory_changes_nothing(name, caplog):
    with torch.device("meta"), theirs_of_two_blocks():
        create_model(name, alpha=0.25, memory_saving=True)
        create_model(name)
        assert not caplog.messages
        create_model(name, memory_saving=True)

    [line] = caplog.messages
    assert line.startswith("memory_saving changes nothing in this ")
    assert "give it an alpha above 0" in line


@pytest.mark.parametrize("size", [(6, 6), (5, 7), (1, 1), (3, 4, 6), (2, 7, 5)])
def test_a_low_group_is_added_as_if_upsampled(size):
    *time, height, width = size
    x = torch.randn(2, 3, *size, requires_grad=True)
    low = torch.randn(2, 3, *time, -(-height // 2), -(-width // 2), requires_grad=True)
    weights = torch.randn_like(x)
    expected = x + up_to(low, x)
    gradients = torch.autograd.grad((expected * weights).sum(), [x, low])

    found = AddUpsampled.apply(x, low)

    assert torch.equal(found, expected)
    for a, b in zip(torch.autograd.grad((found * weights).sum(), [x, low]), gradients, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        assert torch.equal(add_upsampled(x, low, out=x.clone()), expected)


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_hook_keeps_the_output_of_a_path_in_evaluation(everywhere):
    conv, seen = OctConv2d(Channels(3, 1), Channels(3, 1), 3, padding=1), []
    x = OctTensor(torch.randn(1, 3, 5, 5), torch.randn(1, 1, 3, 3))

    def note(module, args, out):
        if module is conv.h2h:
            seen.append(out)

    register = register_module_forward_hook if everywhere else conv.h2h.register_forward_hook
    with torch.no_grad():
        without = conv(x)
        with register(note):
            watched = conv(x)
        assert torch.equal(seen[0], conv.h2h(x.high))
    assert torch.equal(watched.high, without.high)
