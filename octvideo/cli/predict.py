"""Classify the actions in videos.

    octvideo predict --checkpoint best.pyth clip.mp4
    octvideo predict --model i3d_r50_k400 clip.mp4                          a public network
    octvideo predict --checkpoint best.pyth clip.mp4 --output named.mp4     with its classes over time
    octvideo predict --checkpoint best.pyth folder --output scores.csv      a row per finished video
    octvideo predict --checkpoint best.pyth list.txt --output scores.jsonl --features features.npz
    torchrun --nproc_per_node 8 -m octvideo predict --checkpoint best.pyth list.txt --output scores.csv
    octvideo predict --checkpoint best.pyth clip.mp4 --json                 for programs
    octvideo predict --checkpoint best.pyth --live rtsp://camera/stream     the classes of a stream, a line per window
    octvideo predict --checkpoint best.pyth --live 0 --events               when a class begins and ends

The same command continues a run over a folder or a list that was stopped or killed. A video that
cannot be read gets a row with the reason, and the same command tries it again. Under torchrun the ranks share the videos; rank 0 joins
their rows at the end, in the order of the list.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import octvideo
from octvideo.cli.features import (
    add_network_argument,
    add_run_arguments,
    load_for,
    say_written,
    videos_argument,
)
from octvideo.cli.unused import refuse_unused
from octvideo.data.video.live import is_live
from octvideo.engine.distributed import Processes, this_process
from octvideo.engine.prediction.named import check_top_k
from octvideo.errors import ConfigError
from octvideo.files import require_another_file
from octvideo.predict import (
    FEATURES,
    PREDICTIONS,
    How,
    OutputFiles,
    check_suffix,
    ranks,
    videos_of,
    write_named_video,
)
from octvideo.predict import run as run_videos
from octvideo.recognizer import LiveOptions, find_events
from octvideo.report.annotate import POSITIONS, Label

# Options that have an effect in some of the uses only.
OF_VIEWS = ("--views", "--workers", "--batch")
OF_DRAWING = ("--position", "--threshold")
OF_WINDOWS = ("--window-seconds", "--stride-seconds")
OF_EVENTS = ("--on", "--off")
OF_ADDRESSES = ("--give-up-seconds",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    add_run_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        help="an .mp4 of one video with its classes, or rows: .csv, .jsonl or .parquet",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="NPZ",
        help="also save the pooled features (.npz or .parquet), from the same passes;"
        " with --optimize from passes of their own",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per video on stdout")
    parser.add_argument(
        "--views", default="10x3", help="clips x crops per video; 1x1 is 30 times as fast as 10x3"
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="as TEST.OPTIMIZE; worth its start-up for many videos or a long one",
    )
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument(
        "--live",
        metavar="ADDRESS",
        help=(
            "rtsp://, http(s)://, udp://, /dev/video0 or 0, or a file that grows; ends with Ctrl-C"
        ),
    )
    parser.add_argument(
        "--events", action="store_true", help="with --live: print events instead of windows"
    )
    parser.add_argument("--on", type=float, default=0.6, help="probability that begins an event")
    parser.add_argument("--off", type=float, default=0.4, help="probability below which it ends")
    parser.add_argument(
        "--timeout-seconds",
        type=float,
        default=LiveOptions().timeout_seconds,
        help=(
            "with --live: after this long without a frame a connection is opened again, and a file"
            " that grows has ended"
        ),
    )
    parser.add_argument(
        "--give-up-seconds",
        type=float,
        help="end --live of an address or a camera after this long without a frame",
    )
    parser.add_argument(
        "--window-seconds", type=float, default=2.0, help="for --live and classes over time"
    )
    parser.add_argument("--stride-seconds", type=float, default=1.0)
    parser.add_argument(
        "--position",
        default="below",
        help=(
            f"of the classes in an .mp4: {', '.join(POSITIONS)} (below the picture, which hides"
            " nothing)"
        ),
    )
    parser.add_argument(
        "--threshold", type=float, default=0.0, help="leave less probable classes out of an .mp4"
    )


def run(args: argparse.Namespace) -> None:
    check_top_k(args.top_k)
    if args.live is not None:
        _show_live(args)
        return
    path = videos_argument(args)
    of_live = ("--events", *OF_EVENTS, "--timeout-seconds", *OF_ADDRESSES)
    refuse_unused(args, of_live, "it is of a stream; give --live")
    draws = args.output is not None and args.output.suffix.lower() == ".mp4"
    if draws and Path(path).is_dir():
        raise ConfigError(
            f"--output {args.output}: an .mp4 is made of one video; for a folder write a .csv"
        )
    if args.output and not draws and args.output.suffix.lower() not in PREDICTIONS:
        raise ConfigError(
            f"--output {args.output}: write an .mp4 of one video, or rows as"
            f" {', '.join(PREDICTIONS)}"
        )
    if args.output:
        require_another_file(args.output, path)  # a video, or a list that --overwrite would empty
    if args.features:
        check_suffix(args.features, FEATURES)
    _refuse_unused(args, draws)

    label = Label(args.position, args.threshold, args.top_k)
    with ranks() as procs:
        if draws:
            _require_one_process(procs, f"--output {args.output}")
        videos = videos_of(path)
        if draws and len(videos) > 1:
            raise ConfigError(
                f"--output {args.output}: an .mp4 is made of one video, and {path} lists"
                f" {len(videos)}; write a .csv"
            )
        recognizer = load_for(procs, args.checkpoint)
        if args.optimize:
            recognizer.optimize()
        if draws:
            windows = {"window_seconds": args.window_seconds, "stride_seconds": args.stride_seconds}
            write_named_video(recognizer, videos[0], args.output, label=label, **windows)
        unread = 0
        if not draws or args.features:
            top_k = None if draws else args.top_k
            how = How(args.views, top_k, bool(args.features), args.workers, args.batch)
            files = OutputFiles(None if draws else args.output, args.features, not args.overwrite)
            for video in run_videos(recognizer, videos, how, files, procs):
                unread += bool(video.problem)
                if video.problem and args.features:
                    print(f"left out: {video.path}: {video.problem}", file=sys.stderr)
                if not draws:
                    print(json.dumps(video.as_dict()) if args.json else video.as_text(), flush=True)
        say_written(procs, filter(None, (args.output, args.features)), unread, len(videos))


def _refuse_unused(args: argparse.Namespace, draws: bool) -> None:
    if not draws:
        reason = "it is of classes over time; name an .mp4 with --output"
        refuse_unused(args, (*OF_DRAWING, *OF_WINDOWS), reason)
        return
    refuse_unused(args, ["--json"], "an .mp4 is drawn, and no rows are printed")
    if not args.features:
        reason = "an .mp4 shows windows (--window-seconds), one after another"
        refuse_unused(args, OF_VIEWS, reason)


def _require_one_process(procs: Processes, what: str) -> None:
    if procs.world_size > 1:
        raise ConfigError(f"{what}: this is of one process; start it without torchrun")


def _show_live(args: argparse.Namespace) -> None:
    _require_one_process(this_process("cpu"), f"--live {args.live}")
    if args.videos or args.video or args.output or args.features:
        raise ConfigError("--live names what goes on; it takes no video, --output or --features")
    refuse_unused(args, (*OF_VIEWS, *OF_DRAWING, "--overwrite"), "it is of videos, not of --live")
    if args.events:
        refuse_unused(args, ["--top-k"], "an event is of one class")
    else:
        refuse_unused(args, OF_EVENTS, "it is of events; give --events")
    if not is_live(args.live):
        reason = f"{args.live} is a file, which ends when it no longer grows"
        refuse_unused(args, OF_ADDRESSES, reason)
    recognizer = octvideo.load(args.checkpoint)
    if args.optimize:
        recognizer.optimize()
    windows = recognizer.stream(
        args.live,
        window_seconds=args.window_seconds,
        stride_seconds=args.stride_seconds,
        live=LiveOptions(
            follow=not is_live(args.live),
            timeout_seconds=args.timeout_seconds,
            give_up_seconds=args.give_up_seconds,
        ),
    )
    if args.events:
        for event in find_events(windows, on=args.on, off=args.off):
            print(json.dumps(asdict(event)) if args.json else event.as_text(), flush=True)
    else:
        for window in windows:
            found = window.as_dict(args.top_k)
            print(json.dumps(found) if args.json else window.as_text(args.top_k), flush=True)
