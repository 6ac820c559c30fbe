"""The memory that a command may use, measured on the device it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..predict.tiles import Memory

__all__ = ["limited"]


def limited(limit: int, device: torch.device) -> Memory:
    """A limit of so many bytes: of a GPU's memory, and on the CPU of the resident memory of this process."""
    import torch

    from ..evaluation.speed import give_back, peak_memory, resident
    from ..predict.tiles import Memory

    def used() -> int:
        if device.type == "cuda":
            return torch.cuda.memory_allocated(device)
        give_back()  # what the image before has left
        return resident("VmRSS")

    return Memory(limit, used, lambda run: peak_memory(run, device))
