"""The command line: `octvideo COMMAND ...`, which is also `python -m octvideo COMMAND ...` and the
scripts of tools/.

A command is a module of this package: its docstring is its help, `add_arguments(parser)` declares
its arguments, and `run(args)` does the work. A module is imported only when its command is called,
so that prediction does not import the dependencies of training.
"""

from octvideo.cli.main import main, run_command

__all__ = ["main", "run_command"]
