"""What training and testing begin with, and how a network's output becomes scores."""

from typing import Any

import torch
from torch import nn

from octvideo.deploy.engines import WindowScores, optimize
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.evaluate import Scorer
from octvideo.engine.log import setup_logging
from octvideo.engine.threads import set_threads
from octvideo.files import make_output_folder


def start_run(cfg: Any, procs: Processes) -> None:
    """Output folder, log, threads; what training and testing begin with."""
    make_output_folder(cfg.OUTPUT_DIR)
    setup_logging(cfg.OUTPUT_DIR, procs.is_main)
    set_threads(cfg.DATA_LOADER.NUM_WORKERS, procs.local_world_size)


def scorer(cfg: Any, model: nn.Module, optimise_for: int = 0) -> Scorer:
    """PySlowFast's test head; where a video has several labels, a sigmoid of the logits.

    optimise_for: views per forward pass for which the fastest engine installed is prepared; 0: none.
    """
    network: nn.Module = WindowScores(model, multi_label=cfg.DATA.MULTI_LABEL)
    if optimise_for:
        size = cfg.DATA.TEST_CROP_SIZE
        example = torch.rand(optimise_for, 3, cfg.DATA.NUM_FRAMES, size, size)
        network = optimize(network, example.to(next(model.parameters()).device))
    return network
