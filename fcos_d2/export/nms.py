"""Suppression in graphs: one operator of ONNX for all classes of all images, or torchvision's where PyTorch runs it."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

__all__ = ["suppress_in_onnx", "suppress_in_torch"]

_FAR = 2.0**24  # pixels beyond which all is one place


@torch.library.custom_op("fcos_d2::nms_by_class", mutates_args=())
def nms_by_class(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """ONNX's NonMaxSuppression of (N, P, 4) boxes and (N, K, P) scores: (S, 3) rows image, class, box."""
    rows = []
    for image, by_class in enumerate(scores):
        for label, of_class in enumerate(by_class):
            there = (of_class > 0).nonzero().squeeze(1)
            kept = there[nms(boxes[image, there].double(), of_class[there].double(), threshold)]
            rows.append(torch.stack((torch.full_like(kept, image), torch.full_like(kept, label), kept), dim=1))
    return torch.cat(rows)


@nms_by_class.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((kept, 3), dtype=torch.int64)


def suppress_in_onnx(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, num_classes: int) -> Tensor:
    """See `graphs.Suppress`."""
    mine = classes[:, None, :] == torch.arange(num_classes, device=classes.device)[None, :, None]
    by_class = torch.where(mine, scores[:, None, :].clamp(min=0.0), 0.0)
    image, _, row = torch.ops.fcos_d2.nms_by_class(boxes, by_class, threshold).unbind(1)
    number, most = scores.shape
    kept = torch.zeros(number * most, dtype=torch.float32, device=scores.device)
    kept = kept.scatter(0, image * most + row, torch.ones_like(image, dtype=torch.float32))
    return kept.view(number, most) > 0


def suppress_in_torch(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, num_classes: int) -> Tensor:
    """See `graphs.Suppress`; groups are moved apart in float64, which rounds no coordinate over 1e-5."""
    number, most = scores.shape
    rows = (scores.flatten() > 0).nonzero().squeeze(1)
    group = torch.arange(number, device=scores.device)[:, None] * num_classes + classes
    there = boxes.flatten(0, 1)[rows].double().clamp(-_FAR, _FAR)
    ends = torch.cat((there.flatten(), there.new_zeros(1)))  # also without a box
    apart = (ends.amax() - ends.amin() + 1).ceil()
    kept = nms(there + (group.flatten()[rows] * apart)[:, None], scores.flatten()[rows].double(), threshold)
    mask = torch.zeros(number * most, dtype=torch.float32, device=scores.device)
    mask = mask.scatter(0, rows[kept], torch.ones_like(kept, dtype=torch.float32))
    return mask.view(number, most) > 0
