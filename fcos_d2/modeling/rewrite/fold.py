"""Frozen batch norms folded into the convolutions before them.

A `FrozenBatchNorm2d` multiplies each channel by a constant and adds another. Doing so to the weights of the convolution
gives the same numbers but for rounding, and saves two passes over maps that are thousands of times larger.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn

from ..norm import get_norm
from .copying import Replacement, rebuilt

__all__ = ["FoldedConv2d", "conv_norm", "folded", "folding"]


def folded(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
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
        if x.device.type != "cpu" and not torch.is_grad_enabled():  # one kernel more on a map, but five fewer to launch
            return super().forward(x)
        weight, bias = folded(self.weight, self.bias, self.norm)
        x = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return x if self.activation is None else self.activation(x)


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, norm: str, stride: int = 1, relu: bool = True
) -> FoldedConv2d:
    """A convolution without bias, padded by half its kernel, with the norm of that name, and with ReLU or without."""
    return FoldedConv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False,
        norm=get_norm(norm, out_channels), activation=F.relu_ if relu else None,
    )  # fmt: skip


def folding(module: nn.Module, keep: Iterable[nn.Module] = ()) -> nn.Module:
    """A copy of a module, with its tensors, whose Detectron2 convolutions with a norm are `FoldedConv2d`.

    Args:
        module: stays as it is.
        keep: submodules that are used as they are.
    """

    def rule(part: nn.Module) -> Replacement | None:
        return Replacement(FoldedConv2d) if type(part) is Conv2d and part.norm is not None else None

    return rebuilt(module, rule, keep)
