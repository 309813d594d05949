"""Networks as they are registered, but with fewer stages: fast to compile and to export."""

from typing import Any

from torch import nn

from octvideo import create_model
from octvideo.models.network import Head


def first_stages(name: str, count: int, **options: Any) -> nn.Module:
    """The stem, res2 (and res3 for a count of 2, ...) and the classifier of a one-pathway video
    network."""
    model = create_model(name, **options)
    for number in range(2 + count, 6):
        setattr(model, f"res{number}", nn.Identity())
    fc = model.head.fc
    model.head = Head(fc.in_features >> (4 - count), fc.out_features, dropout_rate=0.0)
    return model
