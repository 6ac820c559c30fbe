"""Gradient checkpointing: blocks keep their input alone, and compute the rest again when their gradient is asked for.

That is PyTorch's `torch.utils.checkpoint`, block by block. Weights, their names and results stay as they are; gradients
are equal to the bit where convolutions are deterministic. It costs about one more forward pass of what is computed
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...errors import FcosError
from ..norm import BATCH_NORMS
from .copying import Derived, Replacement, derived, rebuilt
from .foreign import traits_of

__all__ = ["PARTS", "Recomputed", "recomputing"]

# Values of `train.gradient_checkpointing`.
PARTS = ("none", "backbone", "all")


class Recomputed(Derived):
    """A block whose activations are computed again for its gradient."""

    def forward(self, *args: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*args)
        contexts = (nullcontext(), _statistics_untouched(self))  # of the first and of the second forward pass
        return checkpoint(super().forward, *args, use_reentrant=False, context_fn=lambda: contexts)


def recomputing(model: nn.Module, parts: str) -> nn.Module:
    """A copy of a model, with its tensors, whose blocks compute their activations again while they train.

    Args:
        model: with a `backbone`, as Detectron2's detectors have it. Frozen blocks keep nothing and are left alone.
        parts: "backbone" for the blocks of the bottom-up network, "all" for the towers of the head, too.
    Raises:
        FcosError: the backbone has no such blocks.
    """
    backbone = getattr(model, "backbone", None)
    bottom_up = getattr(backbone, "bottom_up", backbone)
    if bottom_up is None:
        raise FcosError(f"Gradient checkpointing needs a backbone, which {type(model).__name__} has not.")
    if not (blocks := list(_outermost(bottom_up))):
        raise FcosError(
            f"Gradient checkpointing knows no blocks of {type(bottom_up).__name__}: let them derive from "
            "detectron2.layers.CNNBlockBase or declare fcos_d2.modeling.traits.Traits(recomputable=True), or "
            "train without it."
        )
    if parts == "all":
        blocks += [part for name, part in model.named_children() if part is not backbone for part in _outermost(part)]
    chosen = {id(block) for block in blocks if any(p.requires_grad for p in block.parameters())}
    return rebuilt(model, lambda part: Replacement(derived(Recomputed, type(part))) if id(part) in chosen else None)


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """Blocks that can be computed again and are in no other such block."""
    for child in module.children():
        if isinstance(child, Recomputed):
            continue
        if traits_of(child).recomputable:
            yield child
        else:
            yield from _outermost(child)


@contextmanager
def _statistics_untouched(block: nn.Module) -> Iterator[None]:
    """Batch norms that train write their running statistics to copies: the first pass has updated them already."""
    norms = [m for m in block.modules() if isinstance(m, BATCH_NORMS) and m.training]
    kept = [(norm, name, value) for norm in norms for name, value in norm.named_buffers(recurse=False)]
    for norm, name, value in kept:
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)
