"""The stem's input in one pass, in Triton's interpreter, against PyTorch's convolution."""

import pytest
import torch
from torch.nn import functional as F

from octvideo.layers import compute_in_2d, stem_by_space_to_depth
from octvideo.layers.conv3d_as_2d import Conv3d


@pytest.mark.parametrize(
    ("kernel_t", "kernel", "padding", "size"),
    [(5, 7, 3, (12, 10)), (1, 7, 3, (9, 11)), (5, 7, 3, (7, 8)), (3, 5, 2, (8, 9)),
     (1, 3, 1, (5, 6)), (1, 7, 2, (9, 10))],
)  # fmt: skip
def test_the_stem_is_its_convolution(kernels, kernel_t, kernel, padding, size):
    x = torch.randn(2, 3, 3, *size, dtype=torch.float64)
    weight = torch.randn(4, 3, kernel_t, kernel, kernel, dtype=torch.float64).requires_grad_()
    bias = torch.randn(4, dtype=torch.float64)
    pads = (kernel_t // 2, padding, padding)
    expected = F.conv3d(x, weight, bias, (1, 2, 2), pads)

    found = kernels.stem.stem_conv(x, weight, bias, pads)

    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)
    grad = torch.randn_like(expected)
    grads = [torch.autograd.grad(y, weight, grad)[0] for y in (found, expected)]
    torch.testing.assert_close(*grads, atol=1e-11, rtol=1e-11)


def test_the_stem_reads_clips_of_any_layout(kernels):
    x, weight = torch.randn(1, 3, 4, 9, 7).double(), torch.randn(4, 3, 3, 5, 5).double()
    expected = F.conv3d(x, weight, None, (1, 2, 2), (1, 2, 2))

    for clip in (
        x.contiguous(memory_format=torch.channels_last_3d),
        x.transpose(3, 4).contiguous().transpose(3, 4),
    ):
        found = kernels.stem.stem_conv(clip, weight, None, (1, 2, 2))
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)


class OnGpu(torch.Tensor):
    """A tensor of the CPU that calls itself one of a GPU."""

    is_cuda = True


@pytest.mark.parametrize(
    ("kernel_t", "stride_t", "padding_t", "covered"),
    [(3, 1, 1, True), (1, 1, 0, True), (3, 2, 1, False), (3, 1, 0, False), (2, 1, 1, False)],
)
def test_a_stem_that_changes_the_frames_computes_as_before(
    kernels, monkeypatch, kernel_t, stride_t, padding_t, covered
):
    seen = []
    stem_conv = kernels.stem.stem_conv
    monkeypatch.setattr(kernels.stem, "stem_conv", lambda *a: (seen.append(a), stem_conv(*a))[1])
    conv = Conv3d(3, 4, (kernel_t, 5, 5), (stride_t, 2, 2), (padding_t, 2, 2)).double()
    x = torch.randn(1, 3, 4, 9, 7).double()
    expected = conv(x)

    found = stem_by_space_to_depth(compute_in_2d(conv, True), True)(x.as_subclass(OnGpu))

    found = found.as_subclass(torch.Tensor)
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)
    assert bool(seen) == covered
