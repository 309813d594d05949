"""Classify the videos that clients send over HTTP (docs/serve.md).

octvideo serve --checkpoint best.pyth
octvideo serve --checkpoint best.pyth --host 0.0.0.0 --port 8000 --optimize --workers 4
octvideo serve --checkpoint best.pyth --allow https://media.example.org         also fetch videos from there
curl --data-binary @clip.mp4 "http://127.0.0.1:8000/predict?views=1x1&top_k=5"
"""

import argparse
import signal
import sys
import threading
from math import inf

from octvideo.cli.features import add_network_argument
from octvideo.cli.unused import refuse_unused
from octvideo.engine.threads import available_cores
from octvideo.errors import ConfigError
from octvideo.recognizer.load import load_hashed
from octvideo.serve.app import require_free, run_server
from octvideo.serve.limits import Limits
from octvideo.serve.service import Service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    usual = Limits()
    add_network_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for other machines")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--workers", type=int, help="processes that decode; by default one per core"
    )
    parser.add_argument(
        "--batch", type=int, default=8, help="views per forward pass, of one or several requests"
    )
    parser.add_argument("--optimize", action="store_true", help="as TEST.OPTIMIZE")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="fetch videos from this origin, as https://media.example.org; repeatable",
    )
    parser.add_argument(
        "--allow-private",
        action="store_true",
        help="let --allow name machines of a private network",
    )
    parser.add_argument("--max-megabytes", type=float, default=usual.max_bytes / 2**20)
    parser.add_argument("--max-video-seconds", type=float, default=usual.max_video_seconds)
    parser.add_argument("--max-views", type=int, default=usual.max_views)
    parser.add_argument(
        "--max-waiting", type=int, default=usual.max_waiting, help="requests; beyond that: 503"
    )
    parser.add_argument("--receive-seconds", type=float, default=usual.receive_seconds)
    parser.add_argument("--decode-seconds", type=float, default=usual.decode_seconds)
    parser.add_argument("--request-seconds", type=float, default=usual.request_seconds)


def _bytes_of(megabytes: float) -> int:
    size = megabytes * 2**20
    if not 1 <= size < inf:
        raise ConfigError(f"--max-megabytes {megabytes:g}: give a number above 0, such as 64")
    return int(size)


def run(args: argparse.Namespace) -> None:
    if not args.allow:
        refuse_unused(args, ["--allow-private"], "it is of origins; name them with --allow")
    limits = Limits(
        max_bytes=_bytes_of(args.max_megabytes),
        max_video_seconds=args.max_video_seconds,
        max_views=args.max_views,
        receive_seconds=args.receive_seconds,
        decode_seconds=args.decode_seconds,
        request_seconds=args.request_seconds,
        max_waiting=args.max_waiting,
    )
    require_free(args.host, args.port)
    recognizer = load_hashed(args.checkpoint)
    if args.optimize:
        recognizer.optimize()
    service = Service(
        recognizer,
        workers=available_cores() if args.workers is None else args.workers,
        batch=args.batch,
        limits=limits,
        origins=args.allow,
        private=args.allow_private,
    )
    if threading.current_thread() is threading.main_thread():
        # The server has stopped in order when the signal comes again: an ordinary end, at which
        # multiprocessing removes its temporary files too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run_server(service, args.host, args.port)
