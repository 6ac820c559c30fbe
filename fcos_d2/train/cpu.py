"""What a process needs to train on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["start_threads", "without_denormals"]


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
