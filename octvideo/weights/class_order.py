"""The rows of a classifier in the order of a run's classes."""

import re
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from octvideo.checkpoint import Checkpoint
from octvideo.data.lists.class_names import plain_name
from octvideo.errors import logger
from octvideo.models.registry import is_own

# Of this package, PySlowFast's and pytorchvideo's networks.
CLASSIFIER = re.compile(r"\b(?:head\.(?:fc|projection)|blocks\.\d+\.proj)\.(?:weight|bias)$")

State = dict[str, Tensor]


def in_order_of(names: Sequence[str], checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint with the rows of its classifier in the order of these classes, if it has as
    many.

    Each class begins with its own row; one that the file lacks takes the row of a class that is not
    among `names`.
    """
    had = {plain_name(name): row for row, name in enumerate(checkpoint.class_names)}
    wanted = list(map(plain_name, names))
    if len(had) != len(wanted):
        return checkpoint
    others = iter([row for name, row in had.items() if name not in wanted])
    rows = [had[name] if name in had else next(others) for name in wanted]
    if rows == list(range(len(rows))):
        return checkpoint

    def classifier(state: State) -> State:
        found = {name: tensor for name, tensor in state.items() if CLASSIFIER.search(name)}
        return {name: t[rows] for name, t in found.items() if t.shape[:1] == (len(rows),)}

    if classifier(checkpoint.weights):
        put = "the rows of its classifier are put into the order of these classes"
        logger.info("%s: %s", checkpoint.path, put)
    elif is_own(str(checkpoint.network.get("name"))):
        logger.warning(
            "%s: has its classes in another order than these, and no head.fc whose rows would be"
            " put into it: they stay as they are",
            checkpoint.path,
        )
    average = checkpoint.average and checkpoint.average | classifier(checkpoint.average)
    return replace(
        checkpoint, state=checkpoint.state | classifier(checkpoint.state), average=average
    )
