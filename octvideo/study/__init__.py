"""Several networks over several seeds: resumable runs, and one table of their results."""

from octvideo.study.finished import draw_runs
from octvideo.study.summary import write_tables
from octvideo.study.sweep import Sweep, measure_times, read_rows, run_sweep

__all__ = ["Sweep", "draw_runs", "measure_times", "read_rows", "run_sweep", "write_tables"]
