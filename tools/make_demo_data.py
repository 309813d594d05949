"""Write the demo clips: 8 classes in 4 time-reversed pairs, with lists and class names.

    python tools/make_demo_data.py demo_data

The command `octvideo demo-data`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("demo-data")
