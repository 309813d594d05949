"""The machine's abilities, and the settings that follow from them."""

from dataclasses import dataclass

import torch

from octvideo.config.defaults import Tree
from octvideo.engine.threads import available_cores
from octvideo.report.known_problems import cpu_flags

# Crops and short sides of training; tests crop CROP[size] from a short side of TEST_CROP.
SIZES: dict[str, Tree] = {
    "small": {"TRAIN_CROP_SIZE": 96, "TRAIN_JITTER_SCALES": [96, 120], "TEST_CROP_SIZE": 96},
    "medium": {"TRAIN_CROP_SIZE": 160, "TRAIN_JITTER_SCALES": [160, 200], "TEST_CROP_SIZE": 160},
    "large": {"TRAIN_CROP_SIZE": 224, "TRAIN_JITTER_SCALES": [256, 320], "TEST_CROP_SIZE": 256},
}
# Of CPUs on which bfloat16 was measured to be faster: a training step of I3D-50 took .43 of the
# time of float32.
FAST_BF16 = frozenset({"amx_bf16"})


@dataclass(frozen=True, slots=True)
class Machine:
    """name: of the GPU, "" without one. memory_gb: the GPU's. amp: the half precision that is fast
    here, or ""."""

    name: str
    cores: int
    memory_gb: float
    amp: str

    @classmethod
    def here(cls) -> "Machine":
        """The machine that this process runs on."""
        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            amp = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
            return cls(properties.name, available_cores(), properties.total_memory / 2**30, amp)
        is_fast = bool(FAST_BF16 & (cpu_flags() or frozenset()))
        return cls("", available_cores(), 0.0, "bfloat16" if is_fast else "")

    def __str__(self) -> str:
        """ "these 2 cores", "this NVIDIA H100"."""
        if self.name:
            return f"this {self.name}"
        return f"these {self.cores} cores" if self.cores > 1 else "this core"

    @property
    def size(self) -> str:
        """The largest size that trains in reasonable time here."""
        return "large" if self.name else "medium"

    def settings(self, num_train: int) -> Tree:
        """Precision, batch and loader for a training list of `num_train` videos."""
        return {
            "TRAIN": {
                "MIXED_PRECISION": bool(self.amp),
                "AMP_DTYPE": self.amp or "bfloat16",
                "BATCH_SIZE": self._batch_size(num_train),
            },
            "DATA_LOADER": {"NUM_WORKERS": self._num_workers()},
        }

    def _batch_size(self, num_train: int) -> int:
        """The batch that fits into memory; smaller if an epoch would have fewer than four steps."""
        fits = (
            8 if not self.name else 16 if self.memory_gb >= 20 else 8 if self.memory_gb >= 10 else 4
        )
        return max(min(fits, num_train // 4), min(num_train, 2))

    def _num_workers(self) -> int:
        """One per core beside a GPU, at most 12; few on a CPU, where most cores compute."""
        if self.name:
            return max(min(self.cores - 1, 12), 1)
        return 0 if self.cores == 1 else max(self.cores // 8, 1)
