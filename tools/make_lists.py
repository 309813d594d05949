"""Write train.csv, val.csv, test.csv, class_names.txt and report.txt for a data set.

    python tools/make_lists.py folders VIDEOS --out lists/mine

The command `octvideo lists`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("lists")
