"""Parameters, multiply-adds (MACs) and activations of a network, stage by stage; or the paper's
tables beside ours.

    python tools/complexity.py --model i3d_r50 --alpha 0.1

The command `octvideo complexity`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("complexity")
