"""A recognizer from a file: a checkpoint of training, an exported network, or a public one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from octvideo.checkpoint import InputSpec
from octvideo.deploy.exported import SUFFIXES, ExportedNetwork, read_exported
from octvideo.errors import CheckpointError, ConfigError
from octvideo.models.network import HeadAct
from octvideo.recognizer.recognizer import Recognizer
from octvideo.weights.load import network_of
from octvideo.weights.pretrained import describe_file, read_weights


def load(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    classes: str | Path | Sequence[str] = (),
    input: str | InputSpec | Mapping[str, Any] = "",
    trusted: bool = False,
) -> Recognizer:
    """A recognizer from a checkpoint of training: classes, clip length, sampling and normalization
    come with it.

    path: a file, one that `Recognizer.save` wrote, or the name of a public network (`octvideo
    pretrained` lists them),
        which is fetched at first use.
    device: by default the GPU where there is one.
    classes, input: of a bare file of another project, which says neither: names (a list, a text
    file, "kinetics400",
        "kinetics600", "something-something-v2", "charades") and clips ("8x8": frames x frame
        stride; or the fields of `InputSpec`).
    trusted: read a .pt2, which may run code that stands in it.

    Raises CheckpointError for a file that is missing, damaged, carries code, or holds weights
    without what they assume.
    """
    if Path(path).suffix in SUFFIXES:
        return _of_exported(read_exported(Path(path), trusted=trusted))
    checkpoint = read_weights(str(path))
    if not checkpoint.network and classes and input:
        checkpoint = describe_file(checkpoint, classes, input)
    if not (checkpoint.network and checkpoint.class_names and checkpoint.input.mean):
        raise CheckpointError(
            f"{path}: holds weights, but not the classes and the input that they assume; say them,"
            " as in octvideo.load(file, classes='kinetics400', input='8x8'), or convert it"
            " (`octvideo convert` --class-names NAMES.txt --input 8x8)"
        )
    if checkpoint.input.num_frames is None:
        raise CheckpointError(
            f"{path}: holds an image network; `octvideo inflate` makes a video network of it"
        )
    if missing := checkpoint.input.missing():
        raise CheckpointError(
            f"{path}: does not say {', '.join(missing)} of its input; write it into"
            " meta['preprocessing'] of the file, as training does"
        )
    chosen = _device(device)
    try:
        return Recognizer(
            network_of(checkpoint),
            checkpoint.class_names,
            checkpoint.input.as_dict(),
            chosen,
            multi_label=checkpoint.multi_label,
            head_act=cast(HeadAct | None, checkpoint.head_act),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its input or output is not described as training does ({error})"
        ) from error


def _of_exported(network: ExportedNetwork) -> Recognizer:
    facts = network.sidecar
    return Recognizer(
        network,
        facts.class_names,
        dict(facts.preprocessing),
        torch.device("cpu"),
        multi_label=facts.multi_label,
        head_act=facts.head_act,
    )


def _device(device: str | torch.device | None) -> torch.device:
    """Raises ConfigError for one that this machine does not have."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={device!r}: cannot be used here ({reason}); leave it out for the best that"
            " there is"
        ) from error
    return chosen
