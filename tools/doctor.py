"""Look before you run.

    python tools/doctor.py env

The command `octvideo doctor`, in octvideo/cli/; --help shows all arguments.
"""

from _clone import run_command

if __name__ == "__main__":
    run_command("doctor")
