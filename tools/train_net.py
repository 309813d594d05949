"""Train what a config describes, and test it on all views when TEST.ENABLE is set.

    python tools/train_net.py --cfg configs/demo/oct_i3d.yaml

The command `octvideo train`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("train")
