"""Sigmoid focal loss (arXiv:1708.02002) from class indices, on feature maps as they lie.

Every element of the maps is first counted as a negative; the few positives are corrected afterwards. No one-hot targets,
no concatenation of levels, no transposition. The gradient is formed while the loss is, in one tensor for each map.

With f(x) = p^gamma * softplus(x), p = sigmoid(x), a negative costs (1 - alpha) * f(x) and a positive alpha * f(-x).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..structures import Positives, Predictions

# Elements worked on at a time on the CPU, so that the temporaries stay in the cache.
_CHUNK = 1 << 17


def focal_loss(
    predictions: Predictions,
    positives: Positives,
    label: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    multiplier: Tensor | float = 1.0,
) -> Tensor:
    """Sum of the focal loss over all images, locations and classes, times `multiplier`.

    Args:
        predictions: whose L maps of logits (N, D*K, Hi, Wi) are read, in any memory format and floating type.
        positives: P (image, location) pairs; all other locations are background for every class.
        label: (P,) int64 class in 0..K-1 of each positive.
        alpha: weight of positives against 1 - alpha for negatives.
        gamma: focusing parameter; 0 gives the weighted cross entropy.
        multiplier: factor known beforehand, such as 1 / normalizer; it costs nothing here. Not differentiated.
    Returns:
        float32 scalar. Differentiable once in the logits.
    """
    multiplier = torch.as_tensor(
        multiplier, dtype=torch.float32, device=label.device
    ).detach()
    return _FocalLoss.apply(
        predictions, positives, label, alpha, gamma, multiplier, *predictions.logits
    )


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, predictions, positives, label, alpha, gamma, multiplier, *maps):
        total = torch.zeros((), dtype=torch.float64, device=label.device)
        grads = []
        for level, logits, needs_grad in zip(
            predictions.locations.levels, maps, ctx.needs_input_grad[6:]
        ):
            grad = _empty_gradient(logits) if needs_grad else None
            total += _negatives(logits, gamma, grad, (1 - alpha) * multiplier)
            # the positives of this level: take the negative term back, put the positive one
            inside = (positives.location >= level.start) & (
                positives.location < level.end
            )
            weight = (
                inside.float() if positives.valid is None else inside * positives.valid
            )
            cell, point = predictions.cell(level, positives.location)
            channel = point * predictions.num_classes + label
            index = (positives.image, channel, cell // level.width, cell % level.width)
            x = logits[index].float()
            negative, negative_slope = _focal_term(x, gamma)
            positive, positive_slope = _focal_term(-x, gamma)
            total += (
                (alpha * positive - (1 - alpha) * negative) * weight
            ).sum() * multiplier
            if grad is not None:
                slope = (alpha * positive_slope + (1 - alpha) * negative_slope) * weight
                grad.index_put_(index, -slope * multiplier, accumulate=True)
            grads.append(grad)
        ctx.grads = grads
        ctx.dtypes = [m.dtype for m in maps]
        return total.float()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        # On the CPU a look at the factor is free and mostly saves a pass over the maps.
        unit = grad_output.device.type == "cpu" and grad_output.item() == 1.0
        grads = [g if g is None or unit else g * grad_output for g in ctx.grads]
        return (None,) * 6 + tuple(
            g if g is None else g.to(dtype) for g, dtype in zip(grads, ctx.dtypes)
        )


def _focal_term(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """f(x) = p^gamma * softplus(x) and its derivative, for the few positives."""
    p = x.sigmoid()
    softplus = torch.nn.functional.softplus(x, threshold=50)
    power = p**gamma
    term = power * softplus
    return term, gamma * term * (1 - p) + power * p


def _empty_gradient(logits: Tensor) -> Tensor:
    """Room for the gradient of a map, laid so that `_flat` gives a view of it in the order in which it gives the map."""
    channels_last = logits.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty_like(logits, dtype=torch.float32, memory_format=layout)


def _flat(values: Tensor) -> Tensor:
    """A map as one dimension, in the order it lies in memory (a view for contiguous and channels_last maps, else a copy)."""
    if values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)
    return values.reshape(-1)


def _negatives(
    logits: Tensor, gamma: float, grad: Tensor | None, factor: Tensor
) -> Tensor:
    """Sum of `factor` * f over a whole map, a float64 scalar; `factor` * f' is written to `grad`."""
    x, g = _flat(logits), None if grad is None else _flat(grad)
    size = min(_CHUNK, x.numel()) if x.device.type == "cpu" else x.numel()
    buffers = [torch.empty(size, device=x.device) for _ in range(5)]
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, x.numel(), max(size, 1)):
        part = x[start : start + size]
        work = [b[: part.numel()] for b in buffers]
        total += _negatives_chunk(
            part, gamma, None if g is None else g[start : start + size], factor, work
        )
    return total * factor


def _negatives_chunk(
    x: Tensor, gamma: float, grad: Tensor | None, factor: Tensor, work: list[Tensor]
) -> Tensor:
    """Sum of f over some elements, in place on five buffers of their size.

    softplus(x) = max(x, 0) + log(1 + e) with e = exp(-|x|). PyTorch's softplus and log1p are not vectorised on the CPU, its
    log is; what 1 + e loses by rounding is put back to first order.
    """
    e, one_plus_e, softplus, p, power = work
    if x.dtype != torch.float32:
        x = power.copy_(x).clone()
    torch.abs(x, out=e).neg_().exp_()
    torch.add(e, 1, out=one_plus_e)
    torch.log(one_plus_e, out=softplus)
    lost = torch.sub(one_plus_e, 1, out=p).sub_(e)
    softplus.addcdiv_(lost, one_plus_e, value=-1)
    softplus.add_(torch.clamp(x, min=0, out=p))
    torch.sigmoid(x, out=p)
    if gamma == 2:
        torch.mul(p, p, out=power)
    else:
        torch.pow(p, gamma, out=power)
    term = softplus.mul_(power)
    total = term.sum()
    if grad is not None:  # f' = gamma * f * (1 - p) + power * p
        slope = torch.sub(power, term, alpha=gamma, out=e)
        torch.mul(term, gamma, out=grad).addcmul_(p, slope).mul_(factor)
    return total
