"""What the quality branch should predict: one function for each kind, on (P, 4) pairs of ltrb."""

from __future__ import annotations

import torch
from fvcore.common.registry import Registry
from torch import Tensor

from .ltrb import IoURule, ltrb_iou

QUALITY_REGISTRY = Registry("FCOS_QUALITY")
QUALITY_REGISTRY.__doc__ = """Quality targets: `f(pred, target, rule) -> (P,)` in 0..1, from (P, 4) pairs of ltrb."""


def centerness_of(ltrb: Tensor) -> Tensor:
    """Centerness of locations inside their boxes (arXiv:1904.01355, Eq. 3).

    Args:
        ltrb: (P, 4) positive distances in any unit; P may be 0.
    Returns:
        (P,) in (0, 1]; 1 at the centre of the box.
    """
    ratio = torch.minimum(ltrb[:, :2], ltrb[:, 2:]) / torch.maximum(ltrb[:, :2], ltrb[:, 2:])
    return (ratio[:, 0] * ratio[:, 1]).sqrt()


@QUALITY_REGISTRY.register()
def centerness(pred: Tensor, target: Tensor, rule: IoURule) -> Tensor:
    """(P,) centerness of the target; the prediction plays no part."""
    return centerness_of(target)


@QUALITY_REGISTRY.register()
def iou(pred: Tensor, target: Tensor, rule: IoURule) -> Tensor:
    """(P,) overlap of the present prediction with its target, without gradient (AdelaiDet, BOX_QUALITY "iou")."""
    return ltrb_iou(pred.detach(), target, rule)[0]
