"""The weights of an image network or of a vanilla video network, and which of them were used."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from octvideo.errors import CheckpointError
from octvideo.models.slowfast import SlowFast

State = Mapping[str, Tensor]

# Tensors in the names of this package, and how many dimensions they may have: image networks of
# other projects have 1x1 convolutions as classifiers.
DIMENSIONS = {
    re.compile(r"(?:\bstem\.conv|\.[hl]2[hl]|\.attend\.conv_\w+)\.weight$"): (4, 5),
    re.compile(r"^head\.fc\.weight$"): (2, 3, 4, 5),
    re.compile(
        r"(?:\bstem\.bn|\.bn\.(?:high|low)|\.attend\.norm)"
        r"\.(?:weight|bias|running_mean|running_var)$"
    ): (1,),
}
PATH = re.compile(r"(.+)\.(?:h2l|l2h|l2l)\.weight")


def is_video(state: State) -> bool:
    """Whether a kernel has three dimensions."""
    return any(tensor.dim() == 5 for tensor in state.values())


def check_shapes(state: State, path: str) -> None:
    """Raise CheckpointError for a tensor that its name says to be a kernel, a classifier or a
    norm's and its shape not, and for octave paths without the one from high to high."""
    for name, tensor in state.items():
        shape = tuple(tensor.shape)
        for pattern, dimensions in DIMENSIONS.items():
            if pattern.search(name) and (len(shape) not in dimensions or 0 in shape):
                wanted = " or ".join(map(str, dimensions))
                raise CheckpointError(
                    f"{path}: {name} has the shape {shape}; it must have {wanted} dimensions, none"
                    " of them 0: name a whole file"
                )
        path_of = PATH.fullmatch(name)
        if path_of and f"{path_of[1]}.h2h.weight" not in state:
            raise CheckpointError(
                f"{path}: has {name} and no {path_of[1]}.h2h.weight: name a whole file"
            )


def is_octave(state: State) -> bool:
    return any(name.endswith(".l2h.weight") for name in state)


def by_pathway(state: State, model_3d: nn.Module) -> State:
    """Weights by the names of an image network: SlowFast's slow pathway loses its name."""
    if not isinstance(model_3d, SlowFast):
        return state
    return {name.removeprefix("slow."): tensor for name, tensor in state.items()}


class SourceWeights:
    """Weights to inflate or to split, and the names of those that were used."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.used: set[str] = set()
        self.is_video = is_video(state)

    def kernel(self, module: nn.Module) -> tuple[int, ...]:
        """The kernel size of a 3D convolution in these weights."""
        size: tuple[int, ...] = module.kernel_size  # type: ignore[assignment]
        return tuple(size) if self.is_video else tuple(size[1:])

    def pass_over(self, block: str) -> str:
        """Mark the weights of a non-local block as used without using them; returns the reason."""
        found = [name for name in self.state if name.startswith(f"{block}.")]
        self.used.update(found)
        return (
            "in an octave network it is as wide as the high group"
            if found
            else "the weights have none"
            if self.is_video
            else "image networks have none"
        )

    def get(self, name: str) -> Tensor | None:
        self.used.add(name)
        return self.state.get(name)

    def take(self, name: str, shape: Sequence[int] | None = None) -> Tensor:
        tensor = self.get(name)
        if tensor is None:
            raise CheckpointError(
                f"the image weights lack {name}; RESNET.DEPTH, RESNET.BLOCK and MODEL.ARCH must be"
                " those of one network"
            )
        if shape is not None and tensor.shape != shape:
            raise misfit(name, tensor.shape, shape)
        return tensor.float()

    def unused(self) -> list[str]:
        return [name for name in shapes_of(self.state) if name not in self.used]

    @staticmethod
    def load(filled: State, model: nn.Module) -> None:
        """Load what was made of the weights. Raises CheckpointError for a name that the network's
        state dict lacks: the hook of a spectral norm would silently drop the value."""
        state = model.state_dict()
        if computed := [name for name in filled if name not in state]:
            raise CheckpointError(
                f"{computed[0]} of the network is computed, by a hook or a parametrization; fill"
                " the network before its weights are pruned or normalized"
            )
        model.load_state_dict({**state, **filled})


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    """Of all tensors but the counters of batches, which nothing depends on: files from before torch
    0.4.1, and converted ones, lack them."""
    return {n: tuple(t.shape) for n, t in state.items() if not n.endswith("num_batches_tracked")}


def misfit(name: str, got: Sequence[int], wanted: Sequence[int]) -> CheckpointError:
    return CheckpointError(
        f"{name} is {tuple(got)} in the image weights, {tuple(wanted)} in the network; "
        "RESNET.DEPTH, WIDTH_PER_GROUP and NUM_GROUPS must be those of the image network"
    )
