"""What a process needs to train on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["start_threads", "without_denormals"]


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take denormal numbers for 0 in this thread, until the block ends; then it treats them as before.

    Where a gradient stays 0, the averages of Adam and momentum decay into denormal numbers, with which a CPU calculates
    a hundred times slower.
    """
    before = sys.float_info.min * 0.5 == 0  # PyTorch does not tell
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def start_threads() -> None:
    """Let PyTorch start its threads if they do not run yet; they treat denormal numbers as this one does now, for good.

    Only a command that trains calls this within `without_denormals`, at its start, and its process ends with it.
    Training itself calls it outside, so that an application's threads stay as they are.
    """
    torch.zeros(1 << 20).add_(1)
