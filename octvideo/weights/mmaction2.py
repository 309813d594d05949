"""mmaction2's ResNets in this package's words: their names, their numbers, and what they compute.

    backbone.layer2.0.conv1.conv.weight                 res3.block0.reduce.conv.h2h.weight
    backbone.layer2.1.non_local_block.phi.0.conv.bias   res3.nonlocal1.attend.conv_phi.bias
    backbone.slow_path.layer1_lateral.conv.weight       laterals.1.conv.h2h.weight
    cls_head.fc_cls.weight                              head.fc.weight

Strides, pools and scales have no weights. A file that mmaction2 has written holds its config
(`mmaction2_config`). A file without it is taken as the published configs have it.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError, logger
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.mmaction2_config import read_config, said_of_input

BOTTLENECK = {"1": "reduce", "2": "spatial", "3": "expand"}
PATHWAYS = {"slow_path.": "slow.", "fast_path.": "fast.", "": ""}

# Settings of a backbone that no option here stands for, and the value at which they are what is
# built here.
ONLY = {
    "conv1_stride_s": 2,
    "pool1_stride_s": 2,
    "with_pool1": True,
    "num_stages": 4,
    "spatial_strides": [1, 2, 2, 2],
    "temporal_strides": [1, 1, 1, 1],
    "dilations": [1, 1, 1, 1],
    "lateral_inv": False,
    "lateral_activate": [1, 1, 1, 1],
    "norm_cfg.eps": 1e-5,
    "act_cfg.type": "ReLU",
}
BACKBONES = ("ResNet", "C2D", "ResNet3d", "ResNet3dSlowOnly", "ResNet3dSlowFast")
MODES = {"embedded_gaussian": "softmax", "dot_product": "dot_product"}

State = dict[str, Tensor]


# --- Names


def names(theirs: Collection[str]) -> dict[str, str]:
    return {name: _name(name) for name in theirs}


def _name(name: str) -> str:
    """A convolution and its BN are one module, in 2D (TSN) as in 3D (SlowOnly)."""
    match = re.fullmatch(r"backbone\.(slow_path\.|fast_path\.|)(.+)", name)
    if match is None:
        return re.sub(r"^cls_head\.fc_cls\.", "head.fc.", name)
    pathway, rest = PATHWAYS[match[1]], match[2]
    if stem := re.fullmatch(r"conv1\.((?:conv|bn)\.\w+)", rest):
        return f"{pathway}stem.{stem[1]}"
    if lateral := re.fullmatch(r"(?:conv1|layer(\d))_lateral\.((?:conv|bn)\.\w+)", rest):
        return f"laterals.{lateral[1] or 0}.{pair_of(lateral[2])}"
    if layer := re.fullmatch(
        r"layer(\d)\.(\d+)\.(?:conv([123])|downsample)\.((?:conv|bn)\.\w+)", rest
    ):
        stage, block, number, tensor = layer.groups()
        part = BOTTLENECK[number] if number else "shortcut"
        return f"{pathway}res{int(stage) + 1}.block{block}.{part}.{pair_of(tensor)}"
    if layer := re.fullmatch(r"layer(\d)\.(\d+)\.non_local_block\.(.+)", rest):
        return f"{pathway}res{int(layer[1]) + 1}.nonlocal{layer[2]}.attend.{_in_nonlocal(layer[3])}"
    return name


def pair_of(name: str) -> str:
    """conv.weight, bn.bias: in a vanilla network the high group is all there is."""
    layer, _, tensor = name.partition(".")
    return f"{layer}.{'h2h' if layer == 'conv' else 'high'}.{tensor}"


def _in_nonlocal(name: str) -> str:
    """theta.conv.weight, phi.0.conv.weight (a pool stands behind it), conv_out.bn.weight."""
    if match := re.fullmatch(r"(g|theta|phi|conv_out)\.(?:0\.)?conv\.(\w+)", name):
        return f"{match[1] if match[1] == 'conv_out' else f'conv_{match[1]}'}.{match[2]}"
    return re.sub(r"^conv_out\.bn\.", "norm.", name)


# --- Numbers


def values(state: Mapping[str, Tensor], checkpoint: Checkpoint, clips: bool) -> State:
    """Weights in our names, with the numbers that give mmaction2's outputs here.

    mmaction2's SlowFast classifier reads the fast pathway first. The softmax of a non-local block
    is scaled by its width here, in mmaction2 only with `use_scale`. clips: the weights are for a
    video network; 2D kernels (C2D, TSN) become kernels of one frame.
    """
    made = {name: t for name, t in state.items() if not name.startswith("data_preprocessor.")}
    fast, head = made.get("fast.res5.block0.expand.bn.high.weight"), made.get("head.fc.weight")
    if fast is not None and head is not None:
        made["head.fc.weight"] = head.roll(-len(fast), 1)
    settings = _nonlocal_settings(_backbone(checkpoint))
    for name in [name for name in made if name.endswith(".attend.conv_out.weight")]:
        block = name.removesuffix("conv_out.weight")
        made[f"{block}conv_out.bias"] = torch.zeros(len(made[name]))
        if settings["mode"] == "embedded_gaussian" and not settings["use_scale"]:
            for theta in (f"{block}conv_theta.weight", f"{block}conv_theta.bias"):
                if theta in made:
                    made[theta] = made[theta] * made[name].shape[1] ** 0.5
    if clips:
        made = {name: t.unsqueeze(2) if t.dim() == 4 else t for name, t in made.items()}
    return made


# --- What it computes


def assumes(state: Mapping[str, Tensor], checkpoint: Checkpoint) -> Assumptions:
    """Properties that names and shapes do not show: from the config in the file, else those of the
    published configs.

    state: in our names. Raises CheckpointError for a network that no options here can build.
    """
    backbone = _backbone(checkpoint)
    if not backbone:
        logger.warning(
            "%s: holds no config; strides, pools and speed are taken as mmaction2's published"
            " configs have them%s",
            checkpoint.path,
            ", a 2D network as TSN's" if _is_2d(state) else "",
        )
    _refuse(backbone, state, checkpoint.path)
    seen = said_of_input(checkpoint)
    options: dict[str, Any] = {"stride_1x1": backbone.get("style") == "caffe"}
    archs: tuple[str, ...] = ()
    stem = state.get("stem.conv.weight")
    if any(name.startswith(("slow.", "fast.")) for name in state):
        archs, options = ("slowfast",), options | _slowfast(backbone, state)
    elif stem is None:
        archs = ()  # The network that this is told to be lacks it.
    elif _is_2d(state) and not backbone:
        archs = ("c2d_nopool", "c2d")
    elif _is_2d(state):
        archs = ("c2d",) if backbone.get("type") == "C2D" else ("c2d_nopool",)
        options["stem_pool_padding"] = 0 if archs == ("c2d",) else 1
    else:
        archs = ("i3d", "i3d_heavy") if _sees_frames(state) else ("slow",)
        options["stem_strides_t"] = _stem_strides(backbone, state)
    if any(".nonlocal" in name for name in state):
        settings = _nonlocal_settings(backbone)
        options["nonlocal_instantiation"] = MODES[settings["mode"]]
        options["nonlocal_pool"] = (1, 2, 2) if settings["sub_sample"] else (1, 1, 1)
        options["nonlocal_pool_after"] = True
    return Assumptions(
        seen["mean"],
        seen["std"],
        stride_1x1=options["stride_1x1"],
        options=options,
        archs=archs,
        reverse_channels=seen["reverse_channels"],
    )


def _refuse(backbone: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> None:
    kind = backbone.get("type")
    if kind is not None and kind not in BACKBONES:
        raise CheckpointError(
            f"{source}: of mmaction2's backbone {_short(kind)}; of its networks"
            f" {', '.join(BACKBONES)} load here"
        )
    pathways = (backbone.get("slow_pathway"), backbone.get("fast_pathway"))
    found = [backbone, *(pathway for pathway in pathways if isinstance(pathway, dict))]
    wanted = dict(ONLY)
    if any(pathways):
        ratio = backbone.get("speed_ratio", 8)
        wanted |= {"resample_rate": ratio, "conv1_stride_t": 1, "pool1_stride_t": 1}
        wanted["style"] = "pytorch"
    # Where the stem is missing, that is what is wrong with the file.
    elif kind in ("ResNet3d", "ResNet3dSlowOnly") and "stem.conv.weight" in state:
        wanted["with_pool2"] = _sees_frames(state)
        found[0] = {"with_pool2": kind == "ResNet3d", **backbone}
    for name in ("conv1_stride_t", "pool1_stride_t", "speed_ratio"):
        if type(backbone.get(name, 1)) is not int or not 0 < backbone.get(name, 1) <= 64:
            raise CheckpointError(
                f"{source}: mmaction2's {kind} with {name}={backbone[name]!r:.40}; it is a whole"
                " number"
            )
    for settings in map(_with_inner, found):
        for name, value in wanted.items():
            if settings.get(name, value) != value:
                raise CheckpointError(
                    f"{source}: mmaction2's {kind} with {name}={_short(settings[name])}; the"
                    f" networks here have {value}"
                )
    if any(".nonlocal" in name for name in state):
        _refuse_attention(backbone, source)


def _with_inner(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, and those of their dicts as "norm_cfg.eps"."""
    named = dict(settings)
    for name, inner in settings.items():
        if isinstance(inner, dict):
            named |= {f"{name}.{key}": value for key, value in inner.items()}
    return named


