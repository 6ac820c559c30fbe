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
_SHORT, _LONG = 24, 64  # cells that are added up one after the other; the less, the fewer such sums there are
_FAR = 32  # deviations from zero at which the rounding of a mean begins to show
_WIDTH = 1 << 13  # elements of a row of cells that lie side by side, for each thread


def lies_channels_last(x: Tensor) -> bool:
    """Whether PyTorch would take its inexact kernels: for channels_last on the CPU, outside of compiled code."""
    return not torch.compiler.is_compiling() and not torch.jit.is_tracing() and _is_channels_last(x)


def _is_channels_last(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dim() == 4 and x.stride(1) < max(x.stride(2), x.stride(3))


def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`F.group_norm`; (N, C, H, W) that lies in channels_last stays so."""
    if x.device.type != "cpu" and weight is not None and weight.dtype != x.dtype:  # CUDA's kernel takes one type
        found = F.group_norm(x.to(weight.dtype), groups, weight, bias, eps)
        return found if torch.is_autocast_enabled(x.device.type) else found.to(x.dtype)
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
            running_mean.lerp_(mean[0].to(running_mean.dtype), momentum)
            running_var.lerp_((var[0] * (count / (count - 1))).to(running_var.dtype), momentum)
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


def _parts(cells: int, channels: int) -> Iterator[tuple[slice, int]]:
    """Ranges of cells, one after the other, and how many of each lie side by side: a range is a multiple of them."""
    side = max(1, min(_WIDTH * torch.get_num_threads() // channels, cells // _SHORT))
    start = 0
    while start < cells:
        side = min(side, max(1, (cells - start) // _SHORT))
        stop = start + min(side * _LONG, (cells - start) // side * side)
        yield slice(start, stop), side
        start = stop


def _side_by_side(rows: Tensor, side: int) -> Tensor:
    """(P, C) -> (1, side * C, P / side, 1) in channels_last: each cell of a row has channels of its own."""
    return rows.reshape(1, -1, 1, side * rows.shape[1]).permute(0, 3, 1, 2)


@torch.no_grad()
def _moments(rows: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each image's groups, (n, G) float64."""
    mean, var = _joined(rows, groups)
    if (mean.square() > _FAR**2 * var).any():  # sums of large numbers are rounded to coarse ones: again, about the mean
        center = mean.to(torch.promote_types(rows.dtype, torch.float32))
        rest, var = _joined(rows - _spread(center, rows.shape[2] // groups)[:, None], groups)
        mean = center + rest
    return mean, var


def _joined(rows: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """`_moments`, from those of parts."""
    n, cells, channels = rows.shape
    work = torch.promote_types(rows.dtype, torch.float32)
    found: list[tuple[Tensor, Tensor]] = []
    lengths: list[int] = []
    for image in rows:
        for part, side in _parts(cells, channels):
            chunk = _side_by_side(image[part].to(work), side)
            found.append(torch.batch_norm_update_stats(chunk, None, None, 0.0))
            lengths += [chunk.shape[2]] * side
    means, variances = (torch.cat(t).double().view(n, -1, groups, channels // groups) for t in zip(*found))
    counts = torch.tensor(lengths, dtype=torch.float64).view(n, -1, 1, 1)
    total = cells * channels // groups
    mean = (means * counts).sum((1, 3), keepdim=True) / total
    var = (variances.add_((means - mean).square_()) * counts).sum((1, 3)) / total
    return mean.view(n, groups), var


def _products(x: Tensor, grad: Tensor, center: Tensor, side: int) -> Tensor:
    """Sums over cells (P, C) of `(x - center) * grad` and of `grad`, (2, C) float64."""
    x, grad = (_side_by_side(rows.to(center.dtype), side) for rows in (x, grad))
    center, ones = center.repeat(side), center.new_ones(side * len(center))
    _, *sums = torch.ops.aten.native_batch_norm_backward(
        grad, x, None, None, None, center, ones, True, 0.0, [False, True, True]
    )
    return torch.stack(sums).view(2, side, -1).sum(1, dtype=torch.float64)


def _spread(values: Tensor, each: int) -> Tensor:
    """Of groups -> of their channels."""
    return values if each == 1 else values.repeat_interleave(each, -1)


class _Normalized(torch.autograd.Function):
    """Maps with given statistics (n, G), and the gradient with them (`fixed`) or through them."""

    @staticmethod
    def forward(ctx: Any, x, weight, bias, mean, var, eps, by_image, fixed):
        rows = _rows(x, by_image)
        work = torch.promote_types(x.dtype, torch.float32)
        each = x.shape[1] // mean.shape[1]
        mean, rstd = (_spread(t.double(), each) for t in (mean, (var + eps).rsqrt_()))
        scale = rstd if weight is None else rstd * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        scale, shift = scale.to(work), shift.to(work)
        out = torch.empty_like(x, memory_format=torch.channels_last)
        torch.addcmul(shift[:, None], rows, scale[:, None], out=_rows(out, by_image))
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
        sums = torch.zeros(2, n, channels, dtype=torch.float64)
        for i in range(n):
            for part, side in _parts(cells, channels):
                sums[:, i] += _products(rows[i, part], grads[i, part], center[i], side)
        rest, of_bias = mean - center, sums[1]  # what rounding left
        of_weight = (sums[0] - rest * of_bias).mul_(rstd)
        scale = rstd if weight is None else rstd * weight
        if ctx.fixed:
            left = grads * scale.to(work)[:, None]
        else:
            gained = torch.stack((of_weight, of_bias)) if weight is None else torch.stack((of_weight, of_bias)) * weight
            means = _spread(gained.view(2, n, -1, each).sum(3), each).mul_(rstd / (-cells * each))
            slope = means[0] * rstd
            shift = means[1] - slope * rest
            left = torch.sub(rows, center[:, None])
            torch.addcmul(shift.to(work)[:, None], left, slope.to(work)[:, None], out=left)
            torch.addcmul(left, grads, scale.to(work)[:, None], out=left)
        out = left.to(x.dtype).view(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
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
