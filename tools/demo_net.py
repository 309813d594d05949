"""Name what happens in videos.

    python tools/demo_net.py --checkpoint best.pyth --video clip.mp4

The command `octvideo predict`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("predict")
