"""Turn image weights into the weights of a video network, and print the changes.

    octvideo inflate --cfg configs/kinetics400/i3d.yaml resnet50.pth i3d_r50.pyth
    octvideo inflate --cfg configs/finetune/oct_i3d.yaml resnet50.pth oct_i3d.pyth --images imagenet/val

IN: a checkpoint of this package, a ResNet in torchvision's layout, or an official OctConv file
(.params, .tar). The config defines the network. Training inflates weights itself
(TRAIN.CHECKPOINT_INFLATE); this command shows the result beforehand.

With --images (a folder per class), the channels of vanilla weights that lose least at half
resolution become the low group, as training chooses them from its own clips
(OCTCONV.SMOOTHEST_LOW). The command then measures the cost of the split: the error of each stage's
features and, if the network keeps the classifier, top-1 before and after batch norm statistics are
recomputed; folders that are not named after its classes must then be all of them. OUT then has the
recomputed statistics.
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from octvideo.assembly import build_model
from octvideo.assembly.data import numbered_names
from octvideo.assembly.tasks import task_of
from octvideo.assembly.weights import (
    first_pictures,
    image_weights,
    inflate_from,
    is_to_be_sorted,
    order_channels,
    split_effect,
)
from octvideo.checkpoint import Checkpoint
from octvideo.cli.unused import refuse_unused
from octvideo.config import add_config_arguments, load_config
from octvideo.errors import ConfigError
from octvideo.files import require_another_file
from octvideo.weights.pretrained import read_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT", type=Path)
    parser.add_argument("--images", metavar="FOLDER", help="images in a folder per class")
    parser.add_argument(
        "--batches",
        type=int,
        default=8,
        help="batches of 8 images to measure on; as many more to test on",
    )
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> None:
    if not args.images:
        refuse_unused(args, ["--batches"], "they are of images; give --images FOLDER")
    if args.batches < 1:
        raise ConfigError(f"--batches {args.batches}: is 1 or more")
    require_another_file(args.target, args.source)
    cfg = load_config(args.cfg, args.settings)

    torch.manual_seed(cfg.RNG_SEED)
    model, source = build_model(cfg), read_weights(args.source)
    weights = image_weights(cfg, source)
    if args.images:
        weights = order_channels(cfg, weights, model, partial(first_pictures, cfg, args.images))
    elif is_to_be_sorted(cfg, weights, model):
        print(
            "no --images: channels are divided as they come, not by what they lose"
            " (OCTCONV.SMOOTHEST_LOW)"
        )
    report = inflate_from(cfg, weights, model)
    print(
        "\n".join([f"{args.source} ({weights.layout}) -> {model.config['name']}", *report.lines()])
    )
    if args.images:
        names = source.class_names or numbered_names(model.config["num_classes"])
        effect = split_effect(cfg, weights, model, report, args.images, args.batches, names)
        print("\n".join(effect))

    Checkpoint(
        state=model.state_dict(), network=model.config, input=task_of(cfg).input_spec()
    ).write(str(args.target))
    print(f"written to {args.target}")
