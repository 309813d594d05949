"""An octave network is a module as any other: copied, saved, exported, compiled, distributed."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed as dist
from stand_ins import EfficientNet, ResNet
from torch import nn

from octvideo import create_model, octavize
from octvideo.deploy.fold import fold_batch_norm
from octvideo.octavize import OctaveModule

IMAGE = torch.rand(2, 3, 32, 32)
ONCE = (1, 1, 1)  # blocks per stage


@pytest.fixture(scope="module", params=["graph", "class"])
def made(request) -> nn.Module:
    """A network of somebody else, which becomes a graph, and one of this package, which keeps its
    class."""
    torch.manual_seed(0)
    vanilla = ResNet() if request.param == "graph" else create_model("resnet20_cifar", blocks=ONCE)
    return octavize(vanilla.eval(), 0.5, IMAGE)


@pytest.fixture
def octave(made) -> nn.Module:
    return copy.deepcopy(made)


@pytest.mark.parametrize("by", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_whole_and_apart(octave, by):
    copied = by(octave.train()).eval()
    octave.eval()

    assert type(copied).__bases__ == type(octave).__bases__
    assert copied.octave_report == octave.octave_report
    assert list(copied.state_dict()) == list(octave.state_dict())
    expected = octave(IMAGE)
    assert torch.equal(copied(IMAGE), expected)
    with torch.no_grad():
        next(copied.parameters()).zero_()
    assert torch.equal(octave(IMAGE), expected)
    assert not torch.equal(copied(IMAGE), expected)


COPIES = [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]


@pytest.mark.parametrize("by", COPIES)
def test_copies_of_a_compiled_network_call_themselves(octave, by):
    octave.compile(backend="eager")

    copied = by(octave)

    assert copied._compiled_call_impl is None
    assert list(copied.state_dict()) == list(octave.state_dict())


@pytest.mark.parametrize("by", COPIES)
def test_copies_have_what_the_result_was_given(by):
    octave = octavize(ResNet().eval(), 0.5, IMAGE)
    octave.labels, octave.itself, octave.layer1.note = ["cat", "dog"], [octave], "first"
    octave.extra = nn.Linear(2, 1)
    octave.register_parameter("scale", nn.Parameter(torch.ones(2)))
    octave.register_buffer("mean", torch.zeros(3), persistent=False)
    octave.layer1.train()

    copied = by(octave)

    assert isinstance(copied, OctaveModule)
    assert copied.itself == [octave if by is copy.copy else copied]
    assert (copied.labels, copied.layer1.note) == (["cat", "dog"], "first")
    assert (copied.labels is octave.labels) == (copied.extra is octave.extra) == (by is copy.copy)
    assert copied.octave_report == octave.octave_report
    assert list(copied.state_dict()) == list(octave.state_dict())
    assert [name for name, _ in copied.named_buffers()] == [n for n, _ in octave.named_buffers()]
    assert [m.training for m in copied.modules()] == [m.training for m in octave.modules()]
    assert torch.equal(copied.eval()(IMAGE), octave.eval()(IMAGE))


def test_a_state_dict_is_read_without_code(octave):
    file = io.BytesIO()
    torch.save(octave.state_dict(), file)
    file.seek(0)

    fresh = copy.deepcopy(octave)
    for parameter in fresh.parameters():
        nn.init.normal_(parameter)
    fresh.load_state_dict(torch.load(file, weights_only=True))

    assert torch.equal(fresh(IMAGE), octave(IMAGE))


def test_sorted_orders_are_part_of_the_state():
    """The network that reads the state may have been sorted otherwise."""
    model = ResNet().eval()
    octave, other = (octavize(model, 0.5, torch.rand(2, 3, 32, 32)) for _ in range(2))
    assert any(name.startswith("octave_orders.") for name in octave.state_dict())

    other.load_state_dict(octave.state_dict())

    assert torch.equal(other(IMAGE), octave(IMAGE))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_it_is_exported_for_any_batch(octave):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(octave, (IMAGE,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(IMAGE[:1]), octave(IMAGE[:1]))


def test_it_compiles_to_one_graph(octave):
    compiled = torch.compile(octave, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(IMAGE), octave(IMAGE))


def test_it_computes_in_half_precision_under_autocast(octave):
    with torch.autocast("cpu", torch.bfloat16):
        half = octave(IMAGE)
    torch.testing.assert_close(half.float(), octave(IMAGE), rtol=0.1, atol=0.1)


def test_it_trains_under_ddp(octave, tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(octave.train())
        wrapped(IMAGE).sum().backward()
        del wrapped
    finally:
        dist.destroy_process_group()
    assert all(p.grad is not None for p in octave.parameters())


@pytest.mark.parametrize("build", [ResNet, EfficientNet])
def test_its_batch_norms_fold_into_the_convolutions_before_them(build):
    model = build()
    model(IMAGE)  # statistics of their own
    octave = octavize(model.eval(), 0.5, IMAGE)

    folded = fold_batch_norm(octave)

    assert isinstance(octave, OctaveModule)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    torch.testing.assert_close(folded(IMAGE), octave(IMAGE), rtol=1e-4, atol=1e-5)


def test_the_parameters_stay_in_their_order():
    model = ResNet()
    octave = octavize(model, 0.5, IMAGE)

    def owners(network: nn.Module, depth: int) -> list[str]:
        return list(
            dict.fromkeys(".".join(n.split(".")[:depth]) for n, _ in network.named_parameters())
        )

    assert owners(octave, 3) == owners(model, 3)


def test_the_config_builds_it_again():
    octave = octavize(
        create_model("resnet20_cifar", blocks=ONCE),
        0.5,
        IMAGE,
        exclude=["res4.*"],
        width_rule="int",
    )
    again = create_model(**octave.config)
    again.load_state_dict(octave.state_dict())
    assert torch.equal(again.eval()(IMAGE), octave.eval()(IMAGE))
    assert torch.equal(again.window_scores(IMAGE), octave.window_scores(IMAGE))
