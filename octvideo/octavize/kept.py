"""What a layer has beside its weights, which a rewritten one would lose: hooks, shared tensors,
tensors that are plain attributes."""

from collections import Counter
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils import _pytree as pytree

from octvideo.copies import computed_by_hooks, plain_tensors
from octvideo.layers.calls import hooks_of

ASSIGNS = "its forward assigns a buffer or a tensor"
SHARED = "another part of the network reads its weights too"


def has_hooks(module: nn.Module) -> bool:
    """Whether something runs when the module, or one inside it, is called or differentiated."""
    return any(any(hooks_of(m)) for m in module.modules())


def why_kept(module: nn.Module) -> str:
    """The reason for leaving a layer with hooks or with computed weights as it is; "" for another
    one."""
    if call := next(filter(None, map(remedy, module.modules())), ""):
        return f"each call computes its weights anew, until {call}"
    return "it has hooks" if has_hooks(module) else ""


def remedy(module: nn.Module) -> str:
    """The call that makes a weight which is computed a parameter again; "" if there is none."""
    if is_parametrized(module):
        name = next(iter(module.parametrizations))  # type: ignore[arg-type]
        return f"torch.nn.utils.parametrize.remove_parametrizations(module, {name!r})"
    return next((f"torch.nn.utils.{call}" for call in computed_by_hooks(module).values()), "")


def sharing(root: nn.Module, graph: fx.Graph) -> set[nn.Module]:
    """The modules with a tensor that another module has too, or that the graph itself reads."""
    owned = {module: _held(module) for module in root.modules()}
    owners = Counter(key for held in owned.values() for key in held)
    tied = {key for key, number in owners.items() if number > 1}
    shared = {module for module, held in owned.items() if held & tied}
    for node in graph.nodes:
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            module = root.get_submodule(path)
            shared |= {module} if isinstance(getattr(module, name), Tensor) else set()
    return shared


def _held(module: nn.Module) -> set[int]:
    """The ids of its own parameters, buffers and other tensors, those in lists and dicts too."""
    own = (dict(module._parameters), dict(module._buffers), vars(module))
    return {id(x) for x in pytree.tree_leaves(own) if isinstance(x, Tensor)}


def own_tensors(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its buffers, and its plain attributes that are tensors; not what a hook computes anew."""
    computed, plain = computed_by_hooks(module), plain_tensors(module)
    return dict(module._buffers), {k: x for k, x in plain.items() if k not in computed}


def restored(module: nn.Module, saved: tuple[dict[str, Any], dict[str, Any]]) -> bool:
    """Whether `forward` assigned such a tensor; the module has its own again."""
    is_assigned = False
    for now, before in zip((module._buffers, vars(module)), saved, strict=True):
        is_assigned |= any(now.get(name) is not tensor for name, tensor in before.items())
        now.update(before)
    return is_assigned


def as_buffers(model: nn.Module) -> nn.Module:
    """Make the tensors that are plain attributes buffers, which a trace follows; returns `model`.

    Those that a hook computes anew stay, and what stands behind an attribute of the class.
    """
    for module in model.modules():
        computed = computed_by_hooks(module)
        for name, tensor in plain_tensors(module).items():
            is_parameter = isinstance(tensor, nn.Parameter)
            if not (name in computed or is_parameter or hasattr(type(module), name)):
                delattr(module, name)
                module.register_buffer(name, tensor, persistent=False)
    return model