def _refuse_attention(backbone: Mapping[str, Any], source: str) -> None:
    if not backbone:
        raise CheckpointError(
            f"{source}: has non-local blocks of mmaction2, and not its config, which says how they"
            " attend; take the file that training or publish_model.py wrote, with its meta"
        )
    mode = _nonlocal_settings(backbone)["mode"]
    if not (isinstance(mode, str) and mode in MODES):
        raise CheckpointError(
            f"{source}: mmaction2's non-local blocks of the mode {_short(mode)};"
            f" {', '.join(MODES)} load here"
        )


def _short(value: Any) -> str:
    """A value of a config on one line."""
    return " ".join(str(value).split())[:60]


def _slowfast(backbone: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The published configs have fusion kernels of 5 at a speed ratio of 8, and of 7 at 4."""
    lateral = state.get("laterals.0.conv.h2h.weight")
    kernel = lateral.shape[2] if lateral is not None else 5
    return {
        "slow_frames": "every",
        "fusion_norm": "laterals.0.bn.high.weight" in state,
        "speed_ratio": backbone.get("speed_ratio", 8) if backbone else 4 if kernel == 7 else 8,
    }


def _stem_strides(backbone: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Published I3Ds have 2 and 2, or 1 and 1 where every block sees several frames ("heavy")."""
    if backbone:
        return backbone.get("conv1_stride_t", 1), backbone.get("pool1_stride_t", 1)
    second = state.get("res3.block1.reduce.conv.h2h.weight")
    is_plain = _sees_frames(state) and second is not None and second.shape[2] == 1
    return (2, 2) if is_plain else (1, 1)


def _sees_frames(state: Mapping[str, Tensor]) -> bool:
    """The stem of a 3D network convolves several frames: I3D's does, SlowOnly's does not."""
    stem = state.get("stem.conv.weight")
    return stem is not None and stem.dim() == 5 and stem.shape[2] > 1


def _nonlocal_settings(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """mode, use_scale, sub_sample, as the config has them or mmcv without it."""
    settings = {"mode": "embedded_gaussian", "use_scale": True, "sub_sample": False}
    for owner in (backbone, backbone.get("slow_pathway"), backbone.get("fast_pathway")):
        found = owner.get("non_local_cfg") if isinstance(owner, Mapping) else None
        settings |= found if isinstance(found, dict) else {}
    return settings


def _is_2d(state: Mapping[str, Tensor]) -> bool:
    """Kernels of images, or of one frame each."""
    kernels = [t for name, t in state.items() if name.endswith("conv.h2h.weight")]
    stem = state.get("stem.conv.weight")
    kernels += [stem] if stem is not None else []
    return all(kernel.dim() == 4 or kernel.shape[2] == 1 for kernel in kernels)


def _backbone(checkpoint: Checkpoint) -> dict[str, Any]:
    return read_config(checkpoint.python_recipe).part("backbone")
