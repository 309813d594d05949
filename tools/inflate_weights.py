"""Turn image weights into the weights of a video network, and say what that changes.

    python tools/inflate_weights.py --cfg configs/kinetics400/i3d.yaml IN OUT.pyth

The command `octvideo inflate`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("inflate")
