"""Operations that change a tensor which has other names, or is read again: octavize sees what
PyTorch does, or refuses it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo import octavize
from octvideo.errors import ConfigError
from octvideo.layers import OctTensor, merge

SIZES = {"2d": (2, 3, 8, 8), "3d": (2, 3, 4, 8, 8)}


class Net(nn.Module):
    """Two maps y and x of pointwise convolutions, `form` of both, and a head; `exported` asks what
    torch.fx cannot answer."""

    def __init__(self, form, size: str, exported: bool) -> None:
        super().__init__()
        conv = nn.Conv2d if size == "2d" else nn.Conv3d
        self.form, self.exported = form, exported
        self.stem, self.last = conv(3, 32, 1), conv(32, 32, 1)
        self.one, self.two, self.three = (conv(32, 32, 1) for _ in range(3))
        self.four = conv(64, 32, 1)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.drops = nn.Dropout(0.5, inplace=True)
        self.changes = Changes()
        self.register_buffer("seen", torch.ones(32, *[1] * (len(SIZES[size]) - 2)))

    def forward(self, x: Tensor) -> Tensor:
        if self.exported:
            assert isinstance(x, Tensor)
        x = self.stem(x)
        return self.last(self.form(self, self.one(x), self.two(x)))


class Changes(nn.Module):
    """Doubles its input, gives another tensor, and asks for the mode, so that it stays one call."""

    def forward(self, x):
        x.mul_(2)
        return x + 1 if self.training else 1 + x


def augmented_sum(m, y, x):
    z = y
    y += x
    return z * y


def sum_as_a_statement(m, y, x):
    y.add_(x)
    return y


def augmented_sum_in_a_function(m, y, x):
    def add(a, b):
        a += b

    add(y, x)
    return y


def difference_and_quotient(m, y, x):
    z = y
    y -= x
    z /= 2
    return y + z * x


def product_by_a_gate(m, y, x):
    z = y
    y.mul_(x.mean((-1, -2), keepdim=True))
    return z + y


def product_by_a_buffer(m, y, x):
    z = y
    y *= 3 * m.seen
    return z


def relu_of_a_shortcut(m, y, x):
    identity = y
    out = m.three(F.relu(y, inplace=True))
    out += identity
    return out


def relu_by_position(m, y, x):
    F.relu(y, True)
    return y


def relu_of_torch(m, y, x):
    torch.relu_(y)
    return y + x


def relu_module_of_a_shortcut(m, y, x):
    return m.three(m.relu(y)) + y


def relu_module_as_a_statement(m, y, x):
    m.relu(y)
    return y


def modules_one_after_the_other(m, y, x):
    z = y
    y = m.three(m.drops(m.relu(y)))
    return y + z


def clamp_and_fill(m, y, x):
    z = y
    y.clamp_(-0.1, 0.1)
    x.fill_(0.5)
    return z + x


def what_is_not_understood(m, y, x):
    z = y
    y.nan_to_num_().lerp_(x, 0.3)
    return m.three(z)


def given_as_out(m, y, x):
    z = y
    torch.add(y, x, out=y)
    return z


def copied_into(m, y, x):
    y.copy_(x)
    return m.three(y)


def concatenated_before(m, y, x):
    z = torch.cat([y, x], 1)
    y += 1
    return y + m.four(z)


def into_a_concatenation(m, y, x):
    z = torch.cat([y, x], 1)
    z *= 2
    return m.four(z)


def changed_in_an_opaque_module(m, y, x):
    return m.changes(y) + y


def changed_part(m, y, x):
    a, b = y.chunk(2, 1)
    m.relu(a)
    return torch.cat([a, b], 1)


def slice_of_channels(m, y, x):
    y.narrow(1, 4, 20).mul_(2)
    return y


def view_as_a_name(m, y, x):
    z = y.flatten(2)
    y.add_(x)
    return y * z.mean()


def detached_name(m, y, x):
    z = y.detach()
    y.mul_(2)
    return y + z


def name_in_evaluation(m, y, x):
    z = m.drop(y)
    y.mul_(2)
    return y + z


FOLLOWED = [
    *(augmented_sum, sum_as_a_statement, augmented_sum_in_a_function, difference_and_quotient),
    *(product_by_a_gate, product_by_a_buffer, relu_of_a_shortcut, relu_by_position, relu_of_torch),
    *(relu_module_of_a_shortcut, relu_module_as_a_statement, modules_one_after_the_other),
    *(clamp_and_fill, what_is_not_understood, given_as_out, copied_into, concatenated_before),
    *(into_a_concatenation, changed_in_an_opaque_module),
]
REFUSED = {
    changed_part: "m.relu(a)",
    slice_of_channels: "y.narrow(1, 4, 20).mul_(2)",
    view_as_a_name: "y.add_(x)",
    detached_name: "y.mul_(2)",
    name_in_evaluation: "y.mul_(2)",
}


def squares(size: str) -> Tensor:
    """Pooling by 2 in space loses nothing of it."""
    coarse = torch.randn(*SIZES[size][:-2], 4, 4)
    return coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)


def name_of(form) -> str:
    return form.__name__


@pytest.mark.parametrize(("size", "exported"), [("2d", False), ("3d", True)], ids=["fx", "export"])
@pytest.mark.parametrize("form", FOLLOWED, ids=name_of)
def test_all_that_holds_a_changed_tensor_sees_the_change(form, size, exported):
    """Bit for bit at alpha 0; at 0.5 on inputs of which octave loses nothing, whichever of the two
    maps is divided."""
    model, x = Net(form, size, exported).eval().requires_grad_(False), squares(size)
    if form is given_as_out and exported:
        return  # torch.export does not know `out`

    same = octavize(model, 0.0, x)
    octaves = [octavize(model, 0.5, x, exclude=names) for names in ([], ["one"], ["two"])]

    for training in (False, True):
        outputs = []
        for network in (model, same):
            torch.manual_seed(0)
            outputs.append(network.train(training)(x))
        assert torch.equal(*outputs)
    model.eval()
    assert octaves[0].octave_report.octave
    for octave in octaves:
        torch.testing.assert_close(octave(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", REFUSED, ids=name_of)
def test_a_network_that_changes_a_tensor_with_another_name_is_refused(form):
    with pytest.raises(ConfigError) as refusal:
        octavize(Net(form, "2d", False), 0.5, squares("2d"))

    message = str(refusal.value)
    assert f"{REFUSED[form]}: it writes into a tensor that has another name too; " in message
    assert "move that part into a submodule, which then stays as it is" in message
    assert "\n" not in message


class Block(nn.Module):
    """A part of a network that changes a tensor with another name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 1)

    def forward(self, x):
        x = self.conv(x)
        z = x.flatten(2)
        x *= 2
        return x + z.mean()


