"""Fresh memory on the CPU, in huge pages where it is large.

The system clears a page when it is first written: in small pages that costs ten times more than what is written there.
NumPy asks for huge pages, PyTorch only if its environment says so.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["empty"]

# Bytes from which huge pages are worth asking for.
_LARGE = 1 << 22
_CACHE_LINE = 64


def empty(count: int, dtype: torch.dtype) -> Tensor:
    """(count,) without values, on the CPU, at the start of a cache line."""
    size = torch.empty((), dtype=dtype).element_size()
    if count * size < _LARGE or torch.compiler.is_compiling():
        return torch.empty(count, dtype=dtype)
    memory = np.empty(count * size + _CACHE_LINE, dtype=np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return torch.from_numpy(memory[start : start + count * size]).view(dtype)
