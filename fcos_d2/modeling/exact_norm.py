"""GroupNorm and batch norm that are as exact in channels_last on the CPU as in contiguous maps.

PyTorch's kernels for that layout add all cells of a channel up in one float32 number, and GroupNorm's takes the
variance for a difference of two means: its error grows with the size of the map and with the mean. Here channels are
summed chunk by chunk, each around its own mean, and the chunks are joined in float64 (Chan, Golub and LeVeque,
"Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979). A chunk is read from memory once and
stays in the cache for what follows. Small maps are computed as contiguous ones. All else (other devices and layouts,
compiling) is left to PyTorch, and a traced batch norm.

The modules have the names, tensors and options of PyTorch's. Maps (n, P, C) are rows of C channels: for GroupNorm n
images of P cells; batch norm takes all cells of the batch as one image, and each channel as a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import NaiveSyncBatchNorm as _NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = [
    "EXACT",
    "BatchNorm2d",
    "BatchNormForward",
    "GroupNorm",
    "NaiveSyncBatchNorm",
    "SyncBatchNorm",
    "batch_norm",
    "group_norm",
    "lies_channels_last",
]

_SMALL = 1 << 17  # elements of a map that is sooner copied than looked at in chunks
_CHUNK = 1 << 17  # elements that stay in the cache of one core


def lies_channels_last(x: Tensor) -> bool:
    """Whether PyTorch would take its inexact kernels: for channels_last on the CPU, outside of compiled code."""
    return not torch.compiler.is_compiling() and not torch.jit.is_tracing() and _is_channels_last(x)


def _is_channels_last(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dim() == 4 and x.stride(1) < max(x.stride(2), x.stride(3))


def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`F.group_norm`; (N, C, H, W) that lies in channels_last stays so."""
    copied = torch.jit.is_tracing() and _is_channels_last(x)  # one operator, and exact
    if not copied and not lies_channels_last(x):
        return F.group_norm(x, groups, weight, bias, eps)
    if copied or x.numel() <= _SMALL:
        return _channels_last(F.group_norm(_contiguous(x), groups, weight, bias, eps), x)
    mean, var = _moments(_rows(x.detach(), True), groups)
    return _Normalized.apply(x, weight, bias, mean, var, eps, True, False)


