"""Write a trained network for another runtime, and print how far the written file is from it.

    python tools/export.py --checkpoint best.pyth --output model.onnx

The command `octvideo export`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("export")
