"""Write the demo clips: 8 classes in 4 time-reversed pairs, with lists and class names.

    python tools/make_demo_data.py                 640 clips (10 MB) into demo_data/, in some seconds
    python tools/make_demo_data.py FOLDER --seed 1 --clips 400 80 160

Clips that are there already are kept, so a second call ends at once.
"""

import argparse
import os
from pathlib import Path

from octvideo.data.prepare.demo import NUM_CLIPS, write_demo_data
from octvideo.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo_data"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--clips", nargs=3, type=int, metavar=tuple(NUM_CLIPS), default=list(NUM_CLIPS.values())
    )
    args = parser.parse_args()

    num_clips = dict(zip(NUM_CLIPS, args.clips, strict=True))
    write_demo_data(
        args.folder, seed=args.seed, num_clips=num_clips, num_threads=os.cpu_count() or 1
    )

    print(
        f"{sum(args.clips)} clips: {', '.join(str(args.folder / f'{split}.csv') for split in num_clips)}"
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