def batch_norm(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> Tensor:  # fmt: skip
    """`F.batch_norm`, running statistics included; (N, C, H, W) that lies in channels_last stays so."""
    options = (running_mean, running_var, weight, bias, training, momentum, eps)
    learns = torch.is_grad_enabled() and weight is not None and weight.requires_grad and not torch.jit.is_tracing()
    if not lies_channels_last(x) or not (training or learns):
        return F.batch_norm(x, *options)
    if x.numel() <= _SMALL:
        return _channels_last(F.batch_norm(_contiguous(x), *options), x)
    if not training:
        assert running_mean is not None and running_var is not None  # else a norm takes the batch's own
        return _Normalized.apply(x, weight, bias, running_mean[None], running_var[None], eps, False, True)
    mean, var = _moments(_rows(x.detach(), False), x.shape[1])
    if running_mean is not None and running_var is not None:
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            for running, value in ((running_mean, mean[0]), (running_var, var[0] * count / (count - 1))):
                running.copy_(running + momentum * (value - running))
    return _Normalized.apply(x, weight, bias, mean, var, eps, False, False)


def _contiguous(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H*W): of three dimensions, a map of one cell is no longer in channels_last, too."""
    return x.flatten(2).contiguous()


def _channels_last(y: Tensor, like: Tensor) -> Tensor:
    return y.view(like.shape).contiguous(memory_format=torch.channels_last)


def _rows(x: Tensor, by_image: bool) -> Tensor:
    """(N, C, H, W) -> (N, H*W, C), or (1, N*H*W, C); a view of what is dense."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape((n, h * w, c) if by_image else (1, n * h * w, c))


def _chunks(*rows: Tensor) -> Iterator[tuple[Any, ...]]:
    """Index of the image, and the same cells (P', C) of each of the maps (n, P, C)."""
    for i, images in enumerate(zip(*rows)):
        for parts in zip(*(image.split(_step(rows[0])) for image in images)):
            yield i, *parts


def _step(rows: Tensor) -> int:
    """Cells of a chunk."""
    return max(1, _CHUNK * torch.get_num_threads() // rows.shape[-1])


def _scratch(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Room for what is computed of a chunk: asking for it each time costs more than the numbers in it."""
    return rows.new_empty((min(_step(rows), rows.shape[1]), rows.shape[-1]), dtype=dtype)


@torch.no_grad()
def _moments(rows: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each image's groups, (n, G) float64."""
    n, _, channels = rows.shape
    found: list[list[Tensor]] = [[], [], []]  # means, sums and squares of what is left
    work = torch.promote_types(rows.dtype, torch.float32)
    room = _scratch(rows, work)
    for _, chunk in _chunks(rows):
        center = chunk.sum(0, dtype=work).div_(len(chunk))  # but for rounding, which the sum of what is left tells
        left = torch.sub(chunk, center, out=room[: len(chunk)])
        for values, value in zip(found, (center, left.sum(0), left.square_().sum(0))):
            values.append(value)
    counts = torch.tensor([len(part) for part in rows[0].split(_step(rows))] if n else [], dtype=torch.float64)
    center, sums, squares = (torch.stack(values).double().view(n, len(counts), channels) for values in found)
    rest = sums / counts.view(-1, 1)
    means, squares = (t.view(n, len(counts), groups, -1) for t in (center + rest, squares))
    counts, total = counts.view(-1, 1, 1), rows.shape[1] * channels // groups
    mean = (means * counts).sum((1, 3), keepdim=True) / total
    var = (squares + counts * (means - mean).square_()).sum((1, 3)) / total
    return mean.view(n, groups), var


class _Normalized(torch.autograd.Function):
    """Maps with given statistics (n, G), and the gradient with them (`fixed`) or through them."""

    @staticmethod
    def forward(ctx: Any, x, weight, bias, mean, var, eps, by_image, fixed):
        rows = _rows(x, by_image)
        work = torch.promote_types(x.dtype, torch.float32)
        each = x.shape[1] // mean.shape[1]
        mean, rstd = (t.double().repeat_interleave(each, 1) for t in (mean, (var.double() + eps).rsqrt()))
        scale = rstd if weight is None else rstd * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        scale, shift = scale.to(work), shift.to(work)
        out = torch.empty_like(x, memory_format=torch.channels_last)
        for i, x_part, out_part in _chunks(rows, _rows(out, by_image)):
            torch.addcmul(shift[i], x_part, scale[i], out=out_part)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.each, ctx.by_image, ctx.fixed = each, by_image, fixed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        x, weight, bias, mean, rstd = ctx.saved_tensors
        rows, grads = _rows(x, ctx.by_image), _rows(grad, ctx.by_image)
        n, cells, channels = rows.shape
        work = torch.promote_types(x.dtype, torch.float32)
        center, each = mean.to(work), ctx.each
        of_bias, of_weight = (torch.zeros(n, channels, dtype=torch.float64) for _ in range(2))
        room, other_room = (_scratch(rows, work) for _ in range(2))
        for i, x_part, g_part in _chunks(rows, grads):
            of_bias[i] += g_part.sum(0, dtype=work)
            of_weight[i] += torch.sub(x_part, center[i], out=room[: len(x_part)]).mul_(g_part).sum(0)
        rest = mean - center  # what rounding left
        of_weight = (of_weight - rest * of_bias) * rstd
        gain = torch.ones_like(rstd) if weight is None else weight.double().expand_as(rstd)

        def of_group(values: Tensor) -> Tensor:
            means = (values * gain).view(n, -1, each).sum(2) / (cells * each)
            return means.repeat_interleave(each, 1) * (0.0 if ctx.fixed else -1.0)

        slope = of_group(of_weight) * rstd.square()
        shift, scale = of_group(of_bias) * rstd - slope * rest, gain * rstd
        slope, shift, scale = (t.to(work) for t in (slope, shift, scale))
        out = torch.empty_like(x, memory_format=torch.channels_last)
        for i, x_part, g_part, out_part in _chunks(rows, grads, _rows(out, ctx.by_image)):
            part = torch.addcmul(shift[i], g_part, scale[i], out=room[: len(x_part)])
            left = torch.sub(x_part, center[i], out=other_room[: len(x_part)])
            torch.addcmul(part, left, slope[i], out=out_part)
        learned = [None if p is None else v.sum(0).to(p.dtype) for p, v in ((weight, of_weight), (bias, of_bias))]
        return out, *learned, None, None, None, None, None


class GroupNorm(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        else:  # TorchScript compiles what follows, too, but not another branch
            return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class BatchNormForward(nn.Module):
    """What the batch norms have in common, put before PyTorch's class.

    Attributes:
        joins_processes: the class can join the statistics of several processes, which then stays its own work.
    """

    joins_processes = False

    def forward(self: Any, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            training = self.training or self.running_mean is None
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, training, self.momentum, self.eps)
        else:
            joins = self.joins_processes and self.training and comm.get_world_size() > 1
            return super().forward(x) if joins or not lies_channels_last(x) else self.normalize(x)

    def normalize(self: Any, x: Tensor) -> Tensor:
        """As `nn.BatchNorm2d.forward`, with `batch_norm` of this module."""
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else momentum
        training = self.training or self.running_mean is None
        keeps = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if keeps else (None, None)
        return batch_norm(x, mean, var, self.weight, self.bias, training, momentum, self.eps)


class BatchNorm2d(BatchNormForward, nn.BatchNorm2d):
    pass


class SyncBatchNorm(BatchNormForward, nn.SyncBatchNorm):
    joins_processes = True


class NaiveSyncBatchNorm(BatchNormForward, _NaiveSyncBatchNorm):
    joins_processes = True


EXACT: dict[type[nn.Module], type[nn.Module]] = {
    nn.GroupNorm: GroupNorm,
    nn.BatchNorm2d: BatchNorm2d,
    nn.SyncBatchNorm: SyncBatchNorm,
    _NaiveSyncBatchNorm: NaiveSyncBatchNorm,
}
"""Class of a norm -> the one that does the same, exactly."""
