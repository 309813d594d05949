"""Re-encode a folder of videos so that training reads them fast: small, and with dense keyframes.

    python tools/resize_videos.py VIDEOS SMALL_VIDEOS

The command `octvideo resize`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("resize")
