# %% [markdown]
# # An ablation in miniature
#
# How do accuracy and multiply-adds depend on alpha, and on what is exchanged between the groups?
# The demo clips come in pairs that are each other played backwards, so that a single frame tells
# nothing. The networks here are tiny and trained for seconds: the notebook shows how to run such a
# study, not its result. `octvideo sweep` runs one over configs, with seeds, intervals and a table;
# docs/results_ablations.md has results.

# %%
import torch
from torch import nn
from torch.nn import functional as F

from octvideo import create_model
from octvideo.complexity import count
from octvideo.data.prepare.demo import make_clip
from octvideo.layers import OctConv3d

torch.manual_seed(0)
CLASSES, SIZE, FRAMES = 2, 32, 8


# %% [markdown]
# ## Clips


# %%
def clips(seeds: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Float (N, 3, T, H, W) and labels: "move left" and "move right"."""
    pairs = [(label, seed) for seed in seeds for label in range(CLASSES)]
    frames = torch.stack([torch.as_tensor(make_clip(label, seed=seed)) for label, seed in pairs])
    x = frames[:, ::3].permute(0, 4, 1, 2, 3).float() / 255 - 0.5
    x = F.interpolate(x, (FRAMES, SIZE, SIZE), mode="trilinear", align_corners=False)
    return x, torch.tensor([label for label, _ in pairs])


train_x, train_y = clips(range(24))
test_x, test_y = clips(range(1000, 1024))
print(tuple(train_x.shape), tuple(test_x.shape))


# %% [markdown]
# ## Training


# %%
def train(model: nn.Module, steps: int = 12, batch: int = 16) -> float:
    """Top-1 in per cent on the test clips after a few steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    model.train()
    for _ in range(steps):
        chosen = torch.randperm(len(train_x), generator=generator)[:batch]
        loss = F.cross_entropy(model(train_x[chosen]), train_y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        return 100 * (model(test_x).argmax(1) == test_y).float().mean().item()


def network(alpha: float) -> nn.Module:
    torch.manual_seed(2)
    options = {"num_classes": CLASSES, "width_per_group": 16, "crop_size": SIZE}
    return create_model("i3d_r26", alpha=alpha, dropout_rate=0.0, **options)


# %% [markdown]
# ## Alpha

# %%
print("alpha  M multiply-adds  top-1")
for alpha in (0, 0.25, 0.5):
    model = network(alpha)
    macs = count(model, (3, FRAMES, SIZE, SIZE)).macs / 1e6
    print(f"{alpha:<5}  {macs:15.1f}  {train(model):5.1f}")


# %% [markdown]
# ## Without the exchange between the groups
#
# The four kernels of an octave convolution are `h2h`, `h2l`, `l2h` and `l2l`. A kernel that is
# zero and frozen is a path that does not exist.


# %%
def without(model: nn.Module, *paths: str) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, OctConv3d) and layer.in_channels.low and layer.out_channels.low:
            for path in paths:
                nn.init.zeros_(getattr(layer, path).weight).requires_grad_(False)
    return model


for paths in ((), ("h2l",), ("l2h",), ("h2l", "l2h")):
    print(
        f"{', '.join(paths) or 'all paths there':16}",
        f"{train(without(network(0.25), *paths)):5.1f}",
    )
