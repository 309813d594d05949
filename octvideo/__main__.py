"""`python -m octvideo COMMAND ...` is `octvideo COMMAND ...`."""

from octvideo.cli import main

if __name__ == "__main__":
    main()
