"""A rank that trains for four steps, twice: in one go, and with a new wrapper in the middle, as a
resumed run has. `main` ends with status 1 where the weights differ."""

import sys

import torch
from torch import nn

from octvideo.engine.process_group import processes


class Crossed(nn.Module):
    """Its layers are used in another order than they are declared in."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(24, 24), nn.Linear(24, 40), nn.Linear(40, 24)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in (1, 2, 0):
            x = torch.relu(self.layers[i](x))
        return x


def trained(procs, wrapped_anew: bool) -> torch.Tensor:
    torch.manual_seed(0)
    model = Crossed()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    wrapped = procs.wrap(model)
    for step in range(4):
        if step == 2 and wrapped_anew:
            wrapped = procs.wrap(model)
        torch.manual_seed(10 * step + procs.rank)
        optimizer.zero_grad()
        wrapped(torch.randn(4, 24)).square().sum().backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def main() -> None:
    with processes("cpu") as procs:
        one, other = trained(procs, False), trained(procs, True)
    sys.exit(not torch.equal(one, other))
