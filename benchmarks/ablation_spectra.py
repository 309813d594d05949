"""Which frequencies the groups of trained variants carry: the paper's Fig. 4 on the networks of
ablation_video.py.

    python benchmarks/ablation_spectra.py runs/ablation pictures [--layer res3] [--variants "alpha 0" octave]

Writes pictures/ablation_spectra_<layer>.png, the mean over 64 test clips of the made ones and
the networks of the first seed, and prints which share of the energy lies in the upper half of each
map's own frequencies.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from ablation.clips import load_clips, middle
from ablation.training import MEAN, STD
from ablation.variants import VARIANTS, build
from torch import Tensor

from octvideo.data.prepare.demo import CLASS_NAMES
from octvideo.data.transforms import normalize
from octvideo.layers import as_pair
from octvideo.report.hooks import captured
from octvideo.report.spectrum import Spectrum, draw_spectra, energy_spectrum

NUM_CLIPS = 64


def spectra(variant: str, weights: Path, inputs: Tensor, layer: str) -> dict[str, Spectrum]:
    """Of the high and the low group of `layer`, relative to the mean energy of both."""
    model = build(variant, len(CLASS_NAMES))
    model.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad(), captured(model.eval(), [layer]) as found:
        model(inputs)
    pair = as_pair(found[layer])
    groups = {"high": pair.high} | ({} if pair.low is None else {"low": pair.low})
    scale = sum(float(x.square().mean()) for x in groups.values()) / len(groups)
    return {f"{variant}: {name}": energy_spectrum(x) / scale for name, x in groups.items()}


def fine_share(spectrum: Spectrum) -> float:
    """Per cent of the energy, constant part left out, above .25 cycles per pixel: what half the
    size cannot carry."""
    fy, fx = (np.abs(np.arange(n) - n // 2) / n for n in spectrum.shape)
    varying = spectrum.copy()
    varying[spectrum.shape[0] // 2, spectrum.shape[1] // 2] = 0
    return 100 * float(varying[np.maximum(fy[:, None], fx[None]) > 0.25].sum() / varying.sum())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="the folder that ablation_video.py wrote")
    parser.add_argument("output", type=Path, help="a folder")
    parser.add_argument("--layer", default="res3")
    parser.add_argument(
        "--variants", nargs="+", default=["alpha 0", "alpha 0, pooled", "octave"], choices=VARIANTS
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = load_clips(None, args.runs / "demo" / "clips.npz")["test"].share(1, NUM_CLIPS)
    inputs = normalize(middle(clips.inputs, (64, 64)), MEAN, STD)
    found: dict[str, Spectrum] = {}
    for variant in args.variants:
        found |= spectra(variant, args.runs / "demo" / f"{variant}, seed 1.pth", inputs, args.layer)
    for name, spectrum in found.items():
        print(f"{name}: {fine_share(spectrum):.1f} % in fine frequencies")
    path = args.output / f"ablation_spectra_{args.layer}.png"
    draw_spectra(found, f"{args.layer}, {NUM_CLIPS} clips").savefig(path, dpi=70)
    print(path)


if __name__ == "__main__":
    main()
