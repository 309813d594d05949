"""Setup of training and testing, and the function from a network's logits to scores."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from octvideo.assembly.tasks import task_of
from octvideo.checkpoint import Checkpoint
from octvideo.data.reading import stuck_here
from octvideo.deploy.engines import WindowScores, choose, optimize
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.evaluate import Scorer
from octvideo.engine.log import end_logging, setup_logging
from octvideo.engine.process_group import processes
from octvideo.engine.threads import set_threads
from octvideo.errors import CheckpointError
from octvideo.lock import only_writer
from octvideo.models.network import HeadAct
from octvideo.weights.describe import known_head_act


def ranks(cfg: Any) -> AbstractContextManager[Processes]:
    """The processes of a run. A rank that is silent, or reads one file, for DATA_LOADER.TIMEOUT
    ends the others."""
    seconds = cfg.DATA_LOADER.TIMEOUT
    return processes(silence_seconds=seconds, trouble=partial(stuck_here, seconds))


@contextmanager
def running(cfg: Any, procs: Processes) -> Iterator[None]:
    """The context of training and testing: OUTPUT_DIR, locked for this run, the log, threads, CUDA
    kernels.

    Raises OctvideoError on every rank if the folder cannot be written to or is in use.
    """
    with ExitStack() as stack:
        procs.made_by_main(lambda: stack.enter_context(only_writer(cfg.OUTPUT_DIR)))
        setup_logging(cfg.OUTPUT_DIR, procs.is_main)
        stack.callback(end_logging)
        set_threads(cfg.DATA_LOADER.NUM_WORKERS, procs.local_world_size)
        if procs.device.type == "cuda":
            benchmark = cfg.CUDA.CUDNN_BENCHMARK and not cfg.TRAIN.DETERMINISTIC
            choose_kernels(benchmark=benchmark, tf32=cfg.CUDA.TF32)
        yield


def choose_kernels(*, benchmark: bool, tf32: bool) -> None:
    """Set cuDNN's benchmark mode and TF32 for this process; without a GPU this changes nothing.

    benchmark: cuDNN times its kernels for every new shape and keeps the fastest, which pays where
    clips have one size. The choice, and with it the last bits of results, may differ from run to
    run.
    tf32: float32 products in TensorFloat-32: 10 bits of mantissa, several times as fast since
    Ampere. bf16 and fp16 are not affected.
    """
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")


def head_act(cfg: Any) -> HeadAct:
    """The activation of the logits in a test. pytorchvideo's networks average logits."""
    act = cfg.MODEL.HEAD_ACT or ("sigmoid" if cfg.DATA.MULTI_LABEL else "softmax")
    if cfg.MODEL.MODEL_NAME.startswith("PTV") and not act.endswith("_of_mean"):
        act = f"{act}_of_mean"
    return cast(HeadAct, act)


def tested_head_act(cfg: Any, checkpoint: Checkpoint) -> HeadAct:
    """The activation of the logits of a checkpoint: that of its training, as it or its layout says.

    Raises CheckpointError if MODEL.HEAD_ACT or the PTV in MODEL.MODEL_NAME contradicts the
    checkpoint.
    """
    clear, several = cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN, cfg.DATA.MULTI_LABEL
    trained, here = known_head_act(checkpoint, several, clear), head_act(cfg)
    is_set = cfg.MODEL.HEAD_ACT or cfg.MODEL.MODEL_NAME.startswith("PTV")
    if trained and is_set and trained != here:
        raise CheckpointError(
            f"{checkpoint.path}: its logits become scores by {trained}, these settings say {here}; "
            f"set MODEL.HEAD_ACT {trained}, or leave it and MODEL.MODEL_NAME out"
        )
    return cast(HeadAct, trained) if trained else here


def scorer(
    cfg: Any,
    model: nn.Module,
    act: HeadAct | None = None,
    optimize_for: Sequence[int] = (),
    calibration: Tensor | None = None,
) -> Scorer:
    """PySlowFast's test head, with what `act`, by default MODEL.HEAD_ACT, makes of the logits.

    optimize_for: the shape of a forward pass, (views, ...), for which the fastest engine installed
    is prepared; (): none. calibration: `calibration_of` these settings.
    """
    network: nn.Module = WindowScores(model, act or head_act(cfg))
    if optimize_for:
        network = optimize(
            network,
            torch.rand(*optimize_for).to(next(model.parameters()).device),
            precision=cfg.TEST.PRECISION,
            calibration=calibration,
        )
    return network


def tested_precision(cfg: Any, device: torch.device) -> str:
    """TEST.PRECISION, "auto" as what it is on this machine."""
    asked = str(cfg.TEST.PRECISION)
    return choose("auto", asked, device, calibrated=False)[1] if asked == "auto" else asked


def calibration_of(cfg: Any) -> Tensor | None:
    """The clips that TEST.PRECISION int8 is calibrated on, None for another precision."""
    return task_of(cfg).calibration() if cfg.TEST.PRECISION == "int8" else None
