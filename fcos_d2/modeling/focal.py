"""Sigmoid focal loss (arXiv:1708.02002) from class indices, in the memory layout that the feature maps have.

Every element of the maps is first counted as a negative; the few positives are corrected afterwards. No one-hot
targets, no concatenation of levels, no transposition. The gradient is computed together with the loss, in one tensor
for each map. Under `torch.compile` the same sums are written plainly, for the compiler to fuse.

With f(x) = p^gamma * softplus(x), p = sigmoid(x), a negative costs (1 - alpha) * f(x) and a positive alpha * f(-x).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..structures import Positives, Predictions

logger = logging.getLogger("fcos_d2")

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
    multiplier = torch.as_tensor(multiplier, dtype=torch.float32, device=label.device).detach()
    if torch.compiler.is_compiling():
        return _plain(predictions, positives, label, alpha, gamma) * multiplier
    maps = predictions.logits if torch.is_grad_enabled() else [x.detach() for x in predictions.logits]
    return _FocalLoss.apply(predictions, positives, label, alpha, gamma, multiplier, *maps)


def _plain(predictions: Predictions, positives: Positives, label: Tensor, alpha: float, gamma: float) -> Tensor:
    """The loss in differentiable operations."""
    total = torch.zeros((), device=label.device)
    for logits in predictions.logits:
        total = total + (1 - alpha) * _focal_term(logits.float(), gamma)[0].sum()
    x = _at_labels(predictions, predictions.logits, positives, label)
    correction = alpha * _focal_term(-x, gamma)[0] - (1 - alpha) * _focal_term(x, gamma)[0]
    return total + (correction if positives.valid is None else correction * positives.valid).sum()


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, predictions, positives, label, alpha, gamma, multiplier, *maps):
        total = torch.zeros((), dtype=torch.float64, device=label.device)
        grads = []
        for logits, needs_grad in zip(maps, ctx.needs_input_grad[6:]):
            grad = _empty_gradient(logits) if needs_grad else None
            total += _negatives(logits, gamma, grad, (1 - alpha) * multiplier)
            grads.append(grad)
        # the positives: subtract the negative term, add the positive one
        x = _at_labels(predictions, maps, positives, label)
        negative, negative_slope = _focal_term(x, gamma)
        positive, positive_slope = _focal_term(-x, gamma)
        term = alpha * positive - (1 - alpha) * negative
        slope = -(alpha * positive_slope + (1 - alpha) * negative_slope) * multiplier
        if positives.valid is not None:
            term, slope = term * positives.valid, slope * positives.valid
        total += term.sum() * multiplier
        for i, grad in enumerate(grads):
            if grad is not None:
                index, inside = _index(predictions, i, positives, label)
                grad.index_put_(index, slope * inside, accumulate=True)
        ctx.grads = grads
        ctx.dtypes = [m.dtype for m in maps]
        return total.float()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        # Reading the factor costs nothing on the CPU, and mostly saves a pass over the maps.
        unit = grad_output.device.type == "cpu" and grad_output.item() == 1.0
        grads = [g if g is None or unit else g * grad_output for g in ctx.grads]
        return (None,) * 6 + tuple(g if g is None else g.to(dtype) for g, dtype in zip(grads, ctx.dtypes))


def _index(
    predictions: Predictions, i: int, positives: Positives, label: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Indices into map i of the logits of the positives' labels, and a mask of those that belong to this map."""
    level = predictions.locations.levels[i]
    inside = (positives.location >= level.start) & (positives.location < level.end)
    cell, point = predictions.cell(level, positives.location)
    channel = label if len(level.points) == 1 else point * predictions.num_classes + label
    return (positives.image, channel, cell // level.width, cell % level.width), inside


def _at_labels(predictions: Predictions, maps: Sequence[Tensor], positives: Positives, label: Tensor) -> Tensor:
    """(P,) float32 logits of the positives' labels."""
    x = torch.zeros_like(label, dtype=torch.float32)
    for i, logits in enumerate(maps):
        index, inside = _index(predictions, i, positives, label)
        x = torch.where(inside, logits[index].float(), x)
    return x


def _focal_term(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """f(x) = p^gamma * softplus(x) and its derivative."""
    p = x.sigmoid()
    softplus = -F.logsigmoid(-x)
    power = p**gamma
    term = power * softplus
    return term, gamma * term * (1 - p) + power * p


def _empty_gradient(logits: Tensor) -> Tensor:
    """Room for the gradient of a map, laid so that `_flat` gives a view of it in the order that it gives the map in."""
    channels_last = logits.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty_like(logits, dtype=torch.float32, memory_format=layout)


def _flat(values: Tensor) -> Tensor:
    """A map flattened in the order of memory: a view for contiguous and channels_last maps, else a copy."""
    if values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)
    return values.reshape(-1)


def _negatives(logits: Tensor, gamma: float, grad: Tensor | None, factor: Tensor) -> Tensor:
    """Sum of `factor` * f over a whole map, a float64 scalar; `factor` * f' is written to `grad`."""
    x, g = _flat(logits), None if grad is None else _flat(grad)
    kernel = _kernel(x.device)
    return _eager_negatives(x, gamma, g, factor) if kernel is None else kernel(x, gamma, g, factor) * factor


@functools.cache
def _kernel(device: torch.device) -> Callable[..., Tensor] | None:
    """`focal_kernel.negatives`, if this device runs it: it is tried on a few numbers first."""
    if device.type != "cuda":
        return None
    try:
        from .focal_kernel import negatives

        x = torch.linspace(-20, 20, 1500, device=device)
        ours, theirs = torch.empty_like(x), torch.empty_like(x)
        factor = torch.ones((), device=device)
        total, expected = negatives(x, 2.0, ours, factor), _eager_negatives(x, 2.0, theirs, factor)
        if torch.allclose(ours, theirs, rtol=1e-4) and torch.allclose(total, expected, rtol=1e-4):
            return negatives
        problem = "its numbers are wrong"
    except Exception as error:  # whatever a compiler, a driver or a missing package may raise
        problem = f"{type(error).__name__}: {error}"
    logger.warning("The focal loss runs without its Triton kernel on %s, which is slower: %s.", device, problem)
    return None


def _eager_negatives(x: Tensor, gamma: float, g: Tensor | None, factor: Tensor) -> Tensor:
    """The same in PyTorch's operations, of a flat map and its flat gradient."""
    size = x.numel()
    if x.device.type == "cpu":
        size = min(_CHUNK, size)
    buffers = [torch.empty(size, device=x.device) for _ in range(2)]
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, x.numel(), max(size, 1)):
        part = x[start : start + size]
        work = [b[: part.numel()] for b in buffers]
        total += _negatives_chunk(part, gamma, None if g is None else g[start : start + size], factor, work)
    return total * factor


def _negatives_chunk(x: Tensor, gamma: float, grad: Tensor | None, factor: Tensor, work: list[Tensor]) -> Tensor:
    """Sum of f over some elements, with two buffers of their size; f' = p^gamma * p + gamma * f * (1 - p)."""
    p, power = work
    x = x.float()
    term = F.logsigmoid(torch.neg(x, out=power))  # -softplus(x)
    torch.sigmoid(x, out=p)
    if gamma == 2:
        torch.mul(p, p, out=power)
    else:
        torch.pow(p, gamma, out=power)
    total = term.mul_(power).sum()
    if grad is not None:
        torch.lerp(term.mul_(-gamma), power, p, out=grad).mul_(factor)
    return -total
