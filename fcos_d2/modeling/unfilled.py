"""Models without weights: names, shapes and options, for whoever asks nothing else of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["unfilled"]

_FILL = {
    *(Tensor.fill_, Tensor.normal_, Tensor.uniform_, Tensor.zero_),
    *(nn.init.constant_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_),
}


class _Undrawn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FILL:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def unfilled() -> Iterator[None]:
    """While it lasts, modules are built on PyTorch's meta device, and nothing is drawn for them.

    The device alone saves the memory, but not the time: an initialisation is worked out there operator by operator.
    """
    with torch.device("meta"), _Undrawn():
        yield
