"""What a model needs to be trained on the CPU."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["guard_narrow_maps", "start_threads", "without_denormals", "without_sync_bn"]

logger = logging.getLogger("fcos_d2")


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take denormal numbers for 0 in this thread, until the block ends.

    The averages that Adam and momentum keep of gradients which stay 0 fade into such numbers, and they slow a CPU down
    a hundred times.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def start_threads() -> None:
    """Let PyTorch start its threads, if they do not run yet: they take over how this one treats denormal numbers."""
    torch.zeros(1 << 20).add_(1)


def without_sync_bn(model: nn.Module) -> nn.Module:
    """Replace `nn.SyncBatchNorm`, which trains on GPUs only, by batch norms of the same state; one warning says so."""
    found = [name for name, module in model.named_modules() if isinstance(module, nn.SyncBatchNorm)]
    for name in found:
        parent, _, child = name.rpartition(".")
        old = model.get_submodule(name)
        new = nn.BatchNorm2d(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats)
        new.load_state_dict(old.state_dict())
        setattr(model.get_submodule(parent), child, new)
    if found:
        logger.warning("%d SyncBN layers became BN layers, because SyncBN does not train on the CPU.", len(found))
    return model


def guard_narrow_maps(model: nn.Module) -> None:
    """Let strided convolutions of maps that are one pixel wide run in float32 under autocast.

    In bfloat16, oneDNN leaves the gradient of their weights uninitialised (seen with PyTorch 2.14 on a CPU without
    bfloat16 instructions); p6 and p7 of a small image are such maps.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.stride[1] > 1 and module.kernel_size[1] > 1:
            module.forward = functools.partial(_convolve, module.forward)


def _convolve(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if x.shape[-1] > 1:
        return forward(x)
    with torch.autocast("cpu", enabled=False):
        return forward(x.float())
