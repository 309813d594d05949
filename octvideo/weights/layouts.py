"""The names of weights in other projects, for the networks that this package has too.

ours         res3.block0.reduce.conv.h2h.weight            res3.block0.reduce.bn.high.bias
PySlowFast   s3.pathway0_res0.branch2.a.weight             s3.pathway0_res0.branch2.a_bn.bias
pytorchvideo blocks.3.res_blocks.0.branch2.conv_a.weight   blocks.3.res_blocks.0.branch2.norm_a.bias
torchvision  layer2.0.conv1.weight                         layer2.0.bn1.bias
d-li14       layer2.0.conv1.conv.conv_h2h.weight           layer2.0.conv1.bn_h.bias
mmaction2    backbone.layer2.0.conv1.conv.weight           backbone.layer2.0.conv1.bn.bias
Caffe2       res3_0_branch2a_w                             res3_0_branch2a_bn_b

pytorchvideo's names are translated to PySlowFast's, and these to ours. timm names its ResNets as
torchvision does, even those that compute something else (anti-aliased, dilated); those of
torchvision and d-li14 (Oct-ResNets) are image networks.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.weights import mmaction2, mmaction2_config, pyslowfast
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.mmaction2 import BOTTLENECK, pair_of
from octvideo.weights.source import check_shapes

# BOTTLENECK: the convolutions of a 1-3-1 by their number; BASIC: of two 3x3.
CONVOLUTIONS = {"a": "reduce", "b": "spatial", "c": "expand"}
PATHWAYS = {"0": "slow.", "1": "fast."}
BASIC = {"1": "first", "2": "second"}
GROUPS = {"h": "high", "l": "low"}


def _known(_: Mapping[str, Tensor], checkpoint: Checkpoint, *, own: bool = False) -> Assumptions:
    if not (own or checkpoint.network):
        seen = InputSpec(**pyslowfast.said_of_input(checkpoint))
        checkpoint = replace(checkpoint, input=seen)
    return Assumptions.of_checkpoint(checkpoint, own=own)


@dataclass(frozen=True, slots=True)
class Layout:
    """mark: begins a name that only this layout has. names: theirs -> ours; a name without
    counterpart stays.

    values: makes what is computed there of tensors in our names (`Layout.translate`). assumes: what
    they were trained with, as far as the file says it. said_of_input: the fields of `InputSpec`
    that it says. said_of_output: the function from logits to probabilities, and whether a video has
    several classes; "" and None if it does not say.
    """

    title: str
    mark: str
    names: Callable[[Collection[str]], dict[str, str]]
    values: Callable[[Mapping[str, Tensor], Checkpoint, bool], dict[str, Tensor]] | None = None
    assumes: Callable[[Mapping[str, Tensor], Checkpoint], Assumptions] = _known
    said_of_input: Callable[[Checkpoint], dict[str, Any]] = pyslowfast.said_of_input
    said_of_output: Callable[[Checkpoint], tuple[str, bool | None]] = pyslowfast.said_of_output

    def translate(
        self, tensors: Mapping[str, Tensor], checkpoint: Checkpoint, *, clips: bool = True
    ) -> dict[str, Tensor]:
        """Tensors in our names. clips: they enter a video network. Raises CheckpointError for
        shapes that cannot be, in another project's layout."""
        names = self.names(tensors)
        state = {names[name]: tensor for name, tensor in tensors.items()}
        if self.mark:  # A network of one's own may have any shapes under its names.
            check_shapes(state, checkpoint.path)
        return self.values(state, checkpoint, clips) if self.values else state


def find_layout(names: Iterable[str]) -> Layout:
    """The layout that these names are written in; OWN where no other mark is found."""
    names = list(names)
    for layout in FOREIGN:
        if any(name.startswith(layout.mark) for name in names):
            return layout
    return OWN


def _own(names: Collection[str]) -> dict[str, str]:
    return {name: name for name in names}


def _pyslowfast(names: Collection[str]) -> dict[str, str]:
    two = any("pathway1_" in name for name in names)
    return {name: _from_pyslowfast(name, PATHWAYS if two else {"0": ""}) for name in names}


