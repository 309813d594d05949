"""Batch norm statistics over many batches of fixed weights. (Wu & Johnson 2021, sec. 3.)"""

import warnings
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from octvideo.engine.distributed import Processes
from octvideo.errors import DataError


def measure_bn_statistics(
    model: nn.Module, inputs: Iterable[Tensor], count: int, procs: Processes
) -> None:
    """Replace the running statistics of every batch norm in training mode by those of `count`
    batches per rank, in place. A rank counts by its clips.

    inputs: (N, ...), of any N.

    num_batches_tracked stays: it counts training steps, and a repeated measurement must give the
    same state. Raises DataError on every rank where `inputs` raises it on one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, by which fvcore compiles a loss on import
        from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats

    norms = [norm for norm in get_bn_modules(model) if norm.track_running_stats]
    tracked = [norm.num_batches_tracked.clone() for norm in norms]
    own = [(norm.running_mean, norm.running_var) for norm in norms]
    error, sizes = None, list[int]()

    def counted() -> Iterator[Tensor]:
        for batch in inputs:
            sizes.append(len(batch))
            yield batch

    try:
        update_bn_stats(model, counted(), count)
    except DataError as reason:
        error = reason
    finally:
        for norm, steps, (mean, var) in zip(norms, tracked, own, strict=True):
            norm.num_batches_tracked.copy_(steps)
            # fvcore replaces the tensors, which would leave a captured state with the old ones.
            norm.running_mean = mean.copy_(norm.running_mean)
            norm.running_var = var.copy_(norm.running_var)
    if any(procs.any_of(error is not None)):
        raise error or DataError("stopped: another process could not read its data")
    procs.average_buffers(model, sum(sizes))
