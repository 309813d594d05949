"""Pictures of what a network sees, each written to PNG files in --output.

    python tools/visualize.py gradcam --checkpoint best.pyth --video a.mp4

The command `octvideo visualize`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("visualize")
