"""The options of commands that read a list of videos."""

import argparse

from octvideo.data.lists.video_list import FORMATS, format_name


def add_list_options(parser: argparse.ArgumentParser) -> None:
    """Add --format and --path-prefix, for `read_list`."""
    parser.add_argument(
        "--format", type=format_name, choices=FORMATS, default="video", help="DATA.LIST_FORMAT"
    )
    parser.add_argument(
        "--path-prefix", default="", help="DATA.PATH_PREFIX; by default the list's folder"
    )
