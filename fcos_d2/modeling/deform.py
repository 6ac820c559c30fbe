"""Deformable convolution, version 2 (arXiv:1811.11168) and 1 (arXiv:1703.06211), for backbones and heads.

It samples through `torchvision.ops.deform_conv2d`, which has CPU and CUDA kernels; Detectron2's compiled operators are
not needed. Published weights keep the same tensors under other names, `X` being the place of a `DeformConv` here:

    here             AdelaiDet, Detectron2   tianzhi0549/FCOS, AdelaiDet's head   mmdetection
    X.weight         X.weight                X.conv.weight                        X.weight
    X.bias           (none)                  X.conv.bias                          X.bias
    X.offset.*       X_offset.*              X.offset.*                           X.conv_offset.*; older X_offset.*
    X.norm.*         X.norm.*                beside X: bn2                        beside X: bn2

The order of channels is the same in all of them, so the tensors are used as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from ..options import one_of
from .traits import Traits


class DeformConv(nn.Module):
    """A square convolution that reads at learned offsets and, if modulated, weighs what it reads.

    For kernel size k and G groups of input channels that share offsets, the convolution `offset` has 3 k*k G channels:
    2 k*k G offsets in feature pixels, (y, x) for each kernel tap, taps row by row, then k*k G masks before sigmoid
    (no masks if not modulated).

    Args:
        in_channels, out_channels: C of input and output.
        kernel_size: k.
        stride, dilation: of the kernel and of `offset`; the padding keeps the size at stride 1.
        groups: of the kernel, as in ResNeXt.
        deform_groups: G.
        bias: whether the kernel has a bias.
        norm: applied to the output.
        modulated: with masks (version 2) or without (version 1).
        offset_init: "zero" starts at a plain convolution, times 1/2 if modulated (Detectron2, AdelaiDet, mmdetection);
            "kaiming_uniform" with a = 1 is tianzhi0549/FCOS, fcos_core/layers/misc.py. The bias is zero in both.
    Raises:
        ValueError: channels that groups do not divide, or no such `offset_init`.
    """

    traits = Traits(reads_neighbours=True, any_precision=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        modulated: bool = True,
        offset_init: str = "zero",
    ) -> None:
        super().__init__()
        one_of("offset_init", offset_init, ("zero", "kaiming_uniform"))
        for name, channels, number in (
            ("groups", in_channels, groups),
            ("groups", out_channels, groups),
            ("deform_groups", in_channels, deform_groups),
        ):
            if number < 1 or channels % number:
                raise ValueError(f"{name} is {number}, but it must divide the {channels} channels of DeformConv.")
        self.stride, self.dilation, self.modulated = stride, dilation, modulated
        self.padding = dilation * (kernel_size - 1) // 2
        self.num_offsets = 2 * kernel_size**2 * deform_groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        num_maps = self.num_offsets * 3 // 2 if modulated else self.num_offsets
        self.offset = nn.Conv2d(in_channels, num_maps, kernel_size, stride, self.padding, dilation)
        self.norm = norm
        bound = (in_channels * kernel_size**2) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if offset_init == "zero":
            nn.init.zeros_(self.offset.weight)
        else:
            nn.init.kaiming_uniform_(self.offset.weight, a=1)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W') in the dtype of `x`; it samples in float32 or wider, under autocast too."""
        dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        maps = self.offset(x).to(dtype)
        y = deform_conv2d(
            x.to(dtype),
            maps[:, : self.num_offsets],
            self.weight.to(dtype),
            None if self.bias is None else self.bias.to(dtype),
            stride=(self.stride, self.stride),
            padding=(self.padding, self.padding),
            dilation=(self.dilation, self.dilation),
            mask=maps[:, self.num_offsets :].sigmoid() if self.modulated else None,
        ).to(x.dtype)
        return y if self.norm is None else self.norm(y)
