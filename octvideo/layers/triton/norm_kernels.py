"""Triton kernels of batch norm, residual and ReLU: passes over both groups of a pair at once."""

import triton
import triton.language as tl


@triton.jit
def finish_stats(
    partials, rows, shift_high, shift_low, weight_high, weight_low, bias_high, bias_low,
    running_high, running_low, variance_high, variance_low, out, count_high, count_low, OH, OL,
    momentum, eps, BR: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """From partial sums (rows, 2, OH + OL) to out (4, OH + OL): mean, 1 / std, scale, shift.

    The running mean and variance are updated. scale and shift make z * scale + shift the batch norm.
    """
    C = OH + OL
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    mask = c < C
    is_high = c < OH
    first = tl.zeros((BR, BC), ACC)
    second = tl.zeros((BR, BC), ACC)
    for start in range(0, rows, BR):
        row = start + tl.arange(0, BR)
        at = row[:, None] * 2 * C + c[None, :]
        inside = (row < rows)[:, None] & mask[None, :]
        first += tl.load(partials + at, mask=inside, other=0.0)
        second += tl.load(partials + at + C, mask=inside, other=0.0)
    count = tl.where(is_high, count_high, count_low).to(ACC)
    mean = tl.sum(first, 0) / count
    variance = tl.maximum(tl.sum(second, 0) / count - mean * mean, 0.0)
    shift = _either(shift_high, shift_low, c, OH, mask, is_high).to(ACC)
    weight = _either(weight_high, weight_low, c, OH, mask, is_high).to(ACC)
    bias = _either(bias_high, bias_low, c, OH, mask, is_high).to(ACC)
    mean += shift
    scale = 1.0 / tl.sqrt(variance + eps)
    tl.store(out + c, mean, mask=mask)
    tl.store(out + C + c, scale, mask=mask)
    tl.store(out + 2 * C + c, scale * weight, mask=mask)
    tl.store(out + 3 * C + c, bias - mean * scale * weight, mask=mask)

    unbiased = variance * (count / tl.maximum(count - 1, 1.0))
    new_mean = shift + momentum * (mean - shift)
    old = _either(variance_high, variance_low, c, OH, mask, is_high).to(ACC)
    new_variance = old + momentum * (unbiased - old)
    tl.store(running_high + c, new_mean, mask=mask & is_high)
    tl.store(variance_high + c, new_variance, mask=mask & is_high)
    low = tl.where(is_high, 0, c - OH)
    tl.store(running_low + low, new_mean, mask=mask & (c >= OH))
    tl.store(variance_low + low, new_variance, mask=mask & (c >= OH))


@triton.jit
def _either(high, low, c, OH, mask, is_high):
    """high[c], or low[c - OH] of a channel of the low group."""
    a = tl.load(high + c, mask=mask & is_high, other=0.0)
    b = tl.load(low + tl.where(is_high, 0, c - OH), mask=mask & (c >= OH), other=0.0)
    return tl.where(is_high, a, b)


@triton.jit
def _place(p, q, H, W, H2, W2, QUADS: tl.constexpr):
    """Row number of quadrant q of low position p in a high map, and whether it is there."""
    if QUADS:
        nt = p // (H2 * W2)
        y = p % (H2 * W2) // W2 * 2 + q // 2
        z = p % W2 * 2 + q % 2
        row, there = (nt * H + y) * W + z, (y < H) & (z < W)
    else:
        row, there = p, p >= 0
    return row, there


@triton.jit
def _share(p, H, W, H2, W2, ACC: tl.constexpr):
    """One over the number of high positions below each low position."""
    i = p % (H2 * W2) // W2
    j = p % W2
    return 1.0 / (tl.minimum(H - 2 * i, 2) * tl.minimum(W - 2 * j, 2)).to(ACC)


@triton.jit
def _norm_act(
    z, row_z, stats, residual, row_res, y, row_y, y_pool, row_pool, block, positions, H, W, H2, W2, C, columns, first,
    QUADS: tl.constexpr, POOL: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    blocks_c = tl.cdiv(C, BC)
    p = block // blocks_c * BP + tl.arange(0, BP)
    c = block % blocks_c * BC + tl.arange(0, BC)
    live = (p < positions)[:, None] & (c < C)[None, :]
    scale = tl.load(stats + 2 * columns + first + c, mask=c < C, other=0.0)[None, :]
    shift = tl.load(stats + 3 * columns + first + c, mask=c < C, other=0.0)[None, :]
    kind = y.dtype.element_ty
    total = tl.zeros((BP, BC), ACC)
    for q in tl.static_range(4 if QUADS else 1):
        row, there = _place(p, q, H, W, H2, W2, QUADS)
        mask = live & there[:, None]
        value = tl.load(z + row[:, None] * row_z + c[None, :], mask=mask, other=0.0).to(ACC)
        value = value * scale + shift
        if RESIDUAL:
            at = row[:, None] * row_res + c[None, :]
            value += tl.load(residual + at, mask=mask, other=0.0).to(ACC)
        if RELU:
            value = tl.maximum(value, 0.0)
        tl.store(y + row[:, None] * row_y + c[None, :], value.to(kind), mask=mask)
        if POOL:
            total += tl.where(mask, value, 0.0)
    if POOL:
        total *= _share(p, H, W, H2, W2, ACC)[:, None]
        tl.store(y_pool + p[:, None] * row_pool + c[None, :], total.to(kind), mask=live)


@triton.jit
def norm_act(
    z_high, z_low, stats, res_high, res_low, y_high, y_low, y_pool,
    positions, rows, H, W, H2, W2, OH, OL, row_z, row_res, row_out, blocks_high,
    LOW: tl.constexpr, POOL: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    BP: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """y = relu(z * scale + shift + residual) of both groups, and the 2 x 2 averages of the high one.

    stats (4, OH + OL): scale and shift stand in its rows 2 and 3. BP positions of the low map or BR
    rows of a map are a block.
    """
    block = tl.program_id(0)
    columns = OH + OL
    if block < blocks_high:
        if POOL:
            _norm_act(
                z_high, OH, stats, res_high, OH, y_high, OH, y_pool, row_out, block,
                positions, H, W, H2, W2, OH, columns, 0,
                True, True, RESIDUAL, RELU, BP, BC, ACC,
            )  # fmt: skip
        else:
            _norm_act(
                z_high, OH, stats, res_high, OH, y_high, OH, y_pool, row_out, block,
                rows, H, W, H2, W2, OH, columns, 0,
                False, False, RESIDUAL, RELU, BR, BC, ACC,
            )  # fmt: skip
    elif LOW:
        _norm_act(
            z_low, row_z, stats, res_low, row_res, y_low, row_out, y_pool, row_out, block - blocks_high,
            positions, H, W, H2, W2, OL, columns, OH,
            False, False, RESIDUAL, RELU, BR, BC, ACC,
        )  # fmt: skip


@triton.jit
def _norm_grad_sums(
    grad, row_g, y, row_y, z, row_z, stats, partials, block, rows, C, columns, first,
    RELU: tl.constexpr, RESIDUAL: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, LOOP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    blocks_c = tl.cdiv(C, BC)
    c = block % blocks_c * BC + tl.arange(0, BC)
    c_mask = c < C
    mean = tl.load(stats + first + c, mask=c_mask, other=0.0)[None, :]
    inv = tl.load(stats + columns + first + c, mask=c_mask, other=0.0)[None, :]
    scale = tl.load(stats + 2 * columns + first + c, mask=c_mask, other=0.0)[None, :]
    shift = tl.load(stats + 3 * columns + first + c, mask=c_mask, other=0.0)[None, :]
    plain = tl.zeros((BR, BC), ACC)
    scaled = tl.zeros((BR, BC), ACC)
    for step in range(0, LOOP):
        row = (block // blocks_c * LOOP + step) * BR + tl.arange(0, BR)
        mask = (row < rows)[:, None] & c_mask[None, :]
        g = tl.load(grad + row[:, None] * row_g + c[None, :], mask=mask, other=0.0).to(ACC)
        value = tl.load(z + row[:, None] * row_z + c[None, :], mask=mask, other=0.0).to(ACC)
        if RELU:
            # What was added to z is not in it; without a residual its sign can be computed again.
            if RESIDUAL:
                passed = tl.load(y + row[:, None] * row_y + c[None, :], mask=mask, other=0.0) > 0
            else:
                passed = value * scale + shift > 0
            g = tl.where(passed, g, 0.0)
        x_hat = (value - mean) * inv
        plain += g
        scaled += g * x_hat
    at = partials + block // blocks_c * 2 * C + c
    tl.store(at, tl.sum(plain, 0), mask=c_mask)
    tl.store(at + C, tl.sum(scaled, 0), mask=c_mask)


@triton.jit
def norm_grad_sums(
    g_high, g_low, y_high, y_low, z_high, z_low, stats, partials_high, partials_low,
    rows_high, rows_low, OH, OL, row_g, row_y, row_z, blocks_high,
    LOW: tl.constexpr, RELU: tl.constexpr, RESIDUAL: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, LOOP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Partial sums (blocks, 2, C) per group of the gradient behind the ReLU, plain and times x-hat."""
    block = tl.program_id(0)
    columns = OH + OL
    if block < blocks_high:
        _norm_grad_sums(
            g_high, OH, y_high, OH, z_high, OH, stats, partials_high, block, rows_high, OH, columns, 0,
            RELU, RESIDUAL, BR, BC, LOOP, ACC,
        )  # fmt: skip
    elif LOW:
        _norm_grad_sums(
            g_low, row_g, y_low, row_y, z_low, row_z, stats, partials_low, block - blocks_high,
            rows_low, OL, columns, OH, RELU, RESIDUAL, BR, BC, LOOP, ACC,
        )  # fmt: skip


@triton.jit
def sum_partials(
    partials_high, partials_low, rows_high, rows_low, out, OH, OL,
    LOW: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Sums (2, OH + OL) over the blocks of each group."""
    columns = OH + OL
    blocks_high = tl.cdiv(2 * OH, BC)
    block = tl.program_id(0)
    if block < blocks_high:
        c = block * BC + tl.arange(0, BC)
        total = _column_sums(partials_high, rows_high, c, 2 * OH, BR, BC, ACC)
        tl.store(out + c // OH * columns + c % OH, total, mask=c < 2 * OH)
    elif LOW:
        c = (block - blocks_high) * BC + tl.arange(0, BC)
        total = _column_sums(partials_low, rows_low, c, 2 * OL, BR, BC, ACC)
        tl.store(out + c // OL * columns + OH + c % OL, total, mask=c < 2 * OL)


@triton.jit
def _column_sums(x, rows, c, C, BR: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr):
    total = tl.zeros((BR, BC), ACC)
    for start in range(0, rows, BR):
        row = start + tl.arange(0, BR)
        mask = (row < rows)[:, None] & (c < C)[None, :]
        total += tl.load(x + row[:, None] * C + c[None, :], mask=mask, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def _norm_grad(
    grad, row_g, y, row_y, z, row_z, stats, sums, dz, row_dz, dz_pool, row_pool, d_res,
    block, positions, H, W, H2, W2, C, columns, first, inverse_count,
    QUADS: tl.constexpr, RELU: tl.constexpr, RESIDUAL: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    blocks_c = tl.cdiv(C, BC)
    p = block // blocks_c * BP + tl.arange(0, BP)
    c = block % blocks_c * BC + tl.arange(0, BC)
    c_mask = c < C
    live = (p < positions)[:, None] & c_mask[None, :]
    mean = tl.load(stats + first + c, mask=c_mask, other=0.0)[None, :]
    inv = tl.load(stats + columns + first + c, mask=c_mask, other=0.0)[None, :]
    scale = tl.load(stats + 2 * columns + first + c, mask=c_mask, other=0.0)[None, :]
    shift = tl.load(stats + 3 * columns + first + c, mask=c_mask, other=0.0)[None, :]
    plain = tl.load(sums + first + c, mask=c_mask, other=0.0)[None, :] * inverse_count
    scaled = tl.load(sums + columns + first + c, mask=c_mask, other=0.0)[None, :] * inverse_count
    kind = dz.dtype.element_ty
    total = tl.zeros((BP, BC), ACC)
    for q in tl.static_range(4 if QUADS else 1):
        row, there = _place(p, q, H, W, H2, W2, QUADS)
        mask = live & there[:, None]
        g = tl.load(grad + row[:, None] * row_g + c[None, :], mask=mask, other=0.0).to(ACC)
        value = tl.load(z + row[:, None] * row_z + c[None, :], mask=mask, other=0.0).to(ACC)
        if RELU:
            # What was added to z is not in it; without a residual its sign can be computed again.
            if RESIDUAL:
                passed = tl.load(y + row[:, None] * row_y + c[None, :], mask=mask, other=0.0) > 0
            else:
                passed = value * scale + shift > 0
            g = tl.where(passed, g, 0.0)
        if RESIDUAL:
            tl.store(d_res + row[:, None] * C + c[None, :], g.to(kind), mask=mask)
        x_hat = (value - mean) * inv
        d = scale * (g - plain - x_hat * scaled)
        tl.store(dz + row[:, None] * row_dz + c[None, :], d.to(kind), mask=mask)
        if QUADS:
            total += tl.where(mask, d, 0.0)
    if QUADS:
        tl.store(dz_pool + p[:, None] * row_pool + c[None, :], total.to(kind), mask=live)


@triton.jit
def norm_grad(
    g_high, g_low, y_high, y_low, z_high, z_low, stats, sums, dz_high, dz_low, dz_pool,
    d_res_high, d_res_low, positions, rows, H, W, H2, W2, OH, OL,
    row_g, row_y, row_z, row_out, blocks_high, inverse_high, inverse_low,
    LOW: tl.constexpr, POOL: tl.constexpr, RELU: tl.constexpr, RESIDUAL: tl.constexpr,
    BP: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients in front of the batch norms, the 2 x 2 sums of the high one, those of the residual.

    sums (2, OH + OL): of the gradient behind the ReLU, plain and times x-hat.
    """
    block = tl.program_id(0)
    columns = OH + OL
    if block < blocks_high:
        if POOL:
            _norm_grad(
                g_high, OH, y_high, OH, z_high, OH, stats, sums, dz_high, OH, dz_pool, row_out, d_res_high,
                block, positions, H, W, H2, W2, OH, columns, 0, inverse_high,
                True, RELU, RESIDUAL, BP, BC, ACC,
            )  # fmt: skip
        else:
            _norm_grad(
                g_high, OH, y_high, OH, z_high, OH, stats, sums, dz_high, OH, dz_pool, row_out, d_res_high,
                block, rows, H, W, H2, W2, OH, columns, 0, inverse_high,
                False, RELU, RESIDUAL, BR, BC, ACC,
            )  # fmt: skip
    elif LOW:
        _norm_grad(
            g_low, row_g, y_low, row_y, z_low, row_z, stats, sums, dz_low, row_out, dz_pool, row_out, d_res_low,
            block - blocks_high, positions, H, W, H2, W2, OL, columns, OH, inverse_low,
            False, RELU, RESIDUAL, BR, BC, ACC,
        )  # fmt: skip
