"""Convert weights of other projects into a checkpoint of this one, and describe them.

    octvideo convert IN OUT.pyth
    octvideo convert I3D_8x8_R50.pyth i3d_r50.pyth --input 8x8 --class-names names.txt
    octvideo convert i3d_r50_k400 i3d_r50.safetensors                   a public network by its name
    octvideo convert resnet50_caffe.pth resnet50.pyth --stride-1x1 --mean 0.45 --std 0.225

IN: an official OctConv file (.params, or the .tar that holds one), a ResNet in torchvision's or
timm's layout, or d-li14's Oct-ResNet-50. Properties that the file does not record (mean, std, the
layer with the stride) default to those of its project; the options override them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from octvideo.cli.unused import refuse_unused
from octvideo.errors import ConfigError
from octvideo.files import require_another_file
from octvideo.weights.convert import ConvertedWeights, convert_weights
from octvideo.weights.describe import read_classes, said_of
from octvideo.weights.pretrained import describe_file, pretrained_networks, read_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT", type=Path)
    parser.add_argument(
        "--stride-1x1",
        action="store_true",
        help="the first 1x1 of a block has its stride (Caffe)",
    )
    parser.add_argument(
        "--mean", type=float, nargs="+", help="of the RGB input in 0..1: one number or three"
    )
    parser.add_argument("--std", type=float, nargs="+")
    parser.add_argument(
        "--class-names",
        metavar="FILE or DATA SET",
        help="a text file, one name per line in the order of the labels, or kinetics400,"
        " kinetics600, something-something-v2, charades or imagenet",
    )
    parser.add_argument(
        "--input", metavar="8x8", help="IN is a video network's; its frames x frame stride"
    )


def run(args: argparse.Namespace) -> None:
    require_another_file(args.target, args.source)
    if args.input or args.source in pretrained_networks():
        convert_video(args)
        return

    weights = convert_weights(args.source, stride_1x1=args.stride_1x1).with_input(
        args.mean, args.std
    )
    names = read_classes(args.class_names) if args.class_names else ()
    weights.checkpoint(names, args.source).write(str(args.target))

    print("\n".join(describe(weights)))
    print(f"written to {args.target}")


def convert_video(args: argparse.Namespace) -> None:
    refuse_unused(args, ["--stride-1x1"], "it is of image networks")
    if not args.input:
        reason = "what a public network assumes is known (`octvideo pretrained`)"
        refuse_unused(args, ["--class-names", "--mean", "--std"], reason)
    checkpoint = read_weights(args.source)
    if args.input and checkpoint.network:
        raise ConfigError(
            f"{args.source}: says its network, its classes and its input itself; leave out --input"
        )
    if args.input:
        numbers = {"mean": args.mean, "std": args.std}
        given = said_of({**said_of(args.input), **numbers})
        checkpoint = describe_file(checkpoint, args.class_names or "kinetics400", given)
    checkpoint.write(str(args.target))
    network = checkpoint.network
    named = "" if args.class_names or not args.input else " of kinetics400 (--class-names)"
    print(f"{network['name']}, {network['num_classes']} classes{named}, from {checkpoint.path}")
    if args.input:
        seen = checkpoint.input
        order = _order(seen.reverse_channels)
        mean, std = _numbers(seen.mean or ()), _numbers(seen.std or ())
        print(f"input: {order} in 0..1, mean {mean}, std {std}; scores by {checkpoint.head_act}")
    print(f"written to {args.target}")


def describe(weights: ConvertedWeights) -> list[str]:
    model = weights.model
    place = (
        "first 1x1"
        if model.get("stride_1x1")
        else "last 1x1"
        if model.get("stride_last")
        else "3x3"
    )
    order = _order(weights.reverse_channels)
    assumed = "  (as its project has it; --mean, --std)" if weights.assumed else ""
    return [
        (
            f"{model['name']}, alpha {model['alpha']:g}, {model['num_classes']} classes, from"
            f" {weights.layout}"
        ),
        f"input: {order} in 0..1, mean {_numbers(weights.mean)}, std {_numbers(weights.std)}{assumed}",
        f"BN eps {model['bn_eps']:g}, strides at the {place}, taken by {model['downsample']}",
    ]


def _order(reverse_channels: bool) -> str:
    return "BGR" if reverse_channels else "RGB"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
