"""A recognizer from a file: a checkpoint of training, an exported network, or a public one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.deploy.exported import SUFFIXES, ExportedNetwork, read_exported
from octvideo.errors import CheckpointError, ConfigError, first_line
from octvideo.models.network import HeadAct
from octvideo.models.registry import family_of, full_name
from octvideo.recognizer.recognizer import Recognizer
from octvideo.weights.describe import Given, known_head_act, read_classes, read_input
from octvideo.weights.load import network_of
from octvideo.weights.pretrained import describe_file, read_and_hash, read_weights
from octvideo.weights.start import is_image

Classes = str | Path | Sequence[str]


def load(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    classes: Classes = (),
    input: Given = "",
    trusted: bool = False,
) -> Recognizer:
    """A recognizer from a checkpoint of training: classes, clip length, sampling and normalization
    come with it.

    path: a file, one that `Recognizer.save` wrote, or the name of a public network (`octvideo
    pretrained` lists them), which is fetched at first use.
    device: by default the GPU where there is one; exported networks run on the CPU.
    classes, input: of a file that does not say them, as those of other projects: names (a list, a
    text file, "kinetics400", "kinetics600", "something-something-v2", "charades") and clips ("8x8":
    frames x frame stride; or the fields of `InputSpec`).
    trusted: read a .pt2, which may run code that stands in it.

    Raises CheckpointError for a file that is missing, damaged, carries code, or holds weights
    without what they assume, ConfigError for an argument that the file contradicts.
    """
    return _load(path, read_weights, device, classes, input, trusted)


def load_hashed(path: str | Path, *, device: str | torch.device | None = None) -> Recognizer:
    """`load` of a file that says all, with its sha256, which takes a second more for large ones; of
    an .xml, that of its .bin behind it."""
    return _load(path, read_and_hash, device)


def _load(
    path: str | Path,
    read: Callable[[str], Checkpoint],
    device: str | torch.device | None = None,
    classes: Classes = (),
    input: Given = "",
    trusted: bool = False,
) -> Recognizer:
    """`load`; read: of weights, with a hash or without."""
    if is_exported(path):
        _refuse_what_it_says(path, classes=classes, input=input)
        if device is not None and _device(device).type != "cpu":
            raise ConfigError(
                f"{path}: an exported network runs on the CPU, not on {device}; leave device out,"
                " or load the checkpoint that it was made of"
            )
        return _of_exported(read_exported(Path(path), trusted=trusted))
    checkpoint = _completed(read(str(path)), str(path), classes, input)
    chosen = _device(device)
    try:
        return Recognizer(
            _network(checkpoint, str(path)),
            checkpoint.class_names,
            checkpoint.input.as_dict(),
            chosen,
            multi_label=checkpoint.multi_label,
            head_act=cast(HeadAct | None, known_head_act(checkpoint, checkpoint.multi_label)),
            recipe=checkpoint.recipe,
            sha256=checkpoint.sha256,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its input or output is not described as training does ({error})"
        ) from error


def is_exported(path: str | Path) -> bool:
    """Whether `load` reads it as an exported network, which runs on the CPU."""
    return Path(path).suffix in SUFFIXES


def _completed(checkpoint: Checkpoint, path: str, classes: Classes, input: Given) -> Checkpoint:
    """With what the caller says of a file that does not say it.

    Raises ConfigError for what the file says itself, CheckpointError if something is missing.
    """
    if not checkpoint.network:
        if not (classes and input):
            raise CheckpointError(
                f"{path}: holds weights, but not the classes and the input that they assume; say"
                " them, as in octvideo.load(file, classes='kinetics400', input='8x8'), or convert"
                " it (`octvideo convert` --class-names NAMES.txt --input 8x8)"
            )
        return describe_file(checkpoint, classes, input)
    try:
        family_of(full_name(str(checkpoint.network.get("name"))))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if is_image(checkpoint):
        raise CheckpointError(
            f"{path}: holds an image network; `octvideo inflate` makes a video network of it"
        )
    names, seen = checkpoint.class_names, checkpoint.input
    says_input = seen != InputSpec()
    _refuse_what_it_says(path, classes=names and classes, input=says_input and input)
    said = {"classes='kinetics400'": names or classes, "input='8x8'": says_input or input}
    if missing := [argument for argument, value in said.items() if not value]:
        raise CheckpointError(
            f"{path}: holds a network, but not all that it assumes; say it, as in"
            f" octvideo.load(file, {', '.join(missing)})"
        )
    if says_input:
        checkpoint.require_whole_input()
    return replace(
        checkpoint,
        class_names=names or read_classes(classes),
        input=seen if says_input else read_input(input),
    )


def _refuse_what_it_says(path: str | Path, **given: Any) -> None:
    """Raises ConfigError for an argument that is given: the file says it."""
    if names := [name for name, value in given.items() if value]:
        raise ConfigError(f"{path}: says its {names[0]} itself; leave {names[0]} out")


def _network(checkpoint: Checkpoint, path: str) -> nn.Module:
    """Raises CheckpointError unless every class has a name."""
    model = network_of(checkpoint)
    config: Any = model.config
    names = len(checkpoint.class_names)
    # A family of one's own may have no such option.
    if (classes := config.get("num_classes", names)) != names:
        raise CheckpointError(
            f"{path}: classifies {classes} classes; {names} names are given: give each its own"
        )
    return model


def _of_exported(network: ExportedNetwork) -> Recognizer:
    facts = network.sidecar
    return Recognizer(
        network,
        facts.class_names,
        dict(facts.preprocessing),
        torch.device("cpu"),
        multi_label=facts.multi_label,
        head_act=facts.head_act,
        sha256=network.sha256,
    )


def _device(device: str | torch.device | None) -> torch.device:
    """Raises ConfigError for one that this machine does not have."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"device={device!r}: cannot be used here ({first_line(error)}); leave it out for the"
            " best that there is"
        ) from error
    return chosen
