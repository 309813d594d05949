"""From settings to runs: the modules of this package are the only readers of a config.

Everything that they call takes plain values by name.
"""

from octvideo.build.dry_run import dry_run
from octvideo.build.model import build_model
from octvideo.build.testing import final_test, settings_of
from octvideo.build.training import build_trainer, train, training_batches, validator

__all__ = [
    "build_model",
    "build_trainer",
    "dry_run",
    "final_test",
    "settings_of",
    "train",
    "training_batches",
    "validator",
]