def _from_pyslowfast(name: str, pathways: dict[str, str]) -> str:
    if match := re.fullmatch(r"s1\.pathway([01])_stem\.(.+)", name):
        return f"{pathways[match[1]]}stem.{match[2]}"
    if match := re.fullmatch(r"s(\d)\.pathway([01])_(res|nonlocal)(\d+)\.(.+)", name):
        stage, pathway, kind, index, rest = match.groups()
        # In non-local blocks older files say bn, newer ones norm.
        in_nonlocal = re.sub(r"^bn\.", "norm.", rest)
        block = (
            f"block{index}.{_in_block(rest)}"
            if kind == "res"
            else f"nonlocal{index}.attend.{in_nonlocal}"
        )
        return f"{pathways[pathway]}res{stage}.{block}"
    if match := re.fullmatch(r"s(\d)_fuse\.(.+)", name):
        return f"laterals.{int(match[1]) - 1}.{pair_of(match[2].replace('conv_f2s', 'conv'))}"
    return name.replace("head.projection.", "head.fc.")


def _in_block(name: str) -> str:
    """branch1.weight, branch1_bn.bias, branch2.a.weight, branch2.a_bn.bias."""
    if match := re.fullmatch(r"(?:branch1|branch2\.([abc]))(_bn)?\.(\w+)", name):
        layer, kind = (
            CONVOLUTIONS[match[1]] if match[1] else "shortcut",
            "bn" if match[2] else "conv",
        )
        return f"{layer}.{pair_of(f'{kind}.{match[3]}')}"
    return name


def _pytorchvideo(names: Collection[str]) -> dict[str, str]:
    matches = (re.match(r"blocks\.(\d+)\..*res_blocks", name) for name in names)
    # In C2D and I3D a pool without weights takes a number between res2 and res3.
    numbers = sorted({int(match[1]) for match in matches if match})
    stages = {number: i + 2 for i, number in enumerate(numbers)}
    theirs = {name: _from_pytorchvideo(name, stages) for name in names}
    ours = _pyslowfast(theirs.values())
    return {name: ours[slow] for name, slow in theirs.items()}


def _from_pytorchvideo(name: str, stages: dict[int, int]) -> str:
    match = re.fullmatch(r"blocks\.(\d+)\.(?:multipathway_blocks\.(\d)\.)?(.+)", name)
    if match is None:
        return name
    number, pathway, rest = int(match[1]), match[2] or "0", match[3]
    if rest.startswith("proj."):
        return f"head.projection.{rest.removeprefix('proj.')}"
    if fusion := re.fullmatch(r"multipathway_fusion\.(conv_fast_to_slow|norm)\.(.+)", rest):
        return f"s{number + 1}_fuse.{'bn' if fusion[1] == 'norm' else 'conv_f2s'}.{fusion[2]}"
    if block := re.fullmatch(r"res_blocks\.(\d+)\.(.+)", rest):
        inner = re.sub(r"branch2\.conv_([abc])", r"branch2.\1", block[2])
        inner = re.sub(r"branch2\.norm_([abc])", r"branch2.\1_bn", inner)
        inner = inner.replace("branch1_conv.", "branch1.").replace("branch1_norm.", "branch1_bn.")
        return f"s{stages[number]}.pathway{pathway}_res{block[1]}.{inner}"
    return f"s1.pathway{pathway}_stem.{re.sub(r'^norm', 'bn', rest)}" if number == 0 else name


def _torchvision(names: Collection[str]) -> dict[str, str]:
    is_bottleneck = any(name.startswith("layer1.0.conv3.") for name in names)
    return {name: _from_torchvision(name, BOTTLENECK if is_bottleneck else BASIC) for name in names}


def _from_torchvision(name: str, layers: dict[str, str]) -> str:
    match = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", name)
    if match is None:
        return re.sub(r"^fc\.", "head.fc.", re.sub(r"^(conv|bn)1\.", r"stem.\1.", name))
    stage, block, rest = match.groups()
    if plain := re.fullmatch(r"(conv|bn)(\d)\.(\w+)", rest):
        layer = f"{layers.get(plain[2], plain[2])}.{pair_of(f'{plain[1]}.{plain[3]}')}"
    elif plain := re.fullmatch(r"downsample\.([01])\.(\w+)", rest):
        kind = ("conv", "bn")[int(plain[1])]
        layer = f"shortcut.{pair_of(f'{kind}.{plain[2]}')}"
    else:
        layer = _from_d_li14(rest)
    return f"res{int(stage) + 1}.block{block}.{layer}"


