"""Load weights from a file into a model: all of them or none, with a report of which went where."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError, logger
from octvideo.layers import channels_last
from octvideo.models.network import config_of
from octvideo.models.registry import from_config, is_own, on_meta
from octvideo.weights.layouts import OWN, find_layout
from octvideo.weights.source import shapes_of
from octvideo.wrappers import check_finite, clear_names, named_as

HEAD = re.compile(r"head\.fc\.|blocks\.\d+\.proj\.")  # ours, and that of pytorchvideo's networks
MAX_NAMES = 20  # of a report


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The result of loading a file. Names are the model's; shapes are (file, model).

    skipped_head: the classifier, left as it was initialized: the file's has another number of
    classes, or the file has none (None).
    unused: the remaining tensors of the file, by the names that they would have here.
    removed: the containers around the weights, and the prefixes that were removed from their names.
    """

    path: str
    layout: str
    loaded: tuple[str, ...]
    skipped_head: dict[str, tuple[tuple[int, ...] | None, tuple[int, ...]]]
    missing: dict[str, tuple[int, ...]]
    unused: dict[str, tuple[int, ...]]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    removed: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return bool(self.loaded) and not (self.missing or self.unused or self.misshapen)

    @property
    def lacks_classifier(self) -> bool:
        """Whether the file fits but for a classifier, of which it has nothing."""
        there = [*self.loaded, *self.skipped_head, *self.misshapen, *self.unused]
        whole = bool(self.loaded) and not (self.unused or self.misshapen)
        return whole and is_classifier(self.missing) and not any(map(HEAD.match, there))

    def __str__(self) -> str:
        names = [
            f"  skipped head {name}: file {'has none' if a is None else a}, model {b}"
            for name, (a, b) in self.skipped_head.items()
        ]
        names += [f"  missing {name} {shape}" for name, shape in self.missing.items()]
        names += [f"  unexpected {name} {shape}" for name, shape in self.unused.items()]
        names += [
            f"  other shape {name}: file {a}, model {b}" for name, (a, b) in self.misshapen.items()
        ]
        if len(names) > MAX_NAMES:
            names = [*names[:MAX_NAMES], f"  and {len(names) - MAX_NAMES} more"]
        removed = f", without {' '.join(self.removed)}" if self.removed else ""
        title = f"{self.path} ({self.layout} layout{removed}): {len(self.loaded)} tensors loaded"
        return "\n".join([title, *names])


def load_weights(
    model: nn.Module,
    source: str | Checkpoint,
    *,
    new_classes: bool = True,
    clear_prefixes: Sequence[str] = (),
) -> LoadReport:
    """Load a file of this package's, PySlowFast's or pytorchvideo's layout into `model` and log the
    report. Files for image networks may also have torchvision's, timm's or d-li14's layout
    (`load_official` reads the MXNet files).

    source: a path, or the content that was read from it.
    new_classes: a classifier of another number of classes is skipped, and so is one that the file
    lacks; False refuses both (for testing).
    clear_prefixes: texts to remove from the file's names, wherever they occur. Wrappers (DDP,
    torch.compile, Lightning, moving averages) are removed in any case, and the report says which;
    a prefix that all names of `model` begin with is none of theirs.

    Raises CheckpointError, with the model untouched, for a file that does not fit in full, that was
    trained with other settings, or that cannot be read.
    """
    checkpoint = Checkpoint.read(source) if isinstance(source, str) else source
    path = checkpoint.path
    if not checkpoint.weights:
        raise CheckpointError(
            f"{path}: holds no weights; a checkpoint has them under 'model_state'"
        )
    check_finite(checkpoint.weights, path)
    cleared, texts = clear_names(checkpoint.weights, clear_prefixes)
    tensors, removed = named_as(model.state_dict(), cleared, [*checkpoint.removed, *texts])
    # pytorchvideo's own networks have pytorchvideo's names.
    layout = OWN if tensors.keys() & model.state_dict().keys() else find_layout(tensors)
    state = layout.translate(tensors, checkpoint, clips=getattr(model, "takes", "clips") == "clips")
    assumes = layout.assumes(state, checkpoint)
    report = replace(_compare(model, state, path, layout.title), removed=tuple(removed))
    if new_classes and report.lacks_classifier:
        skipped = report.skipped_head | {n: (None, shape) for n, shape in report.missing.items()}
        report = replace(report, skipped_head=skipped, missing={})
    logger.log(logging.INFO if report.fits else logging.ERROR, "%s", report)

    if not report.fits:
        raise CheckpointError(_does_not_fit(model, report))
    if report.skipped_head and not new_classes:
        (shape, expected), *_ = report.skipped_head.values()
        assert shape is not None
        raise CheckpointError(
            f"{path}: classifies {shape[0]} classes, the model {expected[0]}; set MODEL.NUM_CLASSES"
        )
    assumes.check_options(model, path)
    model.load_state_dict(model.state_dict() | {name: state[name] for name in report.loaded})
    return report


