"""What the scripts of this folder call, from the package of this clone, installed or not."""

import signal

# Ctrl-C while PyTorch is imported ends the process, without a traceback through its modules.
if (_before := signal.getsignal(signal.SIGINT)) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
try:
    from octvideo.cli import run_command
except ModuleNotFoundError as error:
    print(f"error: no {error.name} here; pip install -r requirements.txt", file=sys.stderr)
    sys.exit(2)
signal.signal(signal.SIGINT, _before)

__all__ = ["run_command"]
