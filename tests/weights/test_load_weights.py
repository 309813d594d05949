"""Files of three layouts load whole, with a report, or are refused with the model untouched."""

import logging
import pickle
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from octvideo import create_model
from octvideo.errors import CheckpointError
from octvideo.weights import load_weights


def narrow(name: str = "i3d_r26", seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    width = 32 if name.startswith("slowfast") else 16
    return create_model(name, **{"num_classes": 5, "width_per_group": width, **options})


def save(path: Any, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def equal(a: nn.Module, b: nn.Module) -> bool:
    state = b.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in a.state_dict().items())


# --- PySlowFast's names, written down from its modules


class PySlowFastBlock(nn.Module):
    """branch1, branch1_bn; branch2.a, a_bn, b, b_bn, c, c_bn."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        if not isinstance(ours.shortcut, nn.Identity):
            self.branch1, self.branch1_bn = ours.shortcut.conv.h2h, ours.shortcut.bn.high
        self.branch2 = nn.Module()
        for letter, layer in (("a", ours.reduce), ("b", ours.spatial), ("c", ours.expand)):
            self.branch2.add_module(letter, layer.conv.h2h)
            self.branch2.add_module(f"{letter}_bn", layer.bn.high)


def pyslowfast_state(model: nn.Module, norm: str = "norm") -> dict[str, Tensor]:
    """What PySlowFast would have in model_state for a vanilla network with these weights."""
    theirs = nn.Module()
    pathways = [model.slow, model.fast] if hasattr(model, "slow") else [model]
    for stage in range(1, 6):
        group = nn.Module()
        theirs.add_module(f"s{stage}", group)
        for p, pathway in enumerate(pathways):
            if stage == 1:
                stem = nn.Module()
                stem.conv, stem.bn = pathway.stem.conv, pathway.stem.bn
                group.add_module(f"pathway{p}_stem", stem)
                continue
            for name, block in getattr(pathway, f"res{stage}").named_children():
                if name.startswith("block"):
                    group.add_module(
                        f"pathway{p}_res{name.removeprefix('block')}", PySlowFastBlock(block)
                    )
                else:
                    nonlocal_block = nn.Module()
                    for part in ("conv_theta", "conv_phi", "conv_g", "conv_out"):
                        nonlocal_block.add_module(part, getattr(block.attend, part))
                    nonlocal_block.add_module(norm, block.attend.norm)
                    group.add_module(f"pathway{p}_{name}", nonlocal_block)
    for i, lateral in enumerate(getattr(model, "laterals", [])):
        fuse = nn.Module()
        fuse.conv_f2s, fuse.bn = lateral.conv.h2h, lateral.bn.high
        theirs.add_module(f"s{i + 1}_fuse", fuse)
    theirs.head = nn.Module()
    theirs.head.projection = model.head.fc
    return {name: tensor.clone() for name, tensor in theirs.state_dict().items()}


def test_the_names_written_down_are_pyslowfasts():
    """Names that public checkpoints have (SLOWFAST_4x16_R50, I3D_NLN_8x8_R50)."""
    two, attending = (
        pyslowfast_state(narrow("slowfast_r26")),
        pyslowfast_state(narrow("i3d_nln_r26")),
    )

    assert {
        "s1.pathway0_stem.conv.weight", "s1.pathway1_stem.bn.running_mean", "s1_fuse.conv_f2s.weight",
        "s1_fuse.bn.weight", "s2.pathway0_res0.branch1.weight", "s2.pathway0_res0.branch1_bn.bias",
        "s2.pathway1_res1.branch2.a.weight", "s5.pathway0_res0.branch2.c_bn.running_var", "head.projection.weight",
    } <= set(two)  # fmt: skip
    assert {"s3.pathway0_nonlocal1.conv_theta.bias", "s3.pathway0_nonlocal1.norm.weight"} <= set(
        attending
    )


@pytest.mark.parametrize("norm", ["bn", "norm"])
@pytest.mark.parametrize("name", ["c2d_r26", "i3d_r26", "i3d_nln_r26", "slow_r26", "slowfast_r26"])
def test_a_pyslowfast_file_loads_with_nothing_missing_or_left_over(name, norm, tmp_path):
    source, target = narrow(name, seed=1), narrow(name, seed=2)
    state = pyslowfast_state(source, norm)
    path = save(
        tmp_path / "theirs.pyth",
        {"epoch": 3, "model_state": state, "optimizer_state": {}, "cfg": "A: 1"},
    )

    report = load_weights(target, path)

    assert report.layout == "PySlowFast"
    assert len(report.loaded) == len(state) == len(source.state_dict())
    assert report.fits
    assert not report.skipped_head
    assert equal(target, source)


# --- Our own files


@pytest.mark.parametrize("wrap", ["model_state", "state_dict", None])
def test_our_own_files_load_in_every_wrapping(wrap, tmp_path):
    source, target = narrow(alpha=0.5, seed=1), narrow(alpha=0.5, seed=2)
    state = source.state_dict()

    report = load_weights(target, save(tmp_path / "own.pyth", {wrap: state} if wrap else state))

    assert report.layout == "octvideo"
    assert equal(target, source)


def test_the_moving_average_is_preferred(tmp_path):
    last, average, target = narrow(seed=1), narrow(seed=2), narrow(seed=3)

    load_weights(
        target,
        save(
            tmp_path / "c.pyth",
            {"model_state": last.state_dict(), "ema_state": average.state_dict()},
        ),
    )

    assert equal(target, average)


def test_prefixes_of_wrappers_are_taken_off(tmp_path):
    source, target = narrow(seed=1), narrow(seed=2)
    state = {f"module.net.{name}": t for name, t in source.state_dict().items()}

    load_weights(
        target, save(tmp_path / "ddp.pyth", {"model_state": state}), clear_prefixes=["net."]
    )

    assert equal(target, source)


def test_half_precision_and_uncounted_batches_are_taken(tmp_path):
    source, target = narrow(seed=1), narrow(seed=2)
    state = {
        n: t.half() for n, t in source.state_dict().items() if not n.endswith("num_batches_tracked")
    }

    load_weights(target, save(tmp_path / "half.pyth", {"model_state": state}))

    assert target.stem.conv.weight.dtype is torch.float32
    assert torch.equal(target.stem.conv.weight, source.stem.conv.weight.half().float())


def test_a_classifier_of_other_classes_is_skipped_and_reported(tmp_path, caplog):
    source, target = narrow(num_classes=7, seed=1), narrow(num_classes=5, seed=2)
    before = target.head.fc.weight.clone()

    with caplog.at_level(logging.INFO, "octvideo"):
        report = load_weights(
            target, save(tmp_path / "seven.pyth", {"model_state": source.state_dict()})
        )

    assert set(report.skipped_head) == {"head.fc.weight", "head.fc.bias"}
    assert torch.equal(target.head.fc.weight, before)
    assert torch.equal(target.stem.conv.weight, source.stem.conv.weight)
    assert "skipped head head.fc.bias: file (7,), model (5,)" in caplog.text


def without_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in state.items() if not n.startswith(("head.", "cls_head."))}


@pytest.mark.parametrize("state_of", [nn.Module.state_dict, pyslowfast_state])
def test_a_classifier_that_the_file_lacks_keeps_its_initialization(state_of, tmp_path, caplog):
    source, target = narrow(seed=1), narrow(seed=2)
    before = target.head.fc.weight.clone()
    path = save(tmp_path / "w.pyth", {"model_state": without_classifier(state_of(source))})

    with caplog.at_level(logging.INFO, "octvideo"):
        report = load_weights(target, path)

    assert report.fits
    assert report.skipped_head["head.fc.weight"] == (None, (5, 512))
    assert torch.equal(target.head.fc.weight, before)
    assert torch.equal(target.stem.conv.weight, source.stem.conv.weight)
    assert "skipped head head.fc.bias: file has none, model (5,)" in caplog.text


def test_for_testing_the_file_must_have_a_classifier(tmp_path):
    path = save(tmp_path / "w.pyth", {"model_state": without_classifier(narrow().state_dict())})

    with pytest.raises(CheckpointError, match="it has no classifier: train one from it"):
        load_weights(narrow(), path, new_classes=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.fc.bias"), r"1 missing .first: head.fc.bias .5,..; build"),
        (
            lambda s: [s.pop("head.fc.weight"), s.update({"head.fc.bias": torch.zeros(7)})],
            "1 missing .first: head.fc.weight",
        ),
        (
            lambda s: s.update({"fc.weight": s.pop("head.fc.weight")}),
            "1 missing .first: head.fc.weight .*1 unexpected .first: fc.weight",
        ),
        (
            lambda s: s.update({"head.fc.weight": torch.tensor(1.0)}),
            r"1 other shape .first: head.fc.weight \(\(\), ",
        ),
    ],
    ids=["half", "half of other classes", "another name", "a number"],
)
def test_a_classifier_that_is_not_whole_is_no_missing_one(change, message, tmp_path):
    state = narrow().state_dict()
    change(state)

    with pytest.raises(CheckpointError, match=message):
        load_weights(narrow(), save(tmp_path / "part.pyth", {"model_state": state}))


def test_for_testing_the_classes_must_be_the_files(tmp_path):
    path = save(tmp_path / "seven.pyth", {"model_state": narrow(num_classes=7).state_dict()})

    with pytest.raises(
        CheckpointError, match=r"classifies 7 classes, the model 5; set MODEL\.NUM_CLASSES"
    ):
        load_weights(narrow(), path, new_classes=False)


def test_a_classifier_of_other_features_is_none_of_other_classes(tmp_path):
    state = narrow().state_dict()
    state["head.fc.weight"] = state["head.fc.weight"][:, 1:]

    with pytest.raises(CheckpointError, match=r"1 other shape \(first: head.fc.weight"):
        load_weights(narrow(), save(tmp_path / "other.pyth", {"model_state": state}))


# --- Refused


@pytest.mark.parametrize(
    "stray", ["s1.pathway2_stem.conv.weight", "s3.pathway3_res0.branch1.weight"]
)
def test_a_pathway_that_no_network_has_is_unexpected(stray, tmp_path):
    state = pyslowfast_state(narrow()) | {stray: torch.zeros(1)}

    with pytest.raises(CheckpointError, match=f"1 unexpected .first: {stray}"):
        load_weights(narrow(), save(tmp_path / "w.pyth", {"model_state": state}))


@pytest.mark.parametrize("recipe", ["A: 2020-13-45", "A: !!int x", "[" * 5000])
def test_settings_that_cannot_be_read_say_nothing(recipe, tmp_path):
    content = {"model_state": pyslowfast_state(narrow()), "cfg": recipe}

    assert load_weights(narrow(), save(tmp_path / "w.pyth", content)).fits


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda s: s.pop("res3.block0.reduce.conv.h2h.weight"),
            "1 missing .first: res3.block0.reduce.conv.h2h.weight",
        ),
        (
            lambda s: s.update({"extra.weight": torch.zeros(2)}),
            r"1 unexpected .first: extra.weight \(2,\)",
        ),
        (
            lambda s: s.update({"stem.bn.bias": torch.zeros(3)}),
            r"1 other shape .first: stem.bn.bias \(\(3,\), \(16,\)",
        ),
    ],
)
def test_a_file_that_fits_in_part_is_refused_and_changes_nothing(damage, message, tmp_path, caplog):
    state = narrow(seed=1).state_dict()
    damage(state)
    target, twin = narrow(seed=2), narrow(seed=2)

    with pytest.raises(CheckpointError, match=f"does not fit i3d_r26: {message}") as caught:
        load_weights(target, save(tmp_path / "part.pyth", {"model_state": state}))

    assert equal(target, twin)
    assert "\n" not in str(caught.value)
    assert "tensors loaded" in caplog.text


def test_vanilla_weights_do_not_enter_an_octave_network_unnoticed(tmp_path):
    path = save(tmp_path / "vanilla.pyth", {"model_state": pyslowfast_state(narrow())})

    with pytest.raises(
        CheckpointError, match=r"does not fit i3d_r26: \d+ missing .*h2l\.weight.* other shape"
    ):
        load_weights(narrow(alpha=0.5), path)


@pytest.mark.parametrize(
    ("trained", "here", "message"),
    [
        (
            {"stride_1x1": True},
            {},
            "trained with stride_1x1=True, the model has False; set RESNET.STRIDE_1X1 to True",
        ),
        ({"stem_pool_padding": 0}, {}, "set RESNET.STEM_POOL_PADDING to 0"),
        (
            {"alpha": 0.5},
            {"alpha": 0.5, "downsample": "stride"},
            "set OCTCONV.DOWNSAMPLE to 'pool'",
        ),
        ({}, {"downsample": "pool"}, "set OCTCONV.DOWNSAMPLE to 'stride'"),
    ],
)
def test_weights_that_assume_another_network_of_the_same_shapes_are_refused(
    trained, here, message, tmp_path
):
    source = narrow(**trained)
    path = save(
        tmp_path / "own.pyth",
        {"model_state": source.state_dict(), "meta": {"model": source.config}},
    )

    with pytest.raises(CheckpointError, match=message):
        load_weights(narrow(**here), path)


def test_what_does_not_matter_may_differ(tmp_path):
    source = narrow(dropout_rate=0.5, crop_size=224, nonlocal_instantiation="dot_product")
    path = save(
        tmp_path / "own.pyth",
        {"model_state": source.state_dict(), "meta": {"model": source.config}},
    )

    load_weights(narrow(dropout_rate=0.0, crop_size=64), path)


def test_a_pyslowfast_files_own_settings_are_held_against_the_model(tmp_path):
    cfg = yaml.safe_dump({"RESNET": {"STRIDE_1X1": True}, "NONLOCAL": {"INSTANTIATION": "softmax"}})
    path = save(tmp_path / "t.pyth", {"model_state": pyslowfast_state(narrow()), "cfg": cfg})

    with pytest.raises(CheckpointError, match=r"set RESNET\.STRIDE_1X1 to True"):
        load_weights(narrow(), path)
    load_weights(narrow(stride_1x1=True), path)


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged|refused"),
        (b"not a checkpoint at all", "damaged|refused"),
        (
            pickle.dumps({"model_state": Evil()}),
            "refused, it is no pickle of arrays and plain values",
        ),
    ],
    ids=["empty", "text", "pickled call"],
)
def test_hostile_and_damaged_files_are_refused_and_run_nothing(content, message, tmp_path, capsys):
    (tmp_path / "bad.pyth").write_bytes(content)

    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(narrow(), str(tmp_path / "bad.pyth"))

    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_hostile_object_inside_torchs_own_format_is_refused(tmp_path, capsys):
    path = save(tmp_path / "evil.pyth", {"model_state": narrow().state_dict(), "cfg": Evil()})

    with pytest.raises(CheckpointError, match="refused"):
        load_weights(narrow(), path)

    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_torn_file_is_refused(keep, tmp_path):
    whole = (tmp_path / "whole.pyth", tmp_path / "torn.pyth")
    save(whole[0], {"model_state": narrow().state_dict()})
    data = whole[0].read_bytes()
    whole[1].write_bytes(data[: int(keep * len(data))])

    with pytest.raises(CheckpointError, match=r"damaged|refused"):
        load_weights(narrow(), str(whole[1]))


def test_a_network_with_a_config_of_another_project_is_filled_or_named(tmp_path):
    network = nn.Sequential(nn.Linear(2, 2))
    network.config = object()
    path = save(tmp_path / "whole.pth", nn.Sequential(nn.Linear(2, 2)).state_dict())

    assert load_weights(network, path).fits
    with pytest.raises(CheckpointError, match="does not fit Sequential: 2 missing"):
        load_weights(network, save(tmp_path / "alien.pth", {"model_state": {"a": torch.ones(1)}}))


def test_files_that_are_something_else_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_weights(narrow(), str(tmp_path / "absent.pyth"))
    with pytest.raises(CheckpointError, match="holds a list, not a checkpoint's dict"):
        load_weights(narrow(), save(tmp_path / "list.pyth", [1, 2]))
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_weights(narrow(), save(tmp_path / "other.pyth", {"epoch": 3}))
    with pytest.raises(CheckpointError, match="does not fit i3d_r26"):
        load_weights(
            narrow(),
            save(tmp_path / "alien.pyth", {"model_state": {"features.0.weight": torch.zeros(3)}}),
        )
