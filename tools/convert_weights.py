"""Convert image weights of other projects into a checkpoint of this one, and say what they are.

    python tools/convert_weights.py IN OUT.pyth

The command `octvideo convert`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("convert")
