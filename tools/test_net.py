"""Test a checkpoint on all views of every video of a list.

    python tools/test_net.py --cfg configs/demo/oct_i3d.yaml

The command `octvideo test`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("test")
