"""A description of this installation, and of the content of a checkpoint."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from shutil import which
from typing import Any

from torch import nn

from octvideo.errors import installed_version
from octvideo.layers import OctConv2d, OctConv3d
from octvideo.models import create_model
from octvideo.models.registry import from_config
from octvideo.report.environment import environment
from octvideo.report.known_problems import known_problems
from octvideo.weights.pretrained import read_weights

LIBRARIES = ("pytorchvideo", "decord", "av", "fvcore", "iopath", "tensorboard", "matplotlib")


@dataclass(frozen=True, slots=True)
class Part:
    """An optional part: its purpose, and how to add it. package: its name on PyPI, or ""."""

    name: str
    purpose: str
    remedy: str
    package: str = ""

    @property
    def found(self) -> str:
        """Its version or path; "" if it is missing."""
        return installed_version(self.package) if self.package else which(self.name) or ""


OPTIONAL = (
    Part("onnx", "export to ONNX", "pip install onnx onnxscript", "onnx"),
    Part("onnxruntime", "checking ONNX exports", "pip install onnxruntime", "onnxruntime"),
    Part("openvino", "the fastest inference on CPUs", "pip install openvino", "openvino"),
    Part("c++", "torch.compile on CPUs", "install a C++ compiler, as g++"),
    Part("chromium", "opening report.html in the tests", "install chromium"),
)


def environment_lines() -> Iterator[str]:
    """Versions, devices, missing optional parts, known problems of this installation."""
    yield from _table(
        environment() | {name: installed_version(name) or "missing" for name in LIBRARIES}
    )
    for part in OPTIONAL:
        state = part.found or f"missing; for {part.purpose}: {part.remedy}"
        yield f"{part.name:<18}{state}"
    for number, problem in enumerate(known_problems(), start=1):
        yield f"{f'known problem {number}':<18}{problem}"


def checkpoint_lines(path: str) -> Iterator[str]:
    """Network, classes, preprocessing and progress of a checkpoint, as lines of text. Raises
    CheckpointError."""
    checkpoint = read_weights(path)
    network = checkpoint.network
    facts: dict[str, Any] = {
        "file": path,
        "tensors": len(checkpoint.state),
        "numbers": f"{sum(t.numel() for t in checkpoint.state.values()) / 1e6:.2f} M",
    }
    if "epoch" in checkpoint.training:
        facts["epoch"] = checkpoint.training["epoch"]
    if not network:
        facts["layout"] = (
            "not this package's: no network, classes or preprocessing is recorded in it"
        )
    yield from _table(facts)
    if network:
        default: dict[str, Any] = vars(
            create_model(network["name"], alpha=network.get("alpha", 0.0))
        )["config"]
        changed = {k: v for k, v in network.items() if v != default.get(k) and k != "name"}
        yield from _table({"network": network["name"], "alpha": network.get("alpha", 0.0)})
        yield from _table({f"  {k}": v for k, v in changed.items() if k != "alpha"})
        yield from _table({"groups": _groups(from_config(network))})
    names = checkpoint.class_names
    if names:
        yield from _table(
            {"classes": f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"}
        )
    yield from _table(checkpoint.input.as_dict() if network else {})


def _groups(model: nn.Module) -> str:
    """high + low channels at the end of each stage."""
    stages = {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2].startswith("res")
    }
    widths = []
    for name, stage in stages.items():
        convolutions = [m for m in stage.modules() if isinstance(m, OctConv2d | OctConv3d)]
        widths.append(f"{name} {convolutions[-1].out_channels}")
    return ", ".join(widths)


def _table(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name:<18}{value}" for name, value in facts.items())
