"""Each variant of benchmarks/ablation does what its name says, and the made pictures need what they
claim."""

import json

import pytest
import torch

from octvideo.complexity import count
from octvideo.errors import DataError
from octvideo.layers import OctConv3d, OctTensor

SMALL = {"width_per_group": 16, "num_classes": 3, "dropout_rate": 0.0, "zero_init_final_bn": False}
CLIP = (3, 2, 64, 64)


@pytest.fixture(autouse=True)
def _as_a_script_finds_its_neighbors(repo, monkeypatch):
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))


@pytest.fixture
def build():
    """build("max pool"): that variant, small, drawn from one seed."""
    from ablation.variants import SHARED, VARIANTS

    def build(name: str) -> torch.nn.Module:
        torch.manual_seed(0)
        return VARIANTS[name].build(**SHARED, **SMALL).eval()

    return build


def inner_layers(model):
    return [m for m in model.modules() if isinstance(m, OctConv3d) and m.l2l is not None]


def pair(layer, size=8):
    high, low = layer.in_channels
    return OctTensor(
        torch.randn(1, high, 2, size, size), torch.randn(1, low, 2, size // 2, size // 2)
    )


@pytest.mark.parametrize(("name", "deaf"), [("without h2l", "low"), ("without l2h", "high")])
def test_without_a_path_a_group_does_not_hear_the_other(build, name, deaf):
    layers = inner_layers(build(name))
    other = {"low": "high", "high": "low"}[deaf]

    assert layers
    for layer in layers:
        x = pair(layer)
        changed = OctTensor(**{deaf: getattr(x, deaf), other: getattr(x, other) + 1})
        torch.testing.assert_close(
            getattr(layer(x), deaf), getattr(layer(changed), deaf), rtol=0, atol=0
        )
        assert not torch.equal(getattr(layer(x), other), getattr(layer(changed), other))


def test_without_both_the_groups_meet_only_where_the_pair_begins_and_ends(build):
    model = build("without both")

    assert all(set(layer.paths) == {"h2h", "l2l"} for layer in inner_layers(model))
    begins = [
        name for name, m in model.named_modules() if isinstance(m, OctConv3d) and m.h2l is not None
    ]
    assert begins == ["res2.block0.reduce.conv", "res2.block0.shortcut.conv"]


@pytest.mark.parametrize("name", ["max pool", "strided convolution"])
def test_another_way_down_keeps_the_kernels(build, name):
    plain, changed = build("octave"), build(name)

    assert changed.state_dict().keys() == plain.state_dict().keys()
    for key, value in changed.state_dict().items():
        assert torch.equal(value, plain.state_dict()[key]), key


@pytest.mark.parametrize("stride", [1, 2])
def test_the_max_pool_is_all_that_differs_from_the_average(stride):
    """Where all pixels of a window are alike, the maximum is the average."""
    from ablation.variants import MaxPooledOctConv3d

    layer = ((4, 4), (4, 4), (1, 3, 3), (1, stride, stride), (0, 1, 1))
    average, maximum = (kind(*layer, bias=False) for kind in (OctConv3d, MaxPooledOctConv3d))
    maximum.load_state_dict(average.state_dict())
    window = 2 * stride
    flat = torch.randn(1, 4, 2, 4, 4).repeat_interleave(window, -1).repeat_interleave(window, -2)
    x = OctTensor(flat, flat[..., ::2, ::2])

    same, changed = average(x), maximum(x)

    torch.testing.assert_close(changed.high, same.high)
    torch.testing.assert_close(changed.low, same.low)

    rough = OctTensor(torch.randn_like(x.high), x.low)
    assert not torch.allclose(maximum(rough).low, average(rough).low)


@pytest.mark.parametrize("size", [7, 8])
def test_strided_convolutions_see_every_second_or_fourth_pixel(size):
    from ablation.variants import StridedOctConv3d

    layer = StridedOctConv3d((2, 2), (2, 2), 1, (1, 2, 2), bias=False)
    x = OctTensor(torch.randn(1, 2, 1, size, size), torch.randn(1, 2, 1, 4, 4))

    out = layer(x)

    assert torch.equal(out.high, sampled(layer.h2h, x.high, 2) + layer.l2h(x.low))
    assert torch.equal(out.low, sampled(layer.h2l, x.high, 4) + sampled(layer.l2l, x.low, 2))


def sampled(conv, x, step):
    return torch.nn.functional.conv3d(x[..., ::step, ::step], conv.weight)


def test_the_cost_of_what_is_left_out_is_gone(build):
    macs = {
        n: count(build(n), CLIP).macs
        for n in ("octave", "without h2l", "without l2h", "without both", "max pool")
    }

    saved = {name: macs["octave"] - cost for name, cost in macs.items()}
    assert saved["without both"] == saved["without h2l"] + saved["without l2h"]
    assert saved["without h2l"] > 0
    assert saved["without l2h"] > 0
    assert saved["max pool"] == 0


@pytest.mark.parametrize("name", ["strided convolution", "strided stages"])
def test_a_strided_network_costs_what_the_pooled_one_does(build, name):
    assert count(build(name), CLIP).macs == count(build("octave"), CLIP).macs


def test_variants_train_on_the_same_examples_in_the_same_order(build):
    from ablation.training import Examples, Recipe, train

    examples = Examples(
        torch.randint(256, (6, 3, 4, 32, 32), dtype=torch.uint8), torch.arange(6) % 3
    )
    seen: dict[str, list[torch.Tensor]] = {"octave": [], "max pool": [], "non-local across": []}
    for name, batches in seen.items():
        model, before = build(name), build(name).state_dict()
        train(
            model,
            examples,
            Recipe(2, 2, 0.1),
            5,
            lambda x, _, b=batches: b.append(x) or x,
            lambda *_: None,
        )
        assert not torch.equal(model.head.fc.weight, before["head.fc.weight"])

    first = torch.cat(seen["octave"])
    assert all(torch.equal(torch.cat(batches), first) for batches in seen.values())


def test_neither_shape_nor_texture_alone_decides_a_picture():
    from ablation_image import halves

    targets = torch.arange(16)
    only_shape = torch.zeros(16, 16).index_put((targets, targets - targets % 4), torch.tensor(9.0))

    assert halves(only_shape, targets) == {"shape": 100.0, "texture": 25.0}


def test_pictures_follow_from_the_seed_and_hold_every_class_alike():
    from ablation.pictures import make_pictures

    once, again, other = (make_pictures(32, seed) for seed in (1, 1, 2))

    assert torch.equal(once.inputs, again.inputs)
    assert not torch.equal(once.inputs, other.inputs)
    assert once.targets.bincount().tolist() == [2] * 16


def test_at_half_the_size_shapes_stay_and_textures_fade():
    """The classes differ in what a low group loses, and in what it keeps."""
    from ablation.pictures import grid, shape, texture

    draw = torch.full((12,), 0.5)
    half = [torch.nn.functional.avg_pool2d(f(0, grid(), draw)[None], 2) for f in (shape, texture)]

    assert half[0].std() > 0.9 * shape(0, grid(), draw).std()
    assert half[1].std() < 0.5 * texture(0, grid(), draw).std()


def test_a_run_that_is_there_is_not_run_again_and_one_of_other_settings_is_refused(tmp_path):
    from ablation.records import kept

    path = tmp_path / "a" / "run.json"
    first = kept(path, lambda: {"top1": 1.0}, crop=(64, 64), recipe={"lr": 0.1})

    def again():
        pytest.fail("ran again")

    assert kept(path, again, crop=(64, 64), recipe={"lr": 0.1}) == first
    with pytest.raises(
        DataError, match=r"run\.json: a run of other settings .*'lr': 0\.1.* delete"
    ):
        kept(path, again, crop=(64, 64), recipe={"lr": 0.2})


def test_decoded_clips_of_another_folder_of_the_same_name_are_refused(tmp_path, monkeypatch):
    import ablation.clips
    from ablation.training import Examples

    examples = Examples(torch.zeros(1, 3, 2, 4, 4, dtype=torch.uint8), torch.zeros(1).long())
    monkeypatch.setattr(ablation.clips, "listed", lambda folder, split: examples)
    cache = tmp_path / "clips.npz"
    ablation.clips.load_clips(tmp_path / "one/clips", cache)

    assert len(ablation.clips.load_clips(tmp_path / "one/clips", cache)["test"]) == 1
    with pytest.raises(DataError, match=r"of other clips than .*two/clips, 16 frames of 72 pixels"):
        ablation.clips.load_clips(tmp_path / "two/clips", cache)


def test_a_difference_is_taken_seed_by_seed():
    from ablation.records import within_seeds

    reference = {1: {"top1": 50.0}, 2: {"top1": 60.0}, 3: {"top1": 70.0}}
    better = {seed: {"top1": run["top1"] + 2 + seed} for seed, run in reference.items()}

    assert within_seeds(better, reference) == [3.0, 4.0, 5.0]


def test_the_tables_of_the_page_are_those_of_the_records(repo):
    import ablation_image as image
    import ablation_video as video
    from ablation.records import table

    page = (repo / "docs" / "results_ablations.md").read_text()
    runs = {
        k: json.loads((video.RESULTS / f"ablation_{k}.json").read_text())["runs"]
        for k in ("demo", "pictures")
    }

    assert table(runs["demo"], video.against) in page, (
        "paste what benchmarks/ablation_video.py prints"
    )
    assert table(runs["pictures"], image.against) in page, (
        "paste what benchmarks/ablation_image.py prints"
    )
    assert image.overfitting(runs["pictures"]) in page, (
        "paste what benchmarks/ablation_image.py prints"
    )
