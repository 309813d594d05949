"""The spatial frequencies of a feature: the paper's Fig. 4 for any layer of any network."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octvideo.report.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Spectrum = NDArray[np.float64]
TICKS = (-0.5, -0.25, 0.0, 0.25, 0.5)


def energy_spectrum(x: Tensor) -> Spectrum:
    """Mean energy per spatial frequency of (N, C, [T,] H, W), over everything but height and width:
    (H, W).

    The zero frequency lies at [H // 2, W // 2]. Coefficients are amplitudes (a sum over pixels
    divided by their number), so that spectra of maps of different sizes can be compared.
    """
    amplitudes = torch.fft.fft2(x.detach().double(), norm="forward").abs().square()
    return torch.fft.fftshift(amplitudes.flatten(0, -3).mean(0)).cpu().numpy()


def pad_spectrum(spectrum: Spectrum, height: int, width: int) -> Spectrum:
    """The spectrum of the same signal on a finer grid: nothing above the Nyquist frequency of its
    own.

    Of an even size that frequency is stored once, as the negative one; on a finer grid half of it
    is the positive one.
    """
    for axis, size in enumerate((height, width)):
        spectrum = _padded(spectrum, size, axis)
    return spectrum


def _padded(spectrum: Spectrum, size: int, axis: int) -> Spectrum:
    rows = np.moveaxis(spectrum, axis, 0)
    length = len(rows)
    if size == length:
        return spectrum
    padded = np.zeros((size, *rows.shape[1:]))
    start = size // 2 - length // 2
    padded[start : start + length] = rows
    if length % 2 == 0 and start + length < size:
        padded[start] = padded[start + length] = rows[0] / 2
    return np.moveaxis(padded, 0, axis)


def radial_profile(spectrum: Spectrum) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radii in cycles per pixel of the map, 0 to .5, and the mean energy in a ring of each; corners
    are left out."""
    height, width = spectrum.shape
    fy = (np.arange(height) - height // 2) / height
    fx = (np.arange(width) - width // 2) / width
    rings = np.rint(np.hypot(fy[:, None], fx[None]) * min(height, width)).astype(int)
    last = min(height, width) // 2
    energy = np.array([spectrum[rings == ring].mean() for ring in range(last + 1)])
    return np.arange(last + 1) / min(height, width), energy


def _edges(size: int) -> tuple[float, float]:
    """The limits of a spectrum's axis: entry k is centered on (k - size // 2) / size."""
    first = -(size // 2) / size
    return first - 0.5 / size, first + (size - 0.5) / size


def draw_spectra(spectra: Mapping[str, Spectrum], title: str) -> "Figure":
    """One picture per group, log energy on one scale, and their radial profiles together.

    Spectra that are smaller than the largest, a low group's, are shown at its scale: the empty rim
    is what they cannot carry.
    """
    shapes = [spectrum.shape for spectrum in spectra.values()]
    height, width = map(max, zip(*shapes, strict=True))
    shown = {name: pad_spectrum(s, height, width) for name, s in spectra.items()}
    floor = min(s[s > 0].min() for s in spectra.values())
    logs = {name: np.log10(np.maximum(s, floor)) for name, s in shown.items()}
    bounds = {
        "vmin": min(x.min() for x in logs.values()),
        "vmax": max(x.max() for x in logs.values()),
    }
    left, right = _edges(width)
    top, bottom = _edges(height)
    figure = new_figure(3.1 * len(spectra) + 4.2, 3.6)
    *maps, profile = figure.subplots(
        1, len(spectra) + 1, width_ratios=[1.0] * len(spectra) + [1.35]
    )
    for axes, (name, log) in zip(maps, logs.items(), strict=True):
        image = axes.imshow(log, extent=(left, right, bottom, top), cmap="magma", **bounds)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("horizontal frequency", fontsize=8)
        axes.set_xticks(TICKS)
        axes.set_yticks(TICKS)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        axes.tick_params(labelsize=7)
    maps[0].set_ylabel("vertical frequency\n(cycles per pixel of the high group)", fontsize=8)
    figure.colorbar(image, ax=maps, shrink=0.8, label="log10 of the mean energy")
    for name, spectrum in shown.items():
        radii, energy = radial_profile(spectrum)
        carried = energy > 0
        profile.plot(
            radii[carried], np.log10(energy[carried]), label=name, marker=".", markersize=4
        )
    profile.axvline(0.25, color="gray", linewidth=0.8, linestyle=":")
    profile.set_xlabel("cycles per pixel (dotted: end of the low group)", fontsize=8)
    profile.set_ylabel("log10 of the mean energy", fontsize=8)
    profile.tick_params(labelsize=7)
    profile.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure
