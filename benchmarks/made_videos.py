"""Videos to decode, of a usual size and number of bits."""

from pathlib import Path

import torch
from torch.nn import functional as F

from octvideo.data.video.encode import write_video

HEIGHT, WIDTH, FPS = 256, 340, 30


def write_videos(folder: Path, count: int, seconds: int, gop: int) -> Path:
    """A list of videos whose smooth texture drifts under fresh grain, so that they have a usual
    number of bits."""
    for i in range(count):
        generator = torch.Generator().manual_seed(i)
        texture = F.interpolate(
            torch.rand(1, 3, 40, 60, generator=generator),
            (HEIGHT + 300, WIDTH + 300),
            mode="bicubic",
        )
        frames = (
            (
                255 * texture[0, :, t : t + HEIGHT, t // 2 : t // 2 + WIDTH]
                + 12 * torch.randn(HEIGHT, WIDTH, generator=generator)
            )
            .clamp(0, 255)
            .byte()
            .permute(1, 2, 0)
            .numpy()
            for t in range(min(seconds * FPS, 300))
        )
        write_video(folder / f"{gop}_{i}.mp4", frames, FPS, gop=gop, crf=26)
    path = folder / f"gop_{gop}.csv"
    path.write_text("".join(f"{gop}_{i}.mp4 0\n" for i in range(count)))
    return path
