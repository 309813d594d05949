"""Every form in which a network computes on a GPU gives what the plain network gives in float64 on
a CPU."""

import copy

import pytest
import torch
from torch.nn import functional as F

from octvideo import create_model
from octvideo.deploy.engines import optimize, relative_difference
from octvideo.layers import channels_last, compute_in_2d, save_memory, stem_by_space_to_depth

pytestmark = pytest.mark.cuda

TINY = {"num_classes": 5, "width_per_group": 16, "width_rule": "int"}
NETWORKS = [("i3d_r26", 0.0), ("i3d_r26", 0.25), ("slowfast_r26", 0.25)]
FORMS = {
    "plain": {},
    "contiguous": {"last": False},
    "2D": {"in_2d": True},
    "space to depth": {"stem": True},
    "2D, space to depth": {"in_2d": True, "stem": True},
    "memory saving": {"in_2d": True, "saving": True},
}


def shaped(model, last=True, in_2d=False, stem=False, saving=False):
    compute_in_2d(channels_last(model, last), in_2d)
    return save_memory(stem_by_space_to_depth(model, stem), saving)


def clips(name):
    """Odd sizes, so that edges count."""
    return torch.randn(2, 3, 32 if name.startswith("slowfast") else 8, 39, 45)


def step(model, x):
    """Logits and, by name, the gradients of a training step."""
    logits = model.train()(x)
    F.cross_entropy(logits.float(), torch.arange(len(x), device=x.device)).backward()
    return logits, {name: p.grad for name, p in model.named_parameters()}


def assert_near(found, expected, tolerance):
    """Largest difference over the largest value."""
    difference = (found.cpu().double() - expected.cpu().double()).abs().max()
    assert difference <= tolerance * expected.abs().max().cpu() + 1e-12


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def reference(request):
    """A network, its clips, and what float64 on a CPU makes of them."""
    torch.manual_seed(0)
    name, alpha = request.param
    model = create_model(name, alpha=alpha, dropout_rate=0.0, **TINY)
    x = clips(name)
    exact = shaped(copy.deepcopy(model).double())
    logits, gradients = step(exact, x.double())
    return model, x, logits.detach(), gradients


@pytest.mark.parametrize("form", FORMS)
def test_a_training_step_is_that_of_float64(reference, form, device):
    model, x, logits, gradients = reference
    model = shaped(copy.deepcopy(model).to(device), **FORMS[form])

    found, found_gradients = step(model, x.to(device))

    assert_near(found, logits, 1e-4)
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        difference = (found_gradients[name].cpu().double() - gradient).abs().max()
        assert difference <= 2e-3 * largest, name


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_stays_near_float64(reference, form, device):
    model, x, logits, _ = reference
    model = shaped(copy.deepcopy(model).to(device), **FORMS[form])

    with torch.autocast("cuda", torch.bfloat16):
        found, gradients = step(model, x.to(device))

    assert found.dtype == torch.bfloat16
    assert_near(found, logits, 0.1)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("form", ["plain", "2D, space to depth"])
def test_a_stem_compiles_with_gradients(form, device):
    model = shaped(create_model("i3d_r26", alpha=0.25, **TINY).to(device), **FORMS[form]).eval()
    x = torch.randn(1, 3, 4, 32, 32, device=device)
    expected = torch.autograd.grad(model.stem(x).square().sum(), model.stem.conv.weight)[0]

    compiled = torch.compile(model.stem, fullgraph=True)
    found = torch.autograd.grad(compiled(x).square().sum(), model.stem.conv.weight)[0]

    assert_near(found, expected, 1e-4)


@pytest.mark.parametrize("name", ["i3d_r26", "slowfast_r26"])
def test_the_fused_engine_replays_each_shape_and_keeps_answers_apart(name, device):
    model = create_model(name, alpha=0.25, **TINY).eval().to(device)
    x, other = clips(name).to(device), clips(name)[:, :, :, :33].to(device)

    fast = optimize(model, x, engine="fused")
    with torch.inference_mode():
        found = [fast(x), fast(other), fast(x * 2), fast(x)]
        expected = [model(x), model(other), model(x * 2), model(x)]

    for one, another in zip(found, expected, strict=True):
        assert relative_difference(one, another) < 1e-3
    assert torch.equal(found[0], found[3])
