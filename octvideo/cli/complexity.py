"""Parameters, multiply-adds (MACs) and activations of a network, stage by stage; or the paper's
tables beside the values of this package.

    octvideo complexity --paper [--json FILE]                       every row of Tables 1-6
    octvideo complexity --paper --table 6
    octvideo complexity --model i3d_r50 --alpha 0.1 --input 8 224 224
    octvideo complexity --cfg configs/kinetics400/oct_i3d.yaml [KEY VALUE ...]
    octvideo complexity --octavize NAME [NAME ...] [--alpha 0.25] [--layers]

--input is T H W (H W for an image network); SlowFast takes the frames of its fast pathway. Every
network is counted twice, in closed form and by fvcore (of --paper by torch's own counter), and the
two must agree.

--octavize converts networks of create_model to octave, and torchvision:NAME or timm:NAME where
those libraries are installed. It prints a row for each: octave convolutions, multiply-adds,
parameters, time on this CPU, and the error of the last features on random clips with random
weights. --layers lists the conversion of every layer.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import nn

from octvideo import create_model, octavize
from octvideo.assembly import build_model
from octvideo.assembly.tasks import task_of
from octvideo.cli.unused import refuse_unused
from octvideo.complexity import count_twice, stage_table, without
from octvideo.config import add_config_arguments, load_config
from octvideo.deploy.timing import interleaved
from octvideo.errors import ConfigError, first_line, import_optional
from octvideo.files import require_place, write_atomically
from octvideo.layers import channels_last, compute_in_2d
from octvideo.models.registry import input_shape_of, on_meta
from octvideo.octavize import OctaveReport
from octvideo.paper import TABLES, Result, format_results, results

# What is counted: one of these, with its options.
OF = {
    "--paper": ("--table", "--json"),
    "--octavize": ("--alpha", "--input", "--layers"),
    "--model": ("--alpha", "--input"),
    "--cfg": ("--input",),
}
OTHERS = {"torchvision": ("torchvision.models", "get_model"), "timm": ("timm", "create_model")}


def print_paper(json_path: Path | None, tables: Sequence[int]) -> None:
    rows: list[Result] = []
    if json_path:
        require_place(json_path)

    def kept() -> Iterator[Result]:
        for row in results(traced=True, tables=tables):
            rows.append(row)
            yield row

    for line in format_results(kept()):
        print(line, flush=True)
    if json_path:
        text = json.dumps([row.plain() for row in rows], indent=1, allow_nan=False)
        write_atomically(str(json_path), lambda file: file.write(text.encode()))


def print_network(model: nn.Module, shape: Sequence[int]) -> None:
    print(stage_table(model, shape))
    cost, operators = count_twice(model, shape)
    print(
        f"\nMACs of convolutions and linear layers: {cost.macs / 1e9:.3f} G, by closed form and by"
        f" fvcore{without(cost.uncounted)}"
    )
    others = ", ".join(f"{kind} {macs / 1e9:.3f}" for kind, macs in operators.items())
    print(f"MACs of all that fvcore counts: {operators.total() / 1e9:.3f} G ({others})")


def print_octavized(
    names: Sequence[str], alpha: float, size: Sequence[int] | None, layers: bool
) -> None:
    """A row of a Markdown table per network; a time is the fastest of five calls, the networks
    taking turns after a warm-up, with a batch of one. Both compute flat 3D kernels in 2D, on
    channels-last kernels: the octave gets no credit for that."""
    print(
        f"| network | octave at {alpha:g} | G multiply-adds | M parameters | s on a CPU | feature"
        " error |"
    )
    print("|---|---|---|---|---|---|")
    for name in names:
        torch.manual_seed(0)
        model, (channels, *usual) = network_of(name)
        x = torch.rand(1, channels, *(size or usual))
        octave = octavize(model, alpha, x, clips=x)
        calls = [partial(compute_in_2d(channels_last(network)), x) for network in (model, octave)]
        with torch.inference_mode():
            seconds = [min(times) for times in interleaved(dict(enumerate(calls)), 5).values()]
        report = cast(OctaveReport, octave.octave_report)
        print(octave_row(name, report, seconds), flush=True)
        if layers:
            print(report)


def network_of(name: str) -> tuple[nn.Module, Sequence[int]]:
    """A network with random weights, and the shape of its input: of create_model,
    "torchvision:NAME" or "timm:NAME"."""
    library, _, short = name.rpartition(":")
    if library not in OTHERS:
        return create_model(name).eval(), input_shape_of(name)
    module, function = OTHERS[library]
    try:
        found = import_optional(module, name, f"pip install {library}")
        model: nn.Module = getattr(found, function)(short).eval()
    except (RuntimeError, ValueError) as error:  # of an installation, or of an unknown name
        raise ConfigError(f"{name}: {library} says: {first_line(error)}") from error
    is_video = any(isinstance(layer, nn.Conv3d) for layer in model.modules())
    return model, (3, 16, 112, 112) if is_video else (3, 224, 224)


def octave_row(name: str, report: OctaveReport, seconds: Sequence[float]) -> str:
    cells = (
        name,
        f"{len(report.octave)} of {len(report.convolutions)}",
        f"{report.macs_before / 1e9:.2f} -> {report.macs / 1e9:.2f}",
        f"{report.parameters_before / 1e6:.2f} -> {report.parameters / 1e6:.2f}",
        f"{seconds[0]:.3f} -> {seconds[1]:.3f}",
        f"{report.errors[-1].error:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--paper", action="store_true", help="Tables 1-6")
    parser.add_argument(
        "--table", type=int, nargs="+", choices=TABLES, help="with --paper: these tables only"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="with --paper: also write the rows to FILE"
    )
    parser.add_argument("--model", metavar="NAME", help="a network of octvideo.create_model")
    parser.add_argument(
        "--alpha", type=float, help="octave ratio: of --model (0), of --octavize (0.25)"
    )
    parser.add_argument(
        "--input", type=int, nargs="+", default=None, metavar="N", help="T H W, or H W"
    )
    parser.add_argument(
        "--octavize", metavar="NAME", nargs="+", help="networks to convert with octvideo.octavize"
    )
    parser.add_argument("--layers", action="store_true", help="with --octavize: every layer")
    add_config_arguments(parser, required=False)


def run(args: argparse.Namespace) -> None:
    _refuse_unused(args)
    if args.paper or args.table:
        print_paper(args.json, args.table or TABLES)
    elif args.octavize:
        alpha = 0.25 if args.alpha is None else args.alpha
        print_octavized(args.octavize, alpha, args.input, args.layers)
    elif args.model:
        model = on_meta(args.model, lambda: create_model(args.model, alpha=args.alpha or 0.0))
        channels, *usual = input_shape_of(args.model)
        print_network(model, (channels, *(args.input or usual)))
    elif args.cfg:
        cfg = load_config(args.cfg, args.settings)
        channels, *usual = task_of(cfg).input_shape()
        print_network(build_model(cfg), (channels, *(args.input or usual)))
    else:
        raise ConfigError(
            "nothing to count: give --paper, --model NAME, --cfg FILE or --octavize NAME"
        )


def _refuse_unused(args: argparse.Namespace) -> None:
    chosen = [what for what in OF if what in args.given or (what == "--paper" and args.table)]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)}: one of them is counted at a time")
    if args.settings and not args.cfg:
        words = " ".join(args.settings)
        raise ConfigError(f"{words}: settings change a config; name it with --cfg")
    for what in chosen:
        others = set[str]().union(*OF.values()).difference(OF[what])
        also = ", and settings such as OCTCONV.ALPHA=0.1" if what == "--cfg" else ""
        refuse_unused(args, others, f"{what} takes {', '.join(OF[what])}{also}")
