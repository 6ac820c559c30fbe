"""Sigmoid focal loss (arXiv:1708.02002) from class indices, in the memory layout that the feature maps have.

Every element of the maps is first counted as a negative; the few positives are corrected afterwards. No one-hot
targets, no transposition. The gradient is computed together with the loss, in one tensor for each map. A GPU, whose
time is that of starting kernels, works on all levels at once, in one tensor; the CPU does not concatenate them. Under
`torch.compile` the same sums are written plainly, for the compiler to fuse.

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

from ..structures import Level, Positives, Predictions, sent

logger = logging.getLogger("fcos_d2")

# Elements worked on at a time on the CPU, so that the temporaries stay in the cache.
_CHUNK = 1 << 17
# The same on a GPU without Triton, so that the temporaries do not grow with the batch.
_CHUNK_ON_GPU = 1 << 24


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
    flats, place, _ = _laid(predictions, predictions.logits, positives, label)
    x = _read(flats, _slots(flats, place))
    correction = alpha * _focal_term(-x, gamma)[0] - (1 - alpha) * _focal_term(x, gamma)[0]
    return total + (correction if positives.valid is None else correction * positives.valid).sum()


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, predictions, positives, label, alpha, gamma, multiplier, *maps):
        flats, place, ctx.channels_last = _laid(predictions, maps, positives, label)
        wanted = ctx.needs_input_grad[6:]
        ctx.maps = [(x.shape, x.dtype, needs_grad) for x, needs_grad in zip(maps, wanted)]
        if label.device.type == "cuda":
            flats, wanted = [torch.cat(flats)], [any(wanted)]
        # the positives: subtract the negative term, add the positive one
        slots = _slots(flats, place)
        x = _read(flats, slots)
        (negative, positive), (negative_slope, positive_slope) = _focal_term(torch.stack((x, -x)), gamma)
        term = torch.sub(alpha * positive, negative, alpha=1 - alpha)
        slope = torch.add(alpha * positive_slope, negative_slope, alpha=1 - alpha) * multiplier
        if positives.valid is not None:
            term, slope = term * positives.valid, slope * positives.valid
        total, factor, ctx.grads = term.sum() * multiplier, (1 - alpha) * multiplier, []
        for flat, (index, inside), needs_grad in zip(flats, slots, wanted):
            grad = _empty_gradient(flat) if needs_grad else None
            total = total + _negatives(flat, gamma, grad, factor)  # float64
            if grad is not None:
                grad.index_add_(0, index, slope if inside is None else slope * inside, alpha=-1)
            ctx.grads.append(grad)
        ctx.dtype = flats[0].dtype
        return total.float()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        # Reading the factor costs nothing on the CPU, and mostly saves a pass over the maps.
        unit = grad_output.device.type == "cpu" and grad_output.item() == 1.0
        grads = [g if g is None or unit else g * grad_output for g in ctx.grads]
        if len(grads) < len(ctx.maps):  # all levels in one
            grads = grads[0].to(ctx.dtype).split([shape.numel() for shape, *_ in ctx.maps])
        return (None,) * 6 + tuple(
            _unflat(g, shape, ctx.channels_last).to(dtype) if needs_grad else None
            for g, (shape, dtype, needs_grad) in zip(grads, ctx.maps)
        )


def _laid(
    predictions: Predictions, maps: Sequence[Tensor], positives: Positives, label: Tensor
) -> tuple[list[Tensor], Tensor, bool]:
    """Maps flattened in the order of memory: views for contiguous and channels_last maps, else copies.

    Returns:
        L vectors; (P,) int64 places of the labels' logits in them, one after the other; whether channels come last.
    """
    where, num_images, channels = predictions.locations, len(maps[0]), maps[0].shape[1]
    last = all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)
    flats = [(x.permute(0, 2, 3, 1) if last else x).reshape(-1) for x in maps]
    make = _cells if torch.compiler.is_compiling() else _kept_cells  # the compiler keeps constants itself
    ends, cells = make(where.levels, label.device)
    before, area = cells.index_select(1, torch.bucketize(positives.location, ends, right=True))
    cell, point = where.cell(positives.location)
    channel = label if point is None else torch.add(label, point, alpha=predictions.num_classes)
    # What is before the level, less its cells, which `cell` counts already, and the place in the level: few operators.
    if last:
        row = torch.addcmul(torch.add(cell, before, alpha=num_images - 1), positives.image, area)
        return flats, torch.add(channel, row, alpha=channels), last
    plane = torch.add(channel, positives.image, alpha=channels)
    return flats, torch.addcmul(torch.add(cell, before, alpha=num_images * channels - 1), plane, area), last


def _cells(levels: tuple[Level, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(L,) int64 ends of the levels in locations, and (2, L) int64 cells of all finer levels and of each."""
    ends = [level.end for level in levels]
    before = [level.start // len(level.points) for level in levels]
    table = sent(torch.tensor([ends, before, [level.height * level.width for level in levels]]), device)
    return table[0], table[1:]


# Batches repeat their few sizes. What is kept must serve training after inference.
_kept_cells = functools.lru_cache(maxsize=32)(torch.inference_mode(False)(_cells))


def _slots(flats: list[Tensor], place: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """Indices of the places into each vector, clamped into it, and a mask of those that lie in it; `None` if all do."""
    if len(flats) == 1:
        return [(place, None)]
    slots: list[tuple[Tensor, Tensor | None]] = []
    start = 0
    for flat in flats:
        own = place - start
        index = own.clamp(0, flat.numel() - 1)
        slots.append((index, index == own))
        start += flat.numel()
    return slots


def _read(flats: list[Tensor], slots: list[tuple[Tensor, Tensor | None]]) -> Tensor:
    """(P,) float32 logits of the positives' labels."""
    x = None
    for flat, (index, inside) in zip(flats, slots):
        picked = flat.index_select(0, index).float()
        x = picked if x is None or inside is None else torch.where(inside, picked, x)
    assert x is not None, "there is at least one level"
    return x


def _focal_term(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """f(x) = p^gamma * softplus(x) and its derivative."""
    p = x.sigmoid()
    softplus = -F.logsigmoid(-x)
    power = p**gamma
    term = power * softplus
    return term, gamma * term * (1 - p) + power * p


def _empty_gradient(flat: Tensor) -> Tensor:
    """Room for the gradient of a flat map."""
    return torch.empty_like(flat, dtype=torch.float32)


def _unflat(flat: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    """A view as a map of a flat one."""
    if not channels_last:
        return flat.view(shape)
    return flat.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)


def _negatives(x: Tensor, gamma: float, grad: Tensor | None, factor: Tensor) -> Tensor:
    """Sum of `factor` * f over a whole flat map, a float64 scalar; `factor` * f' is written to `grad`."""
    kernel = _kernel(x.device)
    return _eager_negatives(x, gamma, grad, factor) if kernel is None else kernel(x, gamma, grad, factor) * factor


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
    size = min(_CHUNK if x.device.type == "cpu" else _CHUNK_ON_GPU, x.numel())
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
