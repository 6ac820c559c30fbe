"""Buffers of a model that trains in several processes: each has its own, and a checkpoint holds those of the first.

Weights are equal in all processes, because their gradients are. Buffers are not: each process counts its own images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm
from torch import Tensor, nn

__all__ = ["Buffers", "buffers_of_the_first", "own_buffers"]

_NORMS = (nn.modules.batchnorm.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, FrozenBatchNorm2d)
_LARGEST = 1000  # numbers in a buffer; larger ones are tables


def own_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that decide about later losses and may differ between processes, such as a loss's moving average.

    Those are the small floating-point buffers in the state dict. Running statistics of batch norms are not among them:
    while training they change no loss, and evaluation uses those of the first process.
    """
    kept = model.state_dict(keep_vars=True)
    return {
        name: buffer
        for name, buffer in _buffers(model, _NORMS)
        if name in kept and buffer.is_floating_point() and buffer.numel() <= _LARGEST
    }


def _buffers(model: nn.Module, without: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, Tensor]]:
    """Names and buffers of the modules that are of other classes than these."""
    for prefix, module in model.named_modules():
        if not isinstance(module, without):
            yield from module.named_buffers(prefix, recurse=False)


class Buffers:
    """A model's buffers as they are now; those of frozen norms, which nothing changes, left out."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept = {name: buffer.clone() for name, buffer in _buffers(model, (FrozenBatchNorm2d,))}

    @torch.no_grad()
    def put_back(self) -> None:
        for name, value in self._kept.items():
            self._model.get_buffer(name).copy_(value)


@contextmanager
def buffers_of_the_first(model: nn.Module) -> Iterator[None]:
    """All processes have the buffers of the first one, running statistics too, until the block ends."""
    if comm.get_world_size() == 1:
        yield
        return
    own = Buffers(model)
    try:
        for buffer in model.buffers():
            if buffer.dtype != torch.bool:  # which gloo does not know; masks are equal everywhere
                torch.distributed.broadcast(buffer, 0)
        yield
    finally:
        own.put_back()
