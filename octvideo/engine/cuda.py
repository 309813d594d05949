"""How cuDNN and cuBLAS choose their kernels."""

import torch


def choose_kernels(*, benchmark: bool, tf32: bool) -> None:
    """Set for this process what every CUDA convolution and matrix product follows; without a GPU it
    changes nothing.

    benchmark: cuDNN times its kernels for every new shape and keeps the fastest, which pays where
    clips have one size.
        The choice may differ from run to run, and with it the last bits.
    tf32: float32 products in TensorFloat-32: 10 bits of mantissa, several times as fast from Ampere
    on. bf16 and fp16
        are not concerned.
    """
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
