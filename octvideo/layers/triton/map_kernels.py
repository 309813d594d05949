"""Triton kernels that rearrange maps: pooled beside low, and the stem's input in blocks."""

import triton
import triton.language as tl

from octvideo.layers.triton.norm_kernels import _place, _share


@triton.jit
def join(
    high, low, out, positions, H, W, H2, W2, CH, CL, row_low, row_out, blocks_high,
    LOW: tl.constexpr, BP: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The 2 x 2 averages of the high group, and behind them the low group, as one map."""
    block = tl.program_id(0)
    kind = out.dtype.element_ty
    if block < blocks_high:
        blocks_c = tl.cdiv(CH, BC)
        p = block // blocks_c * BP + tl.arange(0, BP)
        c = block % blocks_c * BC + tl.arange(0, BC)
        live = (p < positions)[:, None] & (c < CH)[None, :]
        total = tl.zeros((BP, BC), ACC)
        for q in tl.static_range(4):
            row, there = _place(p, q, H, W, H2, W2, True)
            mask = live & there[:, None]
            total += tl.load(high + row[:, None] * CH + c[None, :], mask=mask, other=0.0).to(ACC)
        total *= _share(p, H, W, H2, W2, ACC)[:, None]
        tl.store(out + p[:, None] * row_out + c[None, :], total.to(kind), mask=live)
    elif LOW:
        across = tl.cdiv(CL, BC)
        row_ = (block - blocks_high) // across * BR + tl.arange(0, BR)
        c_ = (block - blocks_high) % across * BC + tl.arange(0, BC)
        inside = (row_ < positions)[:, None] & (c_ < CL)[None, :]
        x = tl.load(low + row_[:, None] * row_low + c_[None, :], mask=inside, other=0.0)
        tl.store(out + row_[:, None] * row_out + CH + c_[None, :], x, mask=inside)


@triton.jit
def stem_blocks(
    x, out, total, T, H, W, H2, W2, top, left, s_n, s_c, s_t, s_h, s_w,
    C: tl.constexpr, KT: tl.constexpr, CHANNELS: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Space to depth for a stem of stride 2: out (N * T, H2, W2, CHANNELS) of x (N, C, T, H, W).

    Channel (kt * C + c) * 4 + 2 * a + b of position (i, j) is the pixel (2 i + a - top, 2 j + b - left)
    of frame t + kt - KT // 2; zero outside of the clip, and from channel 4 * C * KT on.
    """
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    k = tl.arange(0, CHANNELS)
    nt = p // (H2 * W2)
    n, t = nt // T, nt % T
    i, j = p % (H2 * W2) // W2, p % W2
    frame = t[:, None] + (k // (4 * C))[None, :] - KT // 2
    y = 2 * i[:, None] + (k % 4 // 2)[None, :] - top
    z = 2 * j[:, None] + (k % 2)[None, :] - left
    inside = (p < total)[:, None] & (k < 4 * C * KT)[None, :] & (frame >= 0) & (frame < T)
    inside = inside & (y >= 0) & (y < H) & (z >= 0) & (z < W)
    # A large batch has more elements than 32 bits count.
    at = (
        n.to(tl.int64)[:, None] * s_n
        + (k // 4 % C)[None, :] * s_c
        + frame * s_t
        + y * s_h
        + z * s_w
    )
    value = tl.load(x + at, mask=inside, other=0.0)
    tl.store(
        out + p.to(tl.int64)[:, None] * CHANNELS + k[None, :],
        value.to(out.dtype.element_ty),
        mask=(p < total)[:, None],
    )
