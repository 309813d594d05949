"""What an optimization has found out is found again, for this network and this machine alone."""

import errno
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from octvideo import create_model
from octvideo.deploy import cache, engines, merge_choice
from octvideo.deploy.cache import kept, key_of, structure_of, weights_of
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.merge import MergedOctConv, mergeable
from octvideo.deploy.merge_choice import merge_where_faster
from octvideo.deploy.openvino import convert

# What torch's exporters say about themselves.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTVIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(key, compute):
    return kept(
        key,
        lambda entry: json.loads((entry / "value.json").read_text()),
        compute,
        lambda value, entry: (entry / "value.json").write_text(json.dumps(value)),
    )


def test_a_value_is_computed_once():
    assert [keep("key", lambda value=value: value) for value in (1, 2, 3)] == [1, 1, 1]


def test_a_damaged_entry_is_made_again_and_said(folder, caplog):
    keep("key", lambda: 1)
    (folder / "key" / "value.json").write_text("{")

    with caplog.at_level(logging.WARNING, "octvideo"):
        assert [keep("key", lambda: 2), keep("key", lambda: 3)] == [2, 2]

    assert "cannot be used" in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_line(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCTVIDEO_CACHE", str(tmp_path / "file"))

    with caplog.at_level(logging.WARNING, "octvideo"):
        assert keep("key", lambda: 1) == 1

    assert "is not kept" in caplog.text


def test_a_folder_that_cannot_be_looked_into_costs_a_line(monkeypatch, caplog):
    def closed(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    for name in ("stat", "mkdir"):  # root may look everywhere
        monkeypatch.setattr(Path, name, closed)

    with caplog.at_level(logging.WARNING, "octvideo"):
        assert keep("key", lambda: 1) == 1

    assert "is not kept (Permission denied)" in caplog.text


def test_nothing_is_kept_on_request(monkeypatch, tmp_path):
    monkeypatch.setenv("OCTVIDEO_CACHE", "")

    assert [keep("key", lambda value=value: value) for value in (1, 2)] == [1, 2]


def test_old_entries_make_room_and_nothing_else_does(folder, monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 3)

    (folder / "shards").mkdir(parents=True)
    (folder / "weights.pth").touch()

    for number in range(6):
        keep(key_of(number), lambda: 0)

    others = {"shards", "weights.pth"}
    assert others < {path.name for path in folder.iterdir()}
    assert len(list(folder.iterdir())) == 3 + len(others)


def test_an_entry_that_another_process_removes_meanwhile_is_no_failure(folder, caplog):
    folder.mkdir(parents=True)
    (folder / key_of("gone")).symlink_to(folder / "nowhere")

    with caplog.at_level(logging.WARNING, "octvideo"):
        assert [keep("key", lambda value=value: value) for value in (1, 2)] == [1, 1]

    assert not caplog.records


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OCTVIDEO_CACHE": "/c"}, Path("/c")),
        ({"OCTVIDEO_CACHE": ""}, None),
        ({"OCTVIDEO_HOME": "/home"}, Path("/home/optimized")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/octvideo/optimized")),
    ],
)
def test_the_folder_is_below_the_one_of_downloads_unless_it_is_named(
    monkeypatch, variables, expected
):
    for name in ("OCTVIDEO_CACHE", "OCTVIDEO_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert cache.optimized_folder() == expected


def test_keys_tell_structures_weights_and_threads_apart():
    conv, strided = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, stride=2)
    strided.load_state_dict(conv.state_dict())
    trained = nn.Conv2d(4, 4, 1)

    assert structure_of(conv) == structure_of(trained) != structure_of(strided)
    assert weights_of(conv) == weights_of(strided) != weights_of(trained)
    torch.set_num_threads(2)
    two = key_of("a")
    torch.set_num_threads(1)
    assert key_of("a") != two


def test_one_layer_of_each_kind_is_measured_and_the_choice_is_kept(monkeypatch):
    model = fold_batch_norm(
        create_model("i3d_r50", alpha=0.25, width_per_group=16, width_rule="int", num_classes=5)
    )
    prepared = []

    def prepare(layers, inputs):
        prepared.extend(layers)
        return [lambda: None] * len(inputs)

    monkeypatch.setattr(merge_choice, "interleaved", lambda *_: {0: [2.0], 1: [1.0]})
    x = torch.randn(2, 3, 4, 32, 32)
    merged = merge_where_faster(model, x, "test", prepare)
    measured = len(prepared)
    again = merge_where_faster(model, x, "test", prepare)

    names = mergeable(model)
    assert measured < 2 * len(names)
    assert len(prepared) == measured
    for network in (merged, again):
        found = [n for n, m in network.named_modules() if isinstance(m, MergedOctConv)]
        assert found == names
    with torch.no_grad():
        torch.testing.assert_close(again(x), model.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_second_optimization_makes_no_graph(monkeypatch):
    model = nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    x, made = torch.randn(2, 3, 4, 16, 16), []
    monkeypatch.setattr(engines, "convert", lambda *a: made.append(1) or convert(*a))

    first = engines.optimize(model.eval(), x, engine="openvino")
    second = engines.optimize(model, x, engine="openvino")

    assert len(made) == 1
    torch.testing.assert_close(second(x), first(x))


@pytest.mark.slow
def test_a_kept_graph_of_another_network_is_noticed(folder, monkeypatch, caplog):
    monkeypatch.setattr(engines, "weights_of", lambda model: "equal")
    networks = [nn.Sequential(nn.Conv3d(3, 8, 3), nn.Flatten()).eval() for _ in range(2)]
    x = torch.randn(2, 3, 4, 16, 16)
    engines.optimize(networks[0], x, engine="openvino")

    with caplog.at_level(logging.WARNING, "octvideo"):
        fast = engines.optimize(networks[1], x, engine="openvino")

    assert "differs by" in caplog.text
    with torch.no_grad():
        torch.testing.assert_close(fast(x), networks[1](x), rtol=1e-4, atol=1e-5)
