"""Batch norm over the clips of all ranks, on any device. torch's SyncBatchNorm refuses the CPU;
pytorchvideo's naive one keeps the biased variance, so its running statistics are not those of a
single process."""

import torch
from torch import Tensor, nn

from octvideo.engine.distributed import total_with_gradient


class _AcrossRanks(nn.modules.batchnorm._BatchNorm):
    """Batch statistics over all ranks; parameters, buffers and evaluation are those of the class it
    is mixed into."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        x = input.float()
        clips = x.new_tensor([x.numel() / x.shape[1]])
        sums = total_with_gradient(torch.cat([x.sum(axes), clips]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centered = x - mean.view(shape)
        var = total_with_gradient((centered * centered).sum(axes)) / count
        if self.track_running_stats:
            self._track(mean.detach(), var.detach() * count / (count - 1))
        out = centered * torch.rsqrt(var + self.eps).view(shape)
        out = out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        factor = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(unbiased_var, factor)


class SyncBatchNorm1d(_AcrossRanks, nn.BatchNorm1d):
    pass


class SyncBatchNorm2d(_AcrossRanks, nn.BatchNorm2d):
    pass


class SyncBatchNorm3d(_AcrossRanks, nn.BatchNorm3d):
    pass
