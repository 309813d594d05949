"""The command line: `octvideo COMMAND ...`, which is also `python -m octvideo COMMAND ...` and the
scripts of tools/.

A command is a module of this package: its docstring is its help, `add_arguments(parser)` declares
what it takes, and `run(args)` does it. The module is imported when its command is called:
prediction needs nothing that training needs.
"""

from octvideo.cli.main import main, run_command

__all__ = ["main", "run_command"]
