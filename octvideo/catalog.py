"""`list_models`: the networks by name, and the cost of each."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache

from octvideo.complexity import Complexity, align, count, without
from octvideo.models import create_model
from octvideo.models.registry import MODELS, input_shape_of, on_meta


class ModelList(Mapping[str, Complexity]):
    """Names that `create_model` knows -> `Complexity` of the vanilla network on its usual input.

    Listing names costs nothing. A network is counted when it is looked up, on the meta device;
    printing counts all.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Complexity:
        if name not in self:
            raise KeyError(name)
        return _cost(name)

    def __repr__(self) -> str:
        """A line per network; one multiply-add is one FLOP, as in the paper."""
        rows: list[tuple[str, ...]] = [("name", "parameters", "GFLOPs", "input")]
        for name, cost in self.items():
            size = " x ".join(map(str, input_shape_of(name)))
            rows.append((name, f"{cost.parameters / 1e6:.2f} M", f"{cost.macs / 1e9:.2f}", size))
        notes = [
            f"{name}: GFLOPs{without(cost.uncounted)}"
            for name, cost in self.items()
            if cost.uncounted
        ]
        return "\n".join([align(rows, numbers=(1, 2)), *notes])


def list_models(pattern: str = "*") -> ModelList:
    """The networks whose names match, sorted, with what they cost:
    `print(octvideo.list_models("i3d*"))`.

    `list(...)` gives the names, `list_models()["i3d_r50"]` the `Complexity`: .parameters, .macs,
    .stages, ... All are vanilla; octave networks are `octvideo.complexity.count(create_model(name,
    alpha=0.1), input_shape)`.
    """
    return ModelList([name for name in sorted(MODELS) if fnmatchcase(name, pattern)])


@cache
def _cost(name: str) -> Complexity:
    return count(on_meta(name, lambda: create_model(name)), input_shape_of(name))
