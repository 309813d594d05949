"""What a layer has beside its weights, which a rewritten one would lose: hooks, shared tensors."""

from collections import Counter
from typing import Any

from torch import Tensor, fx, nn

HOOKED = "it has hooks"
SHARED = "another part of the network reads its weights too"


def has_hooks(module: nn.Module) -> bool:
    """Whether something runs when the module, or one inside it, is called or differentiated."""
    return any(any(hooks_of(m)) for m in module.modules())


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Those of its calls and of its gradients; what is inside has hooks of its own."""
    return (
        *(module._forward_pre_hooks, module._forward_hooks),
        *(module._backward_pre_hooks, module._backward_hooks),
    )


def sharing(root: nn.Module, graph: fx.Graph) -> set[nn.Module]:
    """The modules with a tensor that another module has too, or that the graph itself reads."""
    owned = [(module, tensor) for module in root.modules() for tensor in _own(module).values()]
    owners = Counter(id(tensor) for _, tensor in owned)
    shared = {module for module, tensor in owned if owners[id(tensor)] > 1}
    for node in graph.nodes:
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            module = root.get_submodule(path)
            shared |= {module} if name in _own(module) else set()
    return shared


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Its own parameters and buffers."""
    tensors = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
