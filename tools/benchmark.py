"""Does the octave pay on this machine? Times beside multiply-adds, measured in turns.

    python tools/benchmark.py --model i3d_r50 --alpha 0 .1 .2 .5

The command `octvideo benchmark`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("benchmark")
