"""Triton kernels of the octave convolution: each group is read once and written once.

A map is memory of shape (N * T, H, W, C). A program owns a block of low positions (i, j), and with
each of them the 2 x 2 high positions (2i + a, 2j + b), so that pooling and upsampling happen in
registers. Maps of odd height or width are masked.
"""

import triton
import triton.language as tl


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr):
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def _quad(x, nt, y, z, H, W, row, channel, c_mask, valid):
    """The tile x[nt, y, z, channel], zero outside of the map; `row` from one position to the next."""
    inside = valid & (y >= 0) & (y < H) & (z >= 0) & (z < W)
    at = ((nt * H + y) * W + z) * row
    return tl.load(
        x + at[:, None] + channel[None, :], mask=inside[:, None] & c_mask[None, :], other=0.0
    )


@triton.jit
def oct_conv(
    x_high, x_low, x_pool,
    w_hh, w_lh, w_hl, w_ll,
    bias_high, bias_low, res_high, res_low,
    y_high, y_low, y_pool, stats, shift_high, shift_low,
    positions, T, H, W, H2, W2, CH, CL, OH, OL, row_low, row_pool, row_res, row_out,
    tap_hh, in_hh, out_hh, tap_lh, in_lh, out_lh, tap_hl, in_hl, out_hl, tap_ll, in_ll, out_ll,
    KT: tl.constexpr, KS: tl.constexpr,
    BP: tl.constexpr, BH: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr,
    LOW_IN: tl.constexpr, LOW_OUT: tl.constexpr, POOL_IN: tl.constexpr, POOL_OUT: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr, STATS: tl.constexpr,
    ADJOINT: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Y_H = X_H * W_hh + up(X_L * W_lh), Y_L = pool(X_H) * W_hl + X_L * W_ll, and what follows them.

    row_*: elements from one position of a low map to the next: pooled and low maps may lie in one.
    ADJOINT: the transpose of that map: pool adds up, and up divides by what the pool would average.
    """
    blocks = tl.maximum(tl.cdiv(OH, BH), tl.cdiv(OL, BL))
    block_n = tl.program_id(0) % blocks
    block_m = tl.program_id(0) // blocks
    p = block_m * BP + tl.arange(0, BP)
    live = p < positions
    nt = p // (H2 * W2)
    i = p % (H2 * W2) // W2
    j = p % W2
    t = nt % T
    shared_by = tl.minimum(H - 2 * i, 2) * tl.minimum(W - 2 * j, 2)
    part = 1.0 / shared_by.to(ACC)

    high = block_n * BH + tl.arange(0, BH)
    high_mask = high < OH
    low = block_n * BL + tl.arange(0, BL)
    low_mask = low < OL
    k = tl.arange(0, BK)

    acc0 = tl.zeros((BP, BH), ACC)
    acc1 = tl.zeros((BP, BH), ACC)
    acc2 = tl.zeros((BP, BH), ACC)
    acc3 = tl.zeros((BP, BH), ACC)
    acc_low = tl.zeros((BP, BL), ACC)

    if LOW_IN:
        up = tl.zeros((BP, BH), ACC)
        steps_low = tl.cdiv(CL, BK)
        for step in range(0, KT * KS * KS * steps_low):
            tap = step // steps_low
            c = (step % steps_low) * BK + k
            c_mask = c < CL
            dt = tap // (KS * KS) - KT // 2
            y = i + tap % (KS * KS) // KS - KS // 2
            z = j + tap % KS - KS // 2
            valid = live & (t + dt >= 0) & (t + dt < T)
            x = _quad(x_low, nt + dt, y, z, H2, W2, row_low, c, c_mask, valid)
            w = tl.load(
                w_lh + tap * tap_lh + c[:, None] * in_lh + high[None, :] * out_lh,
                mask=c_mask[:, None] & high_mask[None, :], other=0.0,
            )  # fmt: skip
            up = _dot(x, w, up, PRECISION)
            if LOW_OUT:
                w = tl.load(
                    w_ll + tap * tap_ll + c[:, None] * in_ll + low[None, :] * out_ll,
                    mask=c_mask[:, None] & low_mask[None, :], other=0.0,
                )  # fmt: skip
                acc_low = _dot(x, w, acc_low, PRECISION)
        if ADJOINT:
            up *= part[:, None]
        acc0 += up
        acc1 += up
        acc2 += up
        acc3 += up

    steps_high = tl.cdiv(CH, BK)
    for step in range(0, KT * KS * KS * steps_high):
        tap = step // steps_high
        c = (step % steps_high) * BK + k
        c_mask = c < CH
        dt = tap // (KS * KS) - KT // 2
        dy = tap % (KS * KS) // KS - KS // 2
        dz = tap % KS - KS // 2
        valid = live & (t + dt >= 0) & (t + dt < T)
        w = tl.load(
            w_hh + tap * tap_hh + c[:, None] * in_hh + high[None, :] * out_hh,
            mask=c_mask[:, None] & high_mask[None, :], other=0.0,
        )  # fmt: skip
        x0 = _quad(x_high, nt + dt, 2 * i + dy, 2 * j + dz, H, W, CH, c, c_mask, valid)
        x1 = _quad(x_high, nt + dt, 2 * i + dy, 2 * j + 1 + dz, H, W, CH, c, c_mask, valid)
        x2 = _quad(x_high, nt + dt, 2 * i + 1 + dy, 2 * j + dz, H, W, CH, c, c_mask, valid)
        x3 = _quad(x_high, nt + dt, 2 * i + 1 + dy, 2 * j + 1 + dz, H, W, CH, c, c_mask, valid)
        acc0 = _dot(x0, w, acc0, PRECISION)
        acc1 = _dot(x1, w, acc1, PRECISION)
        acc2 = _dot(x2, w, acc2, PRECISION)
        acc3 = _dot(x3, w, acc3, PRECISION)
        if LOW_OUT:
            w = tl.load(
                w_hl + tap * tap_hl + c[:, None] * in_hl + low[None, :] * out_hl,
                mask=c_mask[:, None] & low_mask[None, :], other=0.0,
            )  # fmt: skip
            if POOL_IN:
                pooled = _quad(x_pool, nt + dt, i + dy, j + dz, H2, W2, row_pool, c, c_mask, valid)
            else:
                # Only a kernel that is 1 wide in space comes here: a tap's four tiles are one window.
                total = x0.to(ACC) + x1.to(ACC) + x2.to(ACC) + x3.to(ACC)
                if not ADJOINT:
                    total *= part[:, None]
                pooled = total.to(x0.dtype)
            acc_low = _dot(pooled, w, acc_low, PRECISION)

    if BIAS:
        bias = tl.load(bias_high + high, mask=high_mask, other=0.0).to(ACC)
        acc0 += bias[None, :]
        acc1 += bias[None, :]
        acc2 += bias[None, :]
        acc3 += bias[None, :]
    right = 2 * j + 1 < W
    below = 2 * i + 1 < H
    at0 = ((nt * H + 2 * i) * W + 2 * j)[:, None] * OH + high[None, :]
    mask0 = live[:, None] & high_mask[None, :]
    mask1 = mask0 & right[:, None]
    mask2 = mask0 & below[:, None]
    mask3 = mask1 & below[:, None]
    at1 = at0 + OH
    at2 = at0 + W * OH
    at3 = at2 + OH
    if RESIDUAL:
        acc0 += tl.load(res_high + at0, mask=mask0, other=0.0).to(ACC)
        acc1 += tl.load(res_high + at1, mask=mask1, other=0.0).to(ACC)
        acc2 += tl.load(res_high + at2, mask=mask2, other=0.0).to(ACC)
        acc3 += tl.load(res_high + at3, mask=mask3, other=0.0).to(ACC)
    if RELU:
        acc0 = tl.maximum(acc0, 0.0)
        acc1 = tl.maximum(acc1, 0.0)
        acc2 = tl.maximum(acc2, 0.0)
        acc3 = tl.maximum(acc3, 0.0)
    kind = y_high.dtype.element_ty
    tl.store(y_high + at0, acc0.to(kind), mask=mask0)
    tl.store(y_high + at1, acc1.to(kind), mask=mask1)
    tl.store(y_high + at2, acc2.to(kind), mask=mask2)
    tl.store(y_high + at3, acc3.to(kind), mask=mask3)
    if POOL_OUT:
        total = tl.where(mask0, acc0, 0.0) + tl.where(mask1, acc1, 0.0)
        total += tl.where(mask2, acc2, 0.0) + tl.where(mask3, acc3, 0.0)
        tl.store(
            y_pool + p[:, None] * row_out + high[None, :],
            (total * part[:, None]).to(kind),
            mask=mask0,
        )
    if STATS:
        # Around the running mean: the variance of values far from zero would cancel otherwise.
        shift = tl.load(shift_high + high, mask=high_mask, other=0.0).to(ACC)[None, :]
        d0 = tl.where(mask0, acc0 - shift, 0.0)
        d1 = tl.where(mask1, acc1 - shift, 0.0)
        d2 = tl.where(mask2, acc2 - shift, 0.0)
        d3 = tl.where(mask3, acc3 - shift, 0.0)
        at = stats + block_m * 2 * (OH + OL) + high
        tl.store(at, tl.sum(d0 + d1 + d2 + d3, 0), mask=high_mask)
        tl.store(at + OH + OL, tl.sum(d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3, 0), mask=high_mask)

    if LOW_OUT:
        at = p[:, None] * row_out + low[None, :]
        mask = live[:, None] & low_mask[None, :]
        if BIAS:
            acc_low += tl.load(bias_low + low, mask=low_mask, other=0.0).to(ACC)[None, :]
        if RESIDUAL:
            at_res = p[:, None] * row_res + low[None, :]
            acc_low += tl.load(res_low + at_res, mask=mask, other=0.0).to(ACC)
        if RELU:
            acc_low = tl.maximum(acc_low, 0.0)
        tl.store(y_low + at, acc_low.to(kind), mask=mask)
        if STATS:
            shift = tl.load(shift_low + low, mask=low_mask, other=0.0).to(ACC)[None, :]
            d0 = tl.where(mask, acc_low - shift, 0.0)
            column = stats + block_m * 2 * (OH + OL) + OH + low
            tl.store(column, tl.sum(d0, 0), mask=low_mask)
            tl.store(column + OH + OL, tl.sum(d0 * d0, 0), mask=low_mask)
