"""Write a trained network for another runtime, or as a folder to publish.

    octvideo export --checkpoint best.pyth --output model.onnx         ONNX, any batch
    octvideo export --checkpoint best.pyth --output model.onnx --lowered    as 2D convolutions, for TensorRT
    octvideo export --checkpoint best.pyth --output model.xml          OpenVINO
    octvideo export --checkpoint best.pyth --output model.pt2          torch.export
    octvideo export --checkpoint best.pyth --card my_network --license cc-by-4.0
    octvideo export --checkpoint best.pyth --card my_network --push user/my_network

A model.json is written beside model.onnx, with the input's shape, normalization and the class
names; octvideo.load reads both. The relative difference between the outputs of the file and of the
network is printed; above 1e-4 nothing is written. --card writes a folder that `octvideo.load(folder)` reads: weights as
safetensors, settings, classes, input, and a model card with the accuracy of the run's results.json;
files in it that are of no card are not replaced.
"""

import argparse
from pathlib import Path

import octvideo
from octvideo import hub
from octvideo.cli.unused import refuse_unused
from octvideo.errors import ConfigError
from octvideo.publish import require_card_folder, write_card


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", required=True, help="a file that training wrote, or a public network"
    )
    parser.add_argument("--output", type=Path, help=".onnx, .xml or .pt2")
    parser.add_argument(
        "--lowered", action="store_true", help="an .onnx with 2D instead of 3D convolutions"
    )
    parser.add_argument("--card", type=Path, metavar="FOLDER", help="a folder to publish")
    parser.add_argument(
        "--license", default="", help="of the weights, as the Hub spells it: cc-by-4.0, mit, ..."
    )
    parser.add_argument(
        "--results", default="", metavar="FILE", help="by default the run's results.json"
    )
    parser.add_argument(
        "--push", default="", metavar="USER/NAME", help="upload the folder to the Hugging Face Hub"
    )
    parser.add_argument("--private", action="store_true", help="with --push: a private repository")


def run(args: argparse.Namespace) -> None:
    if not (args.output or args.card):
        raise ConfigError("nothing to write: give --output FILE, --card FOLDER, or both")
    if args.lowered and not args.output:
        raise ConfigError("--lowered: is of an .onnx; name it with --output FILE")
    if args.push and not args.card:
        raise ConfigError(f"--push {args.push}: uploads a folder; name it with --card FOLDER")
    if not args.card:
        refuse_unused(args, ("--license", "--results"), "it is of a model card; give --card FOLDER")
    if not args.push:
        refuse_unused(args, ["--private"], "it is of an upload; give --push USER/NAME")
    if args.card:
        require_card_folder(args.card)
    if args.output:
        recognizer = octvideo.load(args.checkpoint, device="cpu")
        difference = recognizer.save(args.output, lowered=args.lowered)
        print(f"written: {args.output}, relative difference {difference:.1e}")
    if args.card:
        card = write_card(args.checkpoint, args.card, license=args.license, results=args.results)
        print(f"written: {args.card}, its model card is {card}")
    if args.push:
        print(f"pushed: {hub.push(args.card, args.push, private=args.private)}")
