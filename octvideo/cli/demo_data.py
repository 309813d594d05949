"""Write the demo clips: 8 classes in 4 time-reversed pairs, with lists and class names.

    octvideo demo-data                 640 clips (10 MB) in demo_data/, within seconds
    octvideo demo-data FOLDER --seed 1 --clips 400 80 160

Existing clips are kept, so a second call ends at once.
"""

import argparse
import os
from pathlib import Path

from octvideo.data.prepare.demo import NUM_CLIPS, write_demo_data
from octvideo.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo_data"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--clips", nargs=3, type=int, metavar=tuple(NUM_CLIPS), default=list(NUM_CLIPS.values())
    )


def run(args: argparse.Namespace) -> None:
    if min(args.clips) < 0 or not any(args.clips):
        given = " ".join(map(str, args.clips))
        raise ConfigError(f"--clips {given}: each is 0 or more, and at least one is 1 or more")
    num_clips = dict(zip(NUM_CLIPS, args.clips, strict=True))
    write_demo_data(
        args.folder, seed=args.seed, num_clips=num_clips, num_threads=os.cpu_count() or 1
    )

    print(
        f"{sum(args.clips)} clips:"
        f" {', '.join(str(args.folder / f'{split}.csv') for split in num_clips)}"
    )
