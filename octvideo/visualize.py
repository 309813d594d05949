"""The drawings of `octvideo visualize`: a function writes pictures and returns their paths."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from octvideo.data.video.encode import write_video
from octvideo.errors import ConfigError
from octvideo.files import writing
from octvideo.recognizer import Recognizer
from octvideo.report.gradcam import GLOW, gradcam, layer_to_look_at, overlay
from octvideo.report.hooks import captured, groups_of
from octvideo.report.octave_maps import draw_paths, path_maps
from octvideo.report.pictures import film_strip, with_color_bar
from octvideo.report.plots import color_map
from octvideo.report.spectrum import Spectrum, draw_spectra, energy_spectrum


def picture_names(videos: Sequence[Path]) -> list[str]:
    """A name per video for the files of its pictures: its own without the suffix, with a number
    where another has it already, also in other letters (there are file systems without cases)."""
    names: list[str] = []
    taken = {video.stem.casefold() for video in videos}
    free = set(taken)
    for video in videos:
        name, number = video.stem, 1
        if name.casefold() in free:
            free.remove(name.casefold())
        else:
            while name.casefold() in taken:
                number += 1
                name = f"{video.stem}_{number}"
            taken.add(name.casefold())
        names.append(name)
    return names


def draw_frequency(
    recognizers: dict[str, Recognizer], videos: Sequence[Path], layer: str, folder: Path
) -> list[Path]:
    """The paper's Fig. 4: energy spectra of the groups of `layer`, by network, mean over videos."""
    spectra: dict[str, Spectrum] = {}
    for name, recognizer in recognizers.items():
        for group, spectrum in _mean_spectra(recognizer, videos, layer).items():
            spectra[f"{name} {group}".strip()] = spectrum
    path = folder / f"frequency_{layer}.png"
    figure = draw_spectra(
        spectra, f"{layer}, {videos[0].name if len(videos) == 1 else f'{len(videos)} videos'}"
    )
    with writing(str(path)):
        figure.savefig(path, dpi=140)
    return [path]


def draw_octave(
    recognizer: Recognizer, video: Path, layer: str, folder: Path, name: str = ""
) -> list[Path]:
    """An octave convolution's high and low output and each path's part, for the middle
    clip of a video.

    name: the video's in the file's, where there are several.
    """
    frames, inputs = recognizer.clip(video)
    path = folder / (f"octave_{layer}_{name}.png" if name else f"octave_{layer}.png")
    maps = path_maps(recognizer.model, inputs, layer)
    with writing(str(path)):
        draw_paths(frames[len(frames) // 2], maps, f"{video.name}: {layer}").savefig(path, dpi=140)
    return [path]


def draw_gradcam(
    recognizer: Recognizer,
    video: Path,
    layer: str,
    folder: Path,
    class_name: str | None = None,
    name: str = "",
) -> list[Path]:
    """The evidence for a class (by default the most probable): a film strip and an mp4 per group.

    layer: "" for the last stage that has enough positions. name: the video's in the names of the
    files, by default its own.
    """
    frames, inputs = recognizer.clip(video)
    names = recognizer.class_names
    if class_name is not None and class_name not in names:
        raise ConfigError(
            f"there is no class {class_name!r} in this checkpoint; it knows"
            f" {', '.join(names[:8])}, ..."
        )
    view = torch.from_numpy(frames).movedim(-1, 0)[None]
    (scores,) = recognizer.outputs(view, scores=True, features=False)
    layer = layer or layer_to_look_at(recognizer.model, inputs)
    index = names.index(class_name) if class_name else int(scores.argmax())
    evidence = gradcam(recognizer.model, inputs, index, layer)
    glowing = {group: overlay(frames, e) for group, e in evidence.items()}
    title = f"{names[index]} ({scores[index]:.0%})"
    rows = [
        ("clip", frames),
        *((f"{title}: {group} group of {layer}", clip) for group, clip in glowing.items()),
    ]
    name = name or video.stem
    paths = [folder / f"gradcam_{name}.png"]
    with writing(str(paths[0])):
        with_color_bar(film_strip(rows), color_map(GLOW), "evidence").save(paths[0])
    for group, clip in glowing.items():
        paths.append(folder / f"gradcam_{name}_{group}.mp4")
        with writing(str(paths[-1])):
            write_video(paths[-1], clip.repeat(4, axis=0), fps=16)
    return paths


def draw_clips(
    batches: Iterator[Any], class_names: Sequence[str], count: int, folder: Path
) -> list[Path]:
    """The training input, augmentation included: a row of frames per clip of a loader's batches."""
    rows: list[tuple[str, NDArray[np.uint8]]] = []
    for batch in batches:
        for clip, target, name in zip(batch.inputs, batch.targets, batch.paths, strict=True):
            label = (
                class_names[int(target)]
                if target.dim() == 0
                else str(target.nonzero().flatten().tolist())
            )
            rows.append((f"{label}: {Path(name).name}", clip.movedim(0, -1).numpy()))
        if len(rows) >= count:
            break
    path = folder / "clips.png"
    with writing(str(path)):
        film_strip(rows[:count]).save(path)
    return [path]


def _mean_spectra(
    recognizer: Recognizer, videos: Sequence[Path], layer: str
) -> dict[str, Spectrum]:
    sums: dict[str, Spectrum] = {}
    for video in videos:
        _, inputs = recognizer.clip(video)
        with torch.no_grad(), captured(recognizer.model, [layer]) as found:
            recognizer.model(inputs)
        for group, x in groups_of(found[layer]).items():
            sums[group] = sums.get(group, 0.0) + energy_spectrum(x) / len(videos)
    return sums
