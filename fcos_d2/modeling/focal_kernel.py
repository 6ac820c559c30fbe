"""The negative term of the focal loss as one Triton kernel: the logits are read once, the gradient is written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["negatives"]

_BLOCK = 1024


@triton.jit
def _negatives_kernel(
    x_pointer, grad_pointer, sums_pointer, factor_pointer, count, gamma, write: tl.constexpr, block: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    x = tl.load(x_pointer + at, mask=inside, other=0.0).to(tl.float32)
    e = tl.exp(-tl.abs(x))
    one_more = 1.0 + e
    # log(1 + e) to the last bits of a small e: what rounding took from 1 + e is made good by the quotient.
    log1p = tl.where(one_more == 1.0, e, tl.log(one_more) * (e / tl.where(one_more == 1.0, 1.0, one_more - 1.0)))
    softplus = tl.maximum(x, 0.0) + log1p
    p = tl.where(x >= 0, 1.0, e) / one_more
    power = tl.exp(-gamma * (softplus - x))  # p^gamma, since -log p is the softplus of -x
    term = power * softplus
    tl.store(sums_pointer + tl.program_id(0), tl.sum(tl.where(inside, term, 0.0), axis=0))
    if write:
        slope = (gamma * term * (1.0 - p) + power * p) * tl.load(factor_pointer)
        tl.store(grad_pointer + at, slope, mask=inside)


def negatives(x: Tensor, gamma: float, grad: Tensor | None, factor: Tensor) -> Tensor:
    """Sum of f(x) = p^gamma * softplus(x) with p = sigmoid(x); `factor` * f'(x) is written to `grad`.

    Args:
        x: (n,) logits of any floating type, contiguous.
        gamma: of the focal loss.
        grad: (n,) float32, contiguous; `None` if it is not wanted.
        factor: float32 scalar on the device.
    Returns:
        float64 scalar on the device, without `factor`.
    """
    blocks = triton.cdiv(x.numel(), _BLOCK)
    sums = torch.empty(blocks, dtype=torch.float32, device=x.device)
    if blocks:
        target = sums if grad is None else grad
        _negatives_kernel[(blocks,)](x, target, sums, factor, x.numel(), gamma, write=grad is not None, block=_BLOCK)
    return sums.sum(dtype=torch.float64)
