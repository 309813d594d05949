"""Write a trained network for another runtime, or as a folder to publish.

    octvideo export --checkpoint best.pyth --output model.onnx         ONNX, any batch
    octvideo export --checkpoint best.pyth --output model.xml          OpenVINO
    octvideo export --checkpoint best.pyth --output model.pt2          torch.export
    octvideo export --checkpoint best.pyth --card my_network --license cc-by-4.0
    octvideo export --checkpoint best.pyth --card my_network --push user/my_network

Beside a model.onnx stands model.json: the input's shape and normalization and the class names. How far the written
file's outputs are from the network's is printed. --card writes a folder that `octvideo.load(folder)` reads: weights as
safetensors, settings, classes, input, and a model card with the accuracy of the run's results.json.
"""

import argparse
import json
from pathlib import Path

import torch

import octvideo
from octvideo import hub
from octvideo.deploy.export import export_model
from octvideo.errors import ConfigError
from octvideo.publish import write_card


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", required=True, help="a file that training wrote, or a public network"
    )
    parser.add_argument("--output", type=Path, help=".onnx, .xml or .pt2")
    parser.add_argument("--card", type=Path, metavar="FOLDER", help="a folder to publish")
    parser.add_argument(
        "--license", default="", help="of the weights, as the Hub spells it: cc-by-4.0, mit, ..."
    )
    parser.add_argument(
        "--results", default="", metavar="FILE", help="instead of the results.json of the run"
    )
    parser.add_argument(
        "--push", default="", metavar="USER/NAME", help="upload the folder to the Hugging Face Hub"
    )
    parser.add_argument("--private", action="store_true", help="open to you alone")


def run(args: argparse.Namespace) -> None:
    if not (args.output or args.card):
        raise ConfigError("nothing to write: give --output FILE, --card FOLDER, or both")
    if args.push and not args.card:
        raise ConfigError(f"--push {args.push}: uploads a folder; name it with --card FOLDER")
    if args.output:
        write_model(args.checkpoint, args.output)
    if args.card:
        card = write_card(args.checkpoint, args.card, license=args.license, results=args.results)
        print(f"written: {args.card}, its model card is {card}")
    if args.push:
        print(f"pushed: {hub.push(args.card, args.push, private=args.private)}")


def write_model(checkpoint: str, output: Path) -> None:
    recognizer = octvideo.load(checkpoint, device="cpu")
    size = recognizer.preprocessing
    example = torch.randn(2, 3, size["num_frames"], size["crop_size"], size["crop_size"])
    difference = export_model(recognizer.model, example, output)
    facts = {
        "input": ["batch", *example.shape[1:]],
        "output": "logits",
        "class_names": recognizer.class_names,
    } | size
    output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"written: {output}, relative difference {difference:.1e}")
