"""Frozen batch norms folded into the convolutions before them.

A `FrozenBatchNorm2d` multiplies each channel by a constant and adds another. Doing so to the weights of the convolution
gives the same numbers but for rounding, and saves two passes over maps that are thousands of times larger.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn

__all__ = ["FoldedConv2d", "fold_as_it_runs", "folded"]


def folded(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what convolution and norm do one after the other.

    Args:
        weight: (Cout, Cin, Kh, Kw).
        bias: (Cout,), or `None` for zero.
        norm: batch norm with running statistics, used as in inference; with or without weight and bias.
    Returns:
        weight and bias of the same shapes; differentiable in all that is.
    """
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    return weight * scale.view(-1, 1, 1, 1), shift


class FoldedConv2d(Conv2d):
    """Detectron2's convolution whose frozen batch norm is folded into its weights each time it runs.

    Parameters, buffers and gradients are those of the convolution and the norm; with any other norm it is Detectron2's.
    """

    def forward(self, x: Tensor) -> Tensor:
        if type(self.norm) is not FrozenBatchNorm2d or torch.jit.is_scripting():
            return super().forward(x)
        weight, bias = folded(self.weight, self.bias, self.norm)
        x = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return x if self.activation is None else self.activation(x)


def fold_as_it_runs(module: nn.Module) -> None:
    """Turn Detectron2's convolutions with frozen batch norms into `FoldedConv2d`, in place; names stay as they are."""
    for part in module.modules():
        if type(part) is Conv2d and type(part.norm) is FrozenBatchNorm2d:
            part.__class__ = FoldedConv2d
