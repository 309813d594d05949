"""Draw a network's features, attention and training clips as PNG files in --output.

octvideo visualize frequency --checkpoint oct.pyth --baseline i3d.pyth --video a.mp4 b.mp4
octvideo visualize octave --checkpoint oct.pyth --video a.mp4 --layer res3.block1.spatial.conv
octvideo visualize gradcam --checkpoint oct.pyth --video a.mp4
octvideo visualize clips --cfg configs/demo/oct_i3d.yaml         the clips that training samples
octvideo visualize tradeoff --results runs/*/results.json        accuracy against GFLOPs

tradeoff: runs of one network that differ in their seeds are one point, their mean; others are refused.
"""

import argparse
from pathlib import Path

import octvideo
from octvideo import visualize
from octvideo.assembly import training_batches
from octvideo.config import add_config_arguments, load_config
from octvideo.files import make_output_folder
from octvideo.study import draw_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(settings=[])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, layer, said in (
        ("frequency", "res3", "res3"),
        ("octave", "res3.block1.spatial.conv", "res3.block1.spatial.conv"),
        ("gradcam", "", "the last stage with at least 7 x 7 positions"),
    ):
        sub = kinds.add_parser(kind)
        sub.add_argument("--checkpoint", required=True)
        sub.add_argument("--video", required=True, type=Path, nargs="+")
        sub.add_argument(
            "--layer", default=layer, help=f"default: {said}; SlowFast: slow. or fast. before it"
        )
    kinds.choices["frequency"].add_argument("--baseline", help="a checkpoint to compare with")
    kinds.choices["gradcam"].add_argument("--class-name", help="by default the most probable")
    add_config_arguments(kinds.add_parser("clips"))
    kinds.choices["clips"].add_argument("--count", type=int, default=16)
    kinds.add_parser("tradeoff").add_argument("--results", required=True, type=Path, nargs="+")
    for sub in kinds.choices.values():
        sub.add_argument("--output", type=Path, default=Path("pictures"), help="a folder")


def draw(args: argparse.Namespace) -> list[Path]:
    if args.kind == "tradeoff":
        return draw_runs(args.results, args.output)
    if args.kind == "clips":
        batches, names = training_batches(load_config(args.cfg, args.settings))
        return visualize.draw_clips(batches, names, args.count, args.output)
    recognizer = octvideo.load(args.checkpoint)
    if args.kind == "frequency":
        networks = {"": recognizer} | (
            {"baseline": octvideo.load(args.baseline)} if args.baseline else {}
        )
        return visualize.draw_frequency(networks, args.video, args.layer, args.output)
    paths = []
    place, several = (args.layer, args.output), len(args.video) > 1
    for video, name in zip(args.video, visualize.picture_names(args.video), strict=True):
        if args.kind == "octave":
            paths += visualize.draw_octave(recognizer, video, *place, name if several else "")
        else:
            paths += visualize.draw_gradcam(recognizer, video, *place, args.class_name, name)
    return paths


def run(args: argparse.Namespace) -> None:
    make_output_folder(str(args.output))
    for path in draw(args):
        print(path)
