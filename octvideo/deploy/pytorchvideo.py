"""pytorchvideo's own networks, to be measured beside ours."""

from torch import nn

from octvideo.errors import ConfigError
from octvideo.models.pytorchvideo import import_pytorchvideo


def hub_model(name: str) -> nn.Module:
    """One of its networks with one pathway, by the name of its hub (and of ours): "c2d_r50",
    "i3d_r50", "slow_r50".

    Its head averages whatever positions there are, not a window of 224 pixels. Raises ConfigError
    for another name.
    """
    hub = import_pytorchvideo("hub.resnet")
    if name not in ("c2d_r50", "i3d_r50", "slow_r50"):
        raise ConfigError(
            f"pytorchvideo has no network {name!r} to compare with; it has c2d_r50, i3d_r50 and"
            " slow_r50"
        )
    model: nn.Module = getattr(hub, name)(model_num_class=400)
    model.blocks[-1].pool = nn.AdaptiveAvgPool3d(1)  # type: ignore[union-attr,index]
    return model
