"""The plan of a conversion: the convolutions that become octave, and the low channels of each map.

Maps whose channels must stay in step share a `Space`: a convolution's output, the outputs of norms,
activations and pools on it, the other operands of its residual sums, and the two sides of a
depthwise convolution. A space is split once. A concatenation has the spaces of its parts, one after
the other.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, fx, nn

from octvideo.errors import ConfigError
from octvideo.layers import WIDTH_RULES, Channels, OctConv2d, OctConv3d, check_alpha
from octvideo.octavize.kept import SHARED, sharing, why_kept
from octvideo.octavize.layout import Layout, divide
from octvideo.octavize.operations import (
    Kind,
    continues,
    holds_tensors,
    is_map,
    kind_of,
    maps_of,
    module_of,
    parts_of,
    value,
)
from octvideo.octavize.tracing import Trace

WidthRule = str | Callable[[int, float], Channels]


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of `octavize` that decide what becomes octave."""

    alpha: float
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    width_rule: WidthRule = "round16"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if isinstance(self.width_rule, str) and self.width_rule not in WIDTH_RULES:
            raise ConfigError(
                f"width_rule is {self.width_rule!r}; it is one of {', '.join(WIDTH_RULES)}"
            )

    def split(self, channels: int) -> Channels:
        rule = self.width_rule
        split = WIDTH_RULES[rule] if isinstance(rule, str) else rule
        return Channels(*split(channels, self.alpha)) if self.alpha else Channels(channels)


