"""Fresh memory on the CPU, in huge pages where it is large.

The system clears a page when it is first written: in small pages that costs ten times more than what is written there.
NumPy asks for huge pages, PyTorch only if its environment says so.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["empty"]

# Bytes from which huge pages are worth asking for, and of one such page.
_LARGE = 1 << 22
_PAGE = 1 << 21


def empty(count: int, dtype: torch.dtype) -> Tensor:
    """(count,) without values, on the CPU; large ones fill whole pages from the start of one."""
    size = count * torch.empty((), dtype=dtype).element_size()
    if size < _LARGE or torch.compiler.is_compiling():
        return torch.empty(count, dtype=dtype)
    memory = np.empty((-(-size // _PAGE) + 1) * _PAGE, dtype=np.uint8)  # what is never written takes no memory
    start = -memory.ctypes.data % _PAGE
    return torch.from_numpy(memory[start : start + size]).view(dtype)
