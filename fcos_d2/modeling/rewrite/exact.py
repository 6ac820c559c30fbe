"""Norms of any model, as exact in channels_last on the CPU as in contiguous maps (see `exact_norm.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..exact_norm import EXACT, BatchNormForward, GroupNorm, lies_channels_last
from .copying import Derived, Replacement, derived, rebuilt

__all__ = ["Contiguous", "exact_norm", "with_exact_norms"]


_KINDS = (nn.GroupNorm, nn.BatchNorm2d, nn.SyncBatchNorm)


class Contiguous(Derived):
    """A norm of a class of its own, which sees maps in channels_last as contiguous ones."""

    def forward(self, x: Tensor, *others: Any) -> Any:
        if not lies_channels_last(x):
            return super().forward(x, *others)
        y = super().forward(x.clone(memory_format=torch.contiguous_format), *others)
        return y.contiguous(memory_format=torch.channels_last)


def exact_norm(part: nn.Module) -> Replacement | None:
    """What stands for a norm that PyTorch's kernels compute; `None` for all else."""
    if type(part) in EXACT:
        return Replacement(EXACT[type(part)])
    if isinstance(part, _KINDS) and not isinstance(part, (GroupNorm, BatchNormForward, Contiguous)):
        return Replacement(derived(Contiguous, type(part)))
    return None


def with_exact_norms(module: nn.Module) -> Any:
    """The module itself if all its norms are exact, else a copy, with its tensors, in which they are."""
    return rebuilt(module, exact_norm) if any(map(exact_norm, module.modules())) else module
