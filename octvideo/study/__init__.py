"""Several networks over several seeds: runs that continue, and one table of what they found."""

from octvideo.study.summary import write_tables
from octvideo.study.sweep import Sweep, measure_times, run_sweep

__all__ = ["Sweep", "measure_times", "run_sweep", "write_tables"]
