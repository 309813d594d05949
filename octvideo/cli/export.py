"""Write a trained network for another runtime, and print how far the written file is from it.

    octvideo export --checkpoint best.pyth --output model.onnx         ONNX, any batch
    octvideo export --checkpoint best.pyth --output model.xml          OpenVINO
    octvideo export --checkpoint best.pyth --output model.pt2          torch.export

Beside it stands model.json: the input's shape and normalisation and the class names.
"""

import argparse
import json
from pathlib import Path

import torch

import octvideo
from octvideo.deploy.export import export_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, help="a file that training wrote")
    parser.add_argument("--output", required=True, type=Path, help=".onnx, .xml or .pt2")


def run(args: argparse.Namespace) -> None:
    recognizer = octvideo.load(args.checkpoint, device="cpu")
    size = recognizer.preprocessing
    example = torch.randn(2, 3, size["num_frames"], size["crop_size"], size["crop_size"])
    difference = export_model(recognizer.model, example, args.output)
    facts = {
        "input": ["batch", *example.shape[1:]],
        "output": "logits",
        "class_names": recognizer.class_names,
    } | size
    args.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"written: {args.output}, relative difference {difference:.1e}")
