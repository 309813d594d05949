"""The official networks' oracles, and the networks of this package that should give the same
logits."""

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "official"

# The two that the repository holds, one of each spelling.
SMALL = {
    "resnet26_v2_a0250": ("preact_resnet26", {"alpha": 0.25}),
    "mobilenet_v1_075_a0375": ("mobilenet_v1", {"alpha": 0.375, "width": 0.75}),
}
ALL: dict[str, tuple[str, dict[str, Any]]] = SMALL | {
    "resnet50_v2_vanilla": ("preact_resnet50", {}),
    "resnet50_v2_a0500": ("preact_resnet50", {"alpha": 0.5}),
    "seresnet50_v2_a0250": ("preact_se_resnet50", {"alpha": 0.25}),
    "resnet50_v1b_a0250": ("resnet50", {"alpha": 0.25}),
    "resnet50_v1b_a0000": ("resnet50", {"downsample": "pool"}),
    "mobilenet_v1_100_a0000": ("mobilenet_v1", {"downsample": "pool"}),
    "resnet50_v2b_a0250": ("preact_resnet50", {"alpha": 0.25, "bn_eps": 1e-5}),
    "resnet152_v1f_a0125": ("resnet152_v1f", {"alpha": 0.125}),
    "densenet121_a0125": ("densenet121", {"alpha": 0.125}),
    "mobilenet_v2_100_a0375": ("mobilenet_v2", {"alpha": 0.375}),
}


def _load_rule() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "official_write_params", GOLDEN / "write_params.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rule = _load_rule()


def load(name: str, folder: Path = GOLDEN) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


def load_row(name: str) -> dict[str, Any]:
    """Of an official row of the table of public networks; make_rows.py made them."""
    return json.loads(gzip.decompress((GOLDEN / "rows" / f"{name}.json.gz").read_bytes()))


def write_file(
    name: str, path: Path, *, folder: Path = GOLDEN, by_prefix: bool = False
) -> dict[str, Any]:
    """Write the official file that oracle `name` describes to `path`; returns the oracle."""
    oracle = load(name, folder)
    rule.write(path, rule.parameters(oracle, by_prefix=by_prefix))
    return oracle


def write_shapes(name: str, path: Path, *, folder: Path) -> None:
    """Like `write_file`, with weights of one half, which need not be drawn."""
    oracle = load(name, folder)
    parameters = oracle["params"].items()
    shapes = {key: part if oracle["kind"] == "symbol" else part[1] for key, part in parameters}
    rule.write(path, {key: np.full(shape, 0.5, "f4") for key, shape in shapes.items()})