def _from_d_li14(name: str) -> str:
    """conv1.conv.conv_h2h.weight, downsample.0.bn_l.bias: conv and BN are one module."""
    match = re.fullmatch(
        r"(?:conv([123])|downsample\.0)\.(?:conv\.conv_(\w+)|bn_([hl]))\.(\w+)", name
    )
    if match is None:
        return name
    number, path, group, tensor = match.groups()
    place = f"conv.{path}" if path else f"bn.{GROUPS[group]}"
    return f"{BOTTLENECK[number] if number else 'shortcut'}.{place}.{tensor}"


# Caffe2's names of a tensor, behind the name of its layer.
CAFFE2_TENSORS = {
    "w": "weight",
    "b": "bias",
    "bn_s": "bn.weight",
    "bn_b": "bn.bias",
    "bn_rm": "bn.running_mean",
    "bn_riv": "bn.running_var",
}


def _caffe2(names: Collection[str]) -> dict[str, str]:
    two = any(name.startswith("t_") for name in names)
    return {name: _from_caffe2(name, PATHWAYS if two else {"0": ""}) for name in names}


def _from_caffe2(name: str, pathways: dict[str, str]) -> str:
    """Layers of the fast pathway begin with t_; so do laterals, named after what they read."""
    match = re.fullmatch(r"(t_)?(.+?)_(w|b|(?:bn_)(?:s|b|rm|riv))", name)
    if match is None:
        return name
    fast, layer, tensor = match[1], match[2], CAFFE2_TENSORS[match[3]]
    pathway, pair = pathways.get("1" if fast else "0", ""), pair_of(_of_conv(tensor))
    if lateral := re.fullmatch(r"(?:pool1|res(\d)_\d+_branch2c_bn)_subsample", layer):
        return f"laterals.{int(lateral[1] or 1) - 1}.{pair}"
    if attention := re.fullmatch(r"nonlocal_conv(\d)_(\d+)_(\w+)", layer):
        stage, block, part = attention.groups()
        return f"{pathway}res{stage}.nonlocal{block}.attend.conv_{part}.{tensor}"
    if attention := re.fullmatch(r"nonlocal_conv(\d)_(\d+)", layer):
        return f"{pathway}res{attention[1]}.nonlocal{attention[2]}.attend.norm.{tensor[3:]}"
    if block := re.fullmatch(r"res(\d)_(\d+)_branch(?:1|2([abc]))", layer):
        part = CONVOLUTIONS[block[3]] if block[3] else "shortcut"
        return f"{pathway}res{block[1]}.block{block[2]}.{part}.{pair}"
    if layer in ("conv1", "res_conv1"):
        return f"{pathway}stem.{_of_conv(tensor)}"
    return f"head.fc.{tensor}" if layer == "pred" else name


def _of_conv(tensor: str) -> str:
    return tensor if tensor.startswith("bn.") else f"conv.{tensor}"


OWN = Layout("octvideo", "", _own, assumes=partial(_known, own=True))
PYSLOWFAST = Layout("PySlowFast", "s1.pathway", _pyslowfast)
MMACTION2 = Layout(
    "mmaction2",
    "backbone.",
    mmaction2.names,
    mmaction2.values,
    mmaction2.assumes,
    mmaction2_config.said_of_input,
    mmaction2_config.said_of_output,
)
# Of PySlowFast's networks one is for images, whose weights its other networks are inflated from.
IMAGE_LAYOUTS = (
    Layout("torchvision", "layer1.0.conv1.weight", _torchvision),
    Layout("d-li14", "layer1.0.conv1.conv.", _torchvision),
    PYSLOWFAST,
    MMACTION2,
)
FOREIGN = (
    Layout("pytorchvideo", "blocks.", _pytorchvideo),
    Layout("Caffe2", "res2_0_branch", _caffe2),
    *IMAGE_LAYOUTS,
)
