"""Training on a CUDA device that is not there, in shapes, types and devices alone: see `FakeCuda`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from projects_tools.bench.claimed_cuda import ClaimedCuda


class FakeCuda(ClaimedCuda):
    """PyTorch's fake tensors stand for those of the device; on the host all is real.

    They refuse what depends on values (`nonzero`, boolean masks), and raise where CPU and CUDA tensors meet. A number
    that the host asks for is `answer`, noted in `waits`.
    """

    def __init__(self, answer: float = 1.0) -> None:
        super().__init__()
        self.kind, self.answer = FakeTensor, answer
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    def sent(self, values: Tensor) -> Any:
        with self.fake:
            return torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device="cuda:0")

    def compute(self, func: Any, args: Any, kwargs: Any, to_host: bool) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return type(torch.empty((), dtype=args[0].dtype).item())(self.answer)
        with self.fake:
            return func(*args, **kwargs)