def test_a_submodule_that_does_so_stays_one_call():
    model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1), Block(), nn.Conv2d(32, 32, 1))
    x = squares("2d")

    same, octave = (octavize(model, alpha, x) for alpha in (0.0, 0.5))

    assert torch.equal(same(x), model(x))
    torch.testing.assert_close(octave(x), model(x), rtol=1e-4, atol=1e-5)
    assert "x *= 2: it writes into a tensor that has another name" in octave.octave_report.notes[0]


class IntoInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)

    def forward(self, x):
        y = self.one(x)
        x += y
        x *= 2
        return self.two(y + x)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_an_input_is_changed_as_before(alpha):
    model = IntoInput().requires_grad_(False)
    inputs = [torch.randn(2, 32, 4, 4).repeat_interleave(2, -1).repeat_interleave(2, -2)]
    inputs.append(inputs[0].clone())

    octave = octavize(model, alpha, inputs[0].clone(), include=["*"])

    torch.testing.assert_close(octave(inputs[0]), model(inputs[1]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*inputs, rtol=1e-4, atol=1e-5)


class Preactivated(nn.Module):
    """The activation changes the shortcut too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(inplace=True)
        self.one, self.two = (nn.Conv2d(32, 32, 3, 1, 1, bias=False) for _ in range(2))
        self.last = nn.Conv2d(32, 5, 3, 1, 1)

    def forward(self, x):
        x = self.one(self.stem(x))
        shortcut = x
        out = self.two(self.relu(x))
        out += shortcut
        shortcut.add_(1)
        return self.last(out) * shortcut.mean()


def test_an_octave_network_equals_one_that_is_written_by_hand():
    model, x = Preactivated(), torch.randn(2, 3, 8, 8)
    octave = octavize(model, 0.5, x, weights="as_is")

    pair = octave.one(OctTensor(octave.stem(x))).map(F.relu)
    out = octave.two(pair) + pair
    expected = octave.last(out).high * (merge(pair) + 1).mean()

    torch.testing.assert_close(octave(x), expected)
