"""In which type of numbers parts compute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .copying import Derived, Replacement, derived, rebuilt

__all__ = ["Guarded", "guarding"]


class Guarded(Derived):
    """A strided convolution that runs in float32 on maps that are one pixel wide, under autocast too.

    In bfloat16, oneDNN leaves the gradient of its weights uninitialised there (seen with PyTorch 2.14 on a CPU without
    bfloat16 instructions); p6 and p7 of a small image are such maps.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 1:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def guarding(module: nn.Module) -> nn.Module:
    """A copy of a module, with its tensors, whose strided convolutions are `Guarded`."""
    return rebuilt(module, _rule)


def _rule(part: nn.Module) -> Replacement | None:
    if isinstance(part, Guarded) or not isinstance(part, nn.Conv2d):
        return None
    return Replacement(derived(Guarded, type(part))) if part.stride[1] > 1 and part.kernel_size[1] > 1 else None
