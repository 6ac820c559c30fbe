"""Gradient checkpointing: blocks keep their input alone, and compute the rest again when their gradient is asked for.

That is PyTorch's `torch.utils.checkpoint`, block by block, in the forward methods of a model that is already built. Its
weights, their names and its results stay as they are; gradients are equal to the bit where convolutions are
deterministic. It costs about one more forward pass of what is computed again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from detectron2.layers import CNNBlockBase
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.mobilenetv2 import InvertedResidual

from ...errors import FcosError
from ..backbone import dla
from ..backbone.hrnet import HRModule
from ..backbone.vovnet import OSABlock
from ..head import Tower
from ..nas_head import NASLayer

__all__ = ["PARTS", "checkpoint_gradients"]

# Values of `train.gradient_checkpointing`.
PARTS = ("none", "backbone", "all")

_BACKBONE_BLOCKS = (CNNBlockBase, OSABlock, HRModule, InvertedResidual, dla.Block, dla.Root)
_HEAD_BLOCKS = (Tower, NASLayer)


def checkpoint_gradients(model: nn.Module, parts: str) -> int:
    """Let the blocks of a model, in place, compute their activations again instead of keeping them while it trains.

    Args:
        model: with a `backbone`, as Detectron2's detectors have it. Frozen blocks keep nothing and are left alone.
        parts: "backbone" for the blocks of the bottom-up network, "all" for the towers of the head, too.
    Returns:
        Number of blocks.
    Raises:
        FcosError: the backbone has no such blocks.
    """
    backbone = getattr(model, "backbone", None)
    bottom_up = getattr(backbone, "bottom_up", backbone)
    if bottom_up is None:
        raise FcosError(f"train.gradient_checkpointing needs a backbone, which {type(model).__name__} has not.")
    blocks = list(_outermost(bottom_up, _BACKBONE_BLOCKS))
    if not blocks:
        raise FcosError(
            f"train.gradient_checkpointing knows no blocks of {type(bottom_up).__name__}: let them derive from "
            "detectron2.layers.CNNBlockBase, or set it to none."
        )
    if parts == "all":
        blocks += _outermost(model, _HEAD_BLOCKS)
    trained = [block for block in blocks if any(p.requires_grad for p in block.parameters())]
    for block in trained:
        block.forward = functools.partial(_forward, block, block.forward)
    return len(trained)


def _outermost(module: nn.Module, kinds: tuple[type, ...]) -> Iterator[nn.Module]:
    """Modules of some classes that are in no other such module."""
    for child in module.children():
        if isinstance(child, kinds):
            yield child
        else:
            yield from _outermost(child, kinds)


def _forward(block: nn.Module, forward: Callable[..., Any], *args: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=functools.partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """What the first and the second forward pass of a block run in."""
    return nullcontext(), _statistics_untouched(block)


@contextmanager
def _statistics_untouched(block: nn.Module) -> Iterator[None]:
    """Batch norms that train write their running statistics to copies: the first pass has updated them already."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training and m._buffers]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept):
        norm._buffers.update({name: b if b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept):
            norm._buffers.update(buffers)
