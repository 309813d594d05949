"""Name the videos of a list with Ray Data, to parquet; run it again to continue with those that are
not there yet.

python docs/recipes/ray_predict.py best.pyth videos.csv predictions --actors 8

On a cluster, RAY_ADDRESS names it.
"""

import argparse
from pathlib import Path

import ray

from octvideo.batch import Predictor
from octvideo.data.lists.video_list import read_list


def paths_there(folder: Path) -> set[str]:
    """Videos that were named by earlier runs; those with an error are tried again."""
    if not any(folder.glob("**/*.parquet")):
        return set()
    rows = ray.data.read_parquet(str(folder), columns=["path", "error"]).take_all()
    return {row["path"] for row in rows if not row["error"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("list")
    parser.add_argument("output", type=Path)
    parser.add_argument("--views", default="1x1")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="per actor")
    args = parser.parse_args()

    there = paths_there(args.output)
    todo = [{"path": entry.path} for entry in read_list(args.list) if entry.path not in there]
    if todo:
        ray.data.from_items(todo).map_batches(
            Predictor,
            fn_constructor_args=[args.checkpoint],
            fn_constructor_kwargs={"views": args.views},
            batch_size=16,
            num_gpus=args.gpus,
            compute=ray.data.ActorPoolStrategy(size=args.actors),
        ).write_parquet(str(args.output), mode="append")
    print(f"{len(there)} were there, {len(todo)} predicted")


if __name__ == "__main__":
    main()
