"""Name the videos of a list with a pool of processes; run it again to continue.

python docs/recipes/pool_predict.py best.pyth videos.csv predictions.jsonl --processes 8
"""

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import Any

import torch

from octvideo.batch import Predictor
from octvideo.data.lists.video_list import read_list
from octvideo.files import append_json_line, read_json_lines

predictor: Predictor


def start(checkpoint: str, views: str) -> None:
    global predictor
    torch.set_num_threads(1)  # the processes are the parallelism
    predictor = Predictor(checkpoint, views=views)


def predict(path: str) -> dict[str, Any]:
    return predictor({"path": path})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("list")
    parser.add_argument("output", type=Path)
    parser.add_argument("--views", default="1x1")
    parser.add_argument("--processes", type=int)
    args = parser.parse_args()

    done = {row["path"] for row in read_json_lines(args.output) if not row["error"]}
    todo = [entry.path for entry in read_list(args.list) if entry.path not in done]
    # Never fork a process that has used torch or a decoder.
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.processes, start, (args.checkpoint, args.views)) as pool:
        for row in pool.imap_unordered(predict, todo):
            append_json_line(args.output, row)
    print(json.dumps({"already there": len(done), "predicted": len(todo)}))


if __name__ == "__main__":
    main()