class Space:
    """Channels in step. `layout` is None where the maps stay undivided."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.groups = self.block = 1
        self.writers: list[Site] = []
        self.readers: list[Site] = []
        self.layout: Layout | None = None
        self._joined: Space | None = None

    def find(self) -> "Space":
        """The space that this one has become part of."""
        return self if self._joined is None else self._joined.find()

    def join(self, other: "Space") -> None:
        a, b = self.find(), other.find()
        if a is b:
            return
        b._joined = a
        a.groups, a.block = math.lcm(a.groups, b.groups), math.lcm(a.block, b.block)
        a.writers += b.writers
        a.readers += b.readers


@dataclass
class Site:
    """A convolution of the network.

    obstacle: why it cannot be octave. passed_over: why it is not selected. in_scope: `include`
    names it, whether `exclude` does or not. is_asked: `include` was given and names it.
    """

    node: fx.Node
    name: str
    conv: Any
    obstacle: str = ""
    passed_over: str = ""
    in_scope: bool = True
    is_asked: bool = False

    @property
    def reads(self) -> fx.Node:
        return maps_of(self.node)[0]

    @property
    def widths(self) -> tuple[int, int]:
        """Input and output channels."""
        conv = self.conv
        if isinstance(conv, OctConv2d | OctConv3d):
            return conv.in_channels.total, conv.out_channels.total
        return conv.in_channels, conv.out_channels

    @property
    def is_depthwise(self) -> bool:
        return self.conv.groups > 1 and self.widths == (self.conv.groups, self.conv.groups)


@dataclass
class Plan:
    """kinds, segments: of every node; segments are the spaces of a map's channels in order.

    shared: modules with weights that are read elsewhere too.
    """

    options: Options
    shared: set[nn.Module] = field(default_factory=set)
    kinds: dict[fx.Node, Kind] = field(default_factory=dict)
    sites: dict[fx.Node, Site] = field(default_factory=dict)
    segments: dict[fx.Node, list[Space]] = field(default_factory=dict)

    def space(self, node: fx.Node) -> Space:
        """The one space of a map that is no concatenation."""
        return self.segments[node][0].find()

    def layout(self, node: fx.Node) -> Layout | None:
        """The split of a map between the groups, if one convolution writes it."""
        spaces = self.segments.get(node, [])
        return spaces[0].find().layout if len(spaces) == 1 else None


def make_plan(trace: Trace, root: nn.Module, options: Options) -> Plan:
    """Kinds, sites and spaces of all nodes; layouts come with `divide_spaces`. Raises ConfigError
    for patterns that name no convolution, and for an included one that cannot be octave."""
    plan = Plan(options, sharing(root, trace.graph))
    raw: set[fx.Node] = set()  # what is made of the network's input without a convolution
    calls: dict[str, int] = {}
    for node in trace.graph.nodes:
        calls[str(node.target)] = calls.get(str(node.target), 0) + (node.op == "call_module")
    for node in trace.graph.nodes:
        kind = plan.kinds[node] = kind_of(node, root)
        if kind is Kind.CONV:
            reads_input = bool(raw & set(node.all_input_nodes))
            site = plan.sites[node] = Site(node, str(node.target), module_of(node, root))
            is_repeated = calls[site.name] > 1
            site.obstacle = "it is called more than once" if is_repeated else _obstacle(site, plan)
            _select(site, options, reads_input)
        elif node.op == "placeholder" or (raw & set(node.all_input_nodes) and holds_tensors(node)):
            raw.add(node)
        if node.op != "output" and is_map(value(node)):
            plan.segments[node] = _segments(node, plan, root)
    _check_patterns(plan)
    return plan


def _select(site: Site, options: Options, reads_input: bool) -> None:
    """Whether the patterns name it. Raises ConfigError where `include` does in vain."""
    name = site.name
    if options.include is None:
        site.passed_over = "it reads the network's input" if reads_input else ""
    elif not _matches(name, options.include):
        site.passed_over = "not included"
    site.in_scope = not site.passed_over
    if _matches(name, options.exclude):
        site.passed_over = "excluded"
    site.is_asked = options.include is not None and not site.passed_over and options.alpha > 0
    if site.is_asked and site.obstacle:
        raise ConfigError(f"{name} cannot be octave: {site.obstacle}; exclude it")


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(plan: Plan) -> None:
    names = [site.name for site in plan.sites.values()]
    for pattern in (*(plan.options.include or ()), *plan.options.exclude):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"{pattern!r} names no convolution of the network; names are such as"
                f" {', '.join(names[:3])}"
            )


def _obstacle(site: Site, plan: Plan) -> str:
    """Why this convolution cannot meet a pair, or ""."""
    conv = site.conv
    if why := why_kept(conv):
        return why
    if plan.shared.intersection(conv.modules()):
        return SHARED
    if isinstance(conv, OctConv2d | OctConv3d):
        kernel, padding, stride, dilation = (
            conv.kernel_size,
            conv.padding,
            conv.stride,
            conv.dilation,
        )
    else:
        kernel, stride, dilation = conv.kernel_size, conv.stride, conv.dilation
        padding = same_padding(conv)
        if conv.padding_mode != "zeros":
            return f"padding_mode is {conv.padding_mode!r}; the low group would see other borders"
    if stride[-1] != stride[-2] or stride[-1] not in (1, 2):
        return (
            f"its stride is {tuple(map(int, stride))}; height and width are strided alike, by 1"
            " or 2"
        )
    for k, p, d in zip(kernel[-2:], padding[-2:], dilation[-2:], strict=True):
        if k % 2 == 0 or 2 * p != d * (k - 1):
            return (
                f"kernel {tuple(kernel)} with padding {tuple(padding)} does not keep the map's"
                " size, as an odd kernel k padded by k // 2 does"
            )
    return "its map is one position" if value(site.node).shape[-2:] == (1, 1) else ""


def same_padding(conv: Any) -> tuple[int, ...]:
    """The padding in numbers, also of "same" and "valid"; an even kernel's "same" has no number,
    and gives -1."""
    if conv.padding == "same":
        reaches = [d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
        return tuple(-1 if reach % 2 else reach // 2 for reach in reaches)
    return (0,) * len(conv.kernel_size) if conv.padding == "valid" else tuple(conv.padding)


# --- Spaces


def _segments(node: fx.Node, plan: Plan, root: nn.Module) -> list[Space]:
    kind, shape = plan.kinds[node], value(node).shape
    maps = maps_of(node)
    if kind is Kind.CONV:
        return _behind_convolution(plan.sites[node], plan)
    if kind is Kind.CAT:
        return [space for part in parts_of(node) for space in plan.segments[part]]
    if kind is Kind.JOIN:
        same = [n for n in maps if value(n).shape == shape]
        for other in same[1:]:
            _join(plan.segments[same[0]], plan.segments[other])
        return plan.segments[same[0]] if same else [Space(shape[1])]
    if kind is Kind.NORM or kind is Kind.EACH:
        spaces = plan.segments[maps[0]]
        module = module_of(node, root)
        if isinstance(module, nn.GroupNorm) and len(spaces) == 1:
            space = spaces[0].find()
            space.block = math.lcm(space.block, module.num_channels // module.num_groups)
        return spaces
    return plan.segments[maps[0]] if continues(node) else [Space(shape[1])]


def _behind_convolution(site: Site, plan: Plan) -> list[Space]:
    before = plan.segments[site.reads]
    if site.is_depthwise:
        return before
    after = Space(site.widths[1])
    after.writers.append(site)
    for space in before:
        if not site.obstacle:
            space.find().readers.append(site)
    if site.conv.groups > 1:
        after.groups = site.conv.groups
        if len(before) == 1:
            space = before[0].find()
            space.groups = math.lcm(space.groups, site.conv.groups)
    return [after]


def _join(a: list[Space], b: list[Space]) -> None:
    """Two added maps; concatenations of other parts stay apart: their sum ends the pair."""
    if [space.channels for space in a] == [space.channels for space in b]:
        for one, other in zip(a, b, strict=True):
            one.join(other)


def divide_spaces(plan: Plan, lost: dict[Space, Tensor] | None = None) -> None:
    """Give spaces to be divided their layout; lost: what their channels lose at half the size."""
    spaces = {space.find() for spaces in plan.segments.values() for space in spaces}
    for space in spaces:
        if not why_undivided(space, plan.options):
            space.layout = divide(
                plan.options.split(space.channels),
                groups=space.groups,
                block=space.block,
                lost=None if lost is None else lost.get(space),
            )


def why_undivided(space: Space, options: Options) -> str:
    """The reason for leaving a space as it is, or ""."""
    channels = options.split(space.channels)
    writers = [site for site in space.writers if not (site.passed_over or site.obstacle)]
    if not writers:
        return "no octave convolution writes it"
    if not channels.low or not channels.high:
        return f"the width rule leaves its {space.channels} channels undivided"
    if not any(fits(site, channels) for site in writers):
        return misfit(writers[0], channels)
    if not space.readers:
        return "no convolution reads its output"
    if not any(fits(site, channels) for site in space.readers):
        return f"{space.readers[0].name} reads it; {misfit(space.readers[0], channels)}"
    return ""


def fits(site: Site, channels: Channels) -> bool:
    """Whether the groups of a convolution can each be divided."""
    groups = 1 if site.is_depthwise else site.conv.groups
    return all(width % groups == 0 for width in channels)


def misfit(site: Site, channels: Channels) -> str:
    return f"its {site.conv.groups} groups cannot be divided as {channels} channels are"
