"""Demo clips that only time can tell apart: every class is another class played backwards.

A textured layer with holes moves over a still background. Its position, angle and scale at any one
moment are random, with one distribution for all classes, so that a single frame tells nothing; how
they change is the class.
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn.functional import grid_sample, interpolate

from octvideo.data.video.encode import write_video
from octvideo.files import make_output_folder

# Class 2 k + 1 is class 2 k played backwards.
CLASS_NAMES = (
    "move left",
    "move right",
    "move up",
    "move down",
    "turn clockwise",
    "turn counter-clockwise",
    "zoom in",
    "zoom out",
)
NUM_FRAMES, HEIGHT, WIDTH, FPS = 24, 80, 96, 30
NUM_CLIPS = {"train": 400, "val": 80, "test": 160}
_TEXTURE_SIZE = 128


def write_demo_data(
    folder: str | Path,
    *,
    seed: int = 0,
    num_clips: Mapping[str, int] = NUM_CLIPS,
    num_threads: int = 2,
) -> None:
    """Write the clips, the lists train.csv, val.csv and test.csv (`path label`) and
    class_names.txt.

    val and test hold textures of kinds that train lacks. Existing clips are kept.
    """
    folder = Path(folder)
    make_output_folder(str(folder))
    for split, count in num_clips.items():
        clips = [
            (
                folder / split / f"seed{seed}_{i:04d}.mp4",
                i % len(CLASS_NAMES),
                _clip_seed(seed, split, i),
            )
            for i in range(count)
        ]
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(lambda clip: _write_clip(*clip), clips))
        lines = (f"{path.relative_to(folder)} {label}\n" for path, label, _ in clips)
        (folder / f"{split}.csv").write_text("".join(lines))
    (folder / "class_names.txt").write_text("\n".join(CLASS_NAMES) + "\n")


def _clip_seed(seed: int, split: str, index: int) -> int:
    """One for each clip of each split of each seed."""
    return (seed * len(NUM_CLIPS) + list(NUM_CLIPS).index(split)) * 1_000_003 + index


def _write_clip(path: Path, label: int, seed: int) -> None:
    if not path.exists():
        write_video(path, make_clip(label, seed, held_out=path.parent.name != "train"), FPS)


def make_clip(label: int, seed: int, *, held_out: bool = False) -> NDArray[np.uint8]:
    """(T, H, W, 3) uint8. held_out: textures of the kinds kept away from training."""
    generator = torch.Generator().manual_seed(seed)
    kinds = HELD_OUT_TEXTURES if held_out else TRAINING_TEXTURES
    background, layer = (_paint(kinds, generator) for _ in range(2))
    mask = _mask(generator)
    still = _sample(background, _random_view(generator)[None])
    moving = _sample(
        torch.cat([layer, mask]), _random_view(generator) @ _motion(label // 2, generator)
    )
    color, cover = moving[:, :3], moving[:, 3:]
    frames = cover * color + (1 - cover) * still
    frames = frames + 0.02 * torch.randn(frames.shape, generator=generator)
    if label % 2:
        frames = frames.flip(0)
    return (frames.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _motion(pair: int, generator: Generator) -> Tensor:
    """(T, 3, 3): where in the moving layer each frame looks, in pixels from its center; the first
    class of a pair."""
    pace = _uniform(
        0.7, 1.6, generator
    )  # pixels per frame, at 30 pixels from the center for turns and zooms
    time = torch.arange(NUM_FRAMES) - (NUM_FRAMES - 1) / 2
    views = torch.eye(3).repeat(NUM_FRAMES, 1, 1)
    if pair < 2:
        views[:, pair, 2] = pace * time
        return views
    rate = pace * time / 30
    if pair == 2:
        views[:, 0, 0] = views[:, 1, 1] = rate.cos()
        views[:, 0, 1], views[:, 1, 0] = rate.sin(), -rate.sin()
    else:
        views[:, 0, 0] = views[:, 1, 1] = (-rate).exp()
    center = torch.eye(3)
    center[:2, 2] = 20 * torch.rand(2, generator=generator) - 10
    return center @ views @ center.inverse()


def _random_view(generator: Generator) -> Tensor:
    """(3, 3): any angle, any place, and a scale of .7 to 1.4."""
    angle = _uniform(0, 2 * math.pi, generator)
    scale = 2 ** _uniform(-0.5, 0.5, generator)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    x, y = (_uniform(0, 4 * _TEXTURE_SIZE, generator) for _ in range(2))
    return torch.tensor([[cos, sin, x], [-sin, cos, y], [0, 0, 1]])


def _sample(texture: Tensor, views: Tensor) -> Tensor:
    """(C, S, S), (T, 3, 3) -> (T, C, H, W). The texture's mirror images tile the plane."""
    y, x = torch.meshgrid(
        torch.arange(HEIGHT) - HEIGHT / 2, torch.arange(WIDTH) - WIDTH / 2, indexing="ij"
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    places = torch.einsum("tij,hwj->thwi", views, pixels)[..., :2] / (_TEXTURE_SIZE / 2)
    textures = texture.expand(len(views), -1, -1, -1)
    return grid_sample(textures, places, padding_mode="reflection", align_corners=False)


Texture = Callable[[Generator], Tensor]  # (S, S), values about 0..1


def _paint(kinds: tuple[Texture, ...], generator: Generator) -> Tensor:
    """A pattern of one of the kinds between two random colors: (3, S, S)."""
    pattern = kinds[int(torch.randint(len(kinds), (), generator=generator))](generator)
    dark, bright = torch.rand(2, 3, 1, 1, generator=generator) * 0.5
    return dark + (0.5 + bright - dark) * pattern


def _mask(generator: Generator) -> Tensor:
    """(1, S, S): 1 on the moving layer, 0 in its holes."""
    return ((_clouds(generator) - 0.35) * 12).clamp(0, 1)[None]


def _noise(cells: int, generator: Generator) -> Tensor:
    coarse = torch.rand(1, 1, cells, cells, generator=generator)
    return interpolate(coarse, (_TEXTURE_SIZE, _TEXTURE_SIZE), mode="bicubic", align_corners=False)[
        0, 0
    ]


def _clouds(generator: Generator) -> Tensor:
    return 0.65 * _noise(12, generator) + 0.35 * _noise(28, generator)


def _plaid(generator: Generator) -> Tensor:
    y, x = torch.meshgrid(torch.arange(_TEXTURE_SIZE), torch.arange(_TEXTURE_SIZE), indexing="ij")
    bend = 12 * _noise(6, generator)
    waves = [
        torch.sin((axis + bend) * 2 * math.pi / _uniform(16, 30, generator)) for axis in (x, y)
    ]
    return 0.5 + 0.25 * (waves[0] + waves[1])


def _dots(generator: Generator) -> Tensor:
    return ((_nearest(90, generator)[0] - 5.5) / -2).clamp(0, 1)


def _cells(generator: Generator) -> Tensor:
    _, owner = _nearest(90, generator)
    return torch.rand(90, generator=generator)[owner]


def _bricks(generator: Generator) -> Tensor:
    size = int(torch.randint(9, 15, (), generator=generator))
    y, x = torch.meshgrid(torch.arange(_TEXTURE_SIZE), torch.arange(_TEXTURE_SIZE), indexing="ij")
    row = y // size
    column = (x + row % 2 * size) // (2 * size)
    return torch.rand(16, 16, generator=generator)[row, column]


def _nearest(num_points: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """The distance of every pixel to the nearest of some random points, and the index of that
    point: (S, S) each."""
    points = torch.rand(num_points, 2, generator=generator) * _TEXTURE_SIZE
    y, x = torch.meshgrid(torch.arange(_TEXTURE_SIZE), torch.arange(_TEXTURE_SIZE), indexing="ij")
    places = torch.stack([x, y], dim=-1).reshape(-1, 2).float()
    distance, owner = torch.cdist(places, points).min(dim=1)
    return distance.view(_TEXTURE_SIZE, _TEXTURE_SIZE), owner.view(_TEXTURE_SIZE, _TEXTURE_SIZE)


TRAINING_TEXTURES: tuple[Texture, ...] = (_clouds, _plaid, _dots)
HELD_OUT_TEXTURES: tuple[Texture, ...] = (_cells, _bricks)
