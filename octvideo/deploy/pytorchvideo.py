"""pytorchvideo's networks, imported without torchvision, which has no wheel that works beside a CPU build of torch."""

import sys
import warnings
from types import ModuleType
from typing import Any

from torch import nn

from octvideo.errors import ConfigError, import_optional


def hub_model(name: str, num_classes: int = 400) -> nn.Module:
    """One of its networks with one pathway, by the name of its hub (and of ours): "c2d_r50", "i3d_r50", "slow_r50".

    Its head averages whatever positions there are, not a window of 224 pixels. Raises ConfigError for another name.
    """
    hub = import_pytorchvideo("hub.resnet")
    if name not in ("c2d_r50", "i3d_r50", "slow_r50"):
        raise ConfigError(
            f"pytorchvideo has no network {name!r} to compare with; it has c2d_r50, i3d_r50 and slow_r50"
        )
    model: nn.Module = getattr(hub, name)(model_num_class=num_classes)
    model.blocks[-1].pool = nn.AdaptiveAvgPool3d(1)  # type: ignore[union-attr,index]
    return model


def import_pytorchvideo(module: str) -> Any:
    """pytorchvideo.models.`module`, behind a stub of the two names of torchvision that are asked for at import."""
    stub = {} if "torchvision" in sys.modules else _stub_torchvision()
    sys.modules.update(stub)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.jit, on which its dependencies stand
            return import_optional(
                f"pytorchvideo.models.{module}", "comparing", "pip install pytorchvideo"
            )
    finally:
        for name in stub:
            del sys.modules[name]


def _stub_torchvision() -> dict[str, ModuleType]:
    names = (
        "torchvision",
        "torchvision.ops",
        "torchvision.datasets",
        "torchvision.datasets.folder",
    )
    modules = {name: ModuleType(name) for name in names}
    modules["torchvision.ops"].RoIAlign = nn.Identity  # type: ignore[attr-defined]
    modules["torchvision.datasets.folder"].make_dataset = None  # type: ignore[attr-defined]
    return modules