def network_of(checkpoint: Checkpoint) -> nn.Module:
    """The network that a checkpoint of this package describes, with its weights
    (`Checkpoint.weights`).

    It is built on the meta device, so that a description cannot ask for more memory than the file
    has weights; and once more, really, where it has tensors that no state dict has. What a family
    of one's own has cannot be seen. Raises CheckpointError for a description that does not build,
    or that the weights do not fit.
    """
    path, name = checkpoint.path, str(checkpoint.network.get("name"))
    build = partial(from_config, checkpoint.network)
    check_finite(checkpoint.weights, path)
    try:
        model = _with_weights(on_meta(name, build), checkpoint.weights)
        if is_own(name) or any(buffer.is_meta for buffer in model.buffers()):
            model = _with_weights(build(), checkpoint.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: its weights do not fit {name:.40}: {reason}") from error
    # What options of any type and size make a network raise has no end.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(
            f"{path}: {name:.40} cannot be built as described ({reason})"
        ) from error
    return channels_last(model)


def _with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Its tensors are then those of `weights`. Raises RuntimeError if they do not fit."""
    targets = model.state_dict()
    named, _ = named_as(targets, weights)
    state = {n: t.to(targets[n].dtype) if n in targets else t for n, t in named.items()}
    model.load_state_dict(state, assign=True)
    return model


def _compare(model: nn.Module, state: Mapping[str, Tensor], path: str, layout: str) -> LoadReport:
    target = model.state_dict()
    shapes = {
        name: (tuple(state[name].shape), tuple(target[name].shape))
        for name in target
        if name in state
    }
    head = {
        name: pair
        for name, pair in shapes.items()
        if HEAD.match(name) and pair[0] and pair[0][:1] != pair[1][:1]
    }
    other = {name: pair for name, pair in shapes.items() if pair[0] != pair[1] and name not in head}
    return LoadReport(
        path=path,
        layout=layout,
        loaded=tuple(name for name in shapes if name not in head and name not in other),
        skipped_head=dict(head),
        missing={n: shape for n, shape in shapes_of(target).items() if n not in state},
        unused={name: tuple(tensor.shape) for name, tensor in state.items() if name not in target},
        misshapen=other,
    )


def is_classifier(names: Collection[str]) -> bool:
    """Whether these are names of a classifier alone."""
    return bool(names) and all(map(HEAD.match, names))


def _does_not_fit(model: nn.Module, report: LoadReport) -> str:
    parts = []
    for title, names in (
        ("missing", report.missing),
        ("unexpected", report.unused),
        ("other shape", report.misshapen),
    ):
        if names:
            name, shapes = next(iter(names.items()))
            parts.append(f"{len(names)} {title} (first: {name} {shapes})")
    name = config_of(model).get("name", type(model).__name__)
    if not report.loaded:
        advice = (
            "if its names begin otherwise, list what to remove in"
            " TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN"
        )
    elif report.lacks_classifier:
        advice = "it has no classifier: train one from it (TRAIN.CHECKPOINT_FILE_PATH)"
    else:
        advice = "build the network that the file was made with"
    return f"{report.path}: does not fit {name}: {', '.join(parts)}; {advice}"
