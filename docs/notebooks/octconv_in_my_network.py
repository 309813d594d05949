# %% [markdown]
# # Octave convolutions in a network of your own
#
# A small image network is written twice: once with `nn.Conv2d`, once with `OctConv2d`. Then a
# network that somebody else wrote is converted by one call. Last, what it saves is counted and
# measured.

# %%
import time

import torch
from torch import nn
from torch.nn import functional as F

import octvideo
from octvideo.complexity import count
from octvideo.layers import OctBatchNorm2d, OctConv2d, OctTensor

# %% [markdown]
# ## By hand
#
# `OctConv2d` takes the arguments of `nn.Conv2d` and `alpha`, the share of channels at half the
# height and width. A pair `(alpha_in, alpha_out)` enters the octave (`(0, .25)`) or leaves it
# (`(.25, 0)`); one number stays.


# %%
class SmallNet(nn.Module):
    def __init__(self, alpha: float, num_classes: int = 10) -> None:
        super().__init__()
        self.enter = OctConv2d(3, 32, 3, padding=1, alpha=(0, alpha))
        self.bn1 = OctBatchNorm2d(self.enter.out_channels)
        self.stay = OctConv2d(32, 64, 3, stride=2, padding=1, alpha=alpha)
        self.bn2 = OctBatchNorm2d(self.stay.out_channels)
        self.leave = OctConv2d(64, 64, 3, padding=1, alpha=(alpha, 0))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.enter(OctTensor(x))).map(F.relu)
        y = self.bn2(self.stay(y)).map(F.relu)
        return self.fc(self.leave(y).high.mean((2, 3)))


for alpha in (0, 0.25, 0.5):
    macs = count(SmallNet(alpha), (3, 64, 64)).macs
    print(f"alpha {alpha:<4}  {macs / 1e6:5.1f} M multiply-adds")

# %% [markdown]
# The octave network trains as any network does:

# %%
torch.manual_seed(0)
model = SmallNet(alpha=0.25)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
images = torch.randn(32, 3, 32, 32)
labels = torch.arange(32) % 10
losses = []
for _ in range(30):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}")

# %% [markdown]
# ## By one call
#
# `octvideo.octavize` converts a network and keeps its weights. At alpha 0 the result is the
# network that went in, bit for bit; the report says what became of each convolution.

# %%
theirs = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1, bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, padding=1, stride=2, bias=False),
    nn.BatchNorm2d(64),
    nn.ReLU(),
    nn.Conv2d(64, 64, 3, padding=1),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(64, 10),
).eval()
example = torch.randn(2, 3, 64, 64)

same = octvideo.octavize(theirs, alpha=0, example=example)
print("equal at alpha 0:", torch.equal(same.eval()(example), theirs(example)))

octave = octvideo.octavize(theirs, alpha=0.25, example=example)
print(octave.octave_report)

# %% [markdown]
# ## Does it pay?
#
# Fewer multiply-adds are not yet less time: pools, upsampling and sums are added. Measure on your
# machine, in turns; `octvideo benchmark` does so for the networks of the package, with spread and a
# verdict.


# %%
def fastest(model: nn.Module, x: torch.Tensor, rounds: int = 15) -> float:
    seconds = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            model(x)
            seconds.append(time.perf_counter() - start)
    return min(seconds)


large = torch.randn(8, 3, 128, 128)
ratio = fastest(octave.eval(), large) / fastest(theirs, large)
print(f"time of the octave network: {ratio:.2f} of the other's")
