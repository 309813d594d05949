"""Decode every file of a list once, and write what is good, what is bad and why, and the index for
training.

    python tools/check_videos.py lists/kinetics400/train.csv

The command `octvideo check`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("check")
