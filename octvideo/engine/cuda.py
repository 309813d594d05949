"""The choice of cuDNN's and cuBLAS's kernels."""

import torch


def choose_kernels(*, benchmark: bool, tf32: bool) -> None:
    """Set cuDNN's benchmark mode and TF32 for this process; without a GPU this changes nothing.

    benchmark: cuDNN times its kernels for every new shape and keeps the fastest, which pays where
    clips have one size. The choice, and with it the last bits of results, may differ from run to
    run.
    tf32: float32 products in TensorFloat-32: 10 bits of mantissa, several times as fast since
    Ampere. bf16 and fp16 are not affected.
    """
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
