"""What a layer has beside its weights, which a rewritten one would lose: hooks, shared tensors,
tensors that are plain attributes."""

from collections import Counter
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils import _pytree as pytree

from octvideo.copies import computed_by_hooks, plain_tensors
from octvideo.layers.calls import hooks_of

ASSIGNS = "its forward assigns a buffer or a tensor, or changes one in a list or dict"
SHARED = "another part of the network reads its weights too"
PLAIN = {bool, float, int, str, type(None)}
WITHOUT_TENSORS = vars(nn.Module()).keys() - {"_parameters", "_buffers"}


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


def own_tensors(module: nn.Module) -> dict[str, tuple[Any, list[Any]]]:
    """Its attributes, buffers among them, and the tensors in each with the times they were changed;
    lists and dicts are copied. Not what a hook computes anew."""
    left_out = WITHOUT_TENSORS | computed_by_hooks(module).keys()
    return {
        name: (value, []) if _is_plain(value) else _copied(name, value)
        for name, value in vars(module).items()
        if name not in left_out
    }


def _is_plain(value: Any) -> bool:
    """Whether it is a number, a text or a tuple of them, as most attributes of a layer are."""
    items = value if type(value) is tuple else (value,)
    return all(type(item) in PLAIN for item in items)


def restored(module: nn.Module, saved: dict[str, tuple[Any, list[Any]]]) -> bool:
    """Whether `forward` assigned a tensor, or changed one in a list or dict; the module has its
    own again."""
    nothing: tuple[Any, list[Any]] = (None, [])
    now = own_tensors(module)
    names = {**saved, **now}
    changed = [name for name in names if now.get(name, nothing)[1] != saved.get(name, nothing)[1]]
    for name in changed:
        if name in saved:
            vars(module)[name] = saved[name][0]
        else:
            del vars(module)[name]
    return bool(changed)


def _copied(name: str, value: Any) -> tuple[Any, list[Any]]:
    """An attribute, its lists and dicts copied, and the ids of the tensors in it, each with the
    number of its changes in place where a graph does not follow them."""
    leaves, structure = pytree.tree_flatten(value)
    tensors = [x for x in leaves if _holds_tensors(x)]
    is_followed = name in ("_buffers", "_parameters")
    uncounted = [is_followed or isinstance(x, fx.Proxy) or x.is_inference() for x in tensors]
    changes = [
        (id(x), 0 if skip else x._version) for x, skip in zip(tensors, uncounted, strict=True)
    ]
    return pytree.tree_unflatten(leaves, structure), changes


def _holds_tensors(x: Any) -> bool:
    """Whether it is a tensor, or one of those that torch.fx passes for tensors."""
    if isinstance(x, fx.Proxy):
        return any(isinstance(value, Tensor) for value in pytree.tree_leaves(x.in_example()))
    return isinstance(x, Tensor)


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
