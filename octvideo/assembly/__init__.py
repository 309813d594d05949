"""From settings to runs: only the modules of this package read a config.

Everything that they call takes plain values by name.
"""

from octvideo.assembly.dry_run import dry_run
from octvideo.assembly.model import build_model
from octvideo.assembly.start import ranks
from octvideo.assembly.testing import final_test, settings_of
from octvideo.assembly.training import build_trainer, train, training_batches, validator

__all__ = [
    "build_model",
    "build_trainer",
    "dry_run",
    "final_test",
    "ranks",
    "settings_of",
    "train",
    "training_batches",
    "validator",
]
