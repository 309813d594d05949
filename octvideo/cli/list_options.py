"""Options that several commands have."""

import argparse

from octvideo.cli.unused import refuse_unused
from octvideo.data.lists.video_list import FORMATS, format_name
from octvideo.data.prepare.shard import Encoding


def add_list_options(parser: argparse.ArgumentParser) -> None:
    """Add --format and --path-prefix, for `read_list`."""
    parser.add_argument(
        "--format", type=format_name, choices=FORMATS, default="video", help="DATA.LIST_FORMAT"
    )
    parser.add_argument(
        "--path-prefix", default="", help="DATA.PATH_PREFIX; by default the list's folder"
    )


def add_encoding_options(parser: argparse.ArgumentParser, short_side: int, help: str) -> None:
    """Add --short-side, --gop and --crf. short_side, help: the default, and what it means."""
    parser.add_argument("--short-side", type=int, default=short_side, help=help)
    parser.add_argument("--gop", type=int, default=12, help="frames from keyframe to keyframe (12)")
    parser.add_argument(
        "--crf", type=int, default=20, help="0 to 51, larger is smaller and worse (20)"
    )


def encoding_of(args: argparse.Namespace) -> Encoding:
    """What the options say. Raises ConfigError for one of videos that are stored unchanged."""
    if not args.short_side:
        reason = "videos are stored unchanged; give --short-side too"
        refuse_unused(args, ("--gop", "--crf"), reason)
    return Encoding(args.short_side, args.gop, args.crf)


def add_worker_options(parser: argparse.ArgumentParser, timeout: float) -> None:
    """Add --workers, and --timeout with this default in seconds."""
    parser.add_argument("--workers", type=int, help="processes; by default one per core")
    seconds = f"seconds for one file ({timeout:g})"
    parser.add_argument("--timeout", type=float, default=timeout, help=seconds)
