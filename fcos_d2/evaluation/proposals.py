"""Recall of region proposals: AR@100 and AR@1000 (arXiv:1904.01355, Table 8), and recall over their number.

Each object is matched to one proposal, greedily from the highest IoU of all pairs on, as Detectron2's `COCOEvaluator`
and the original FCOS do, and the numbers are those of Detectron2, with one exception: an image for which nothing is
proposed counts. Detectron2 leaves it out, and its objects with it, which a generator that proposes little gains from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

__all__ = ["LIMITS", "Recall", "best_first", "matched", "shares_of"]

LIMITS = (100, 1000)
_CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SIZES = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}  # ends included
_IOUS = torch.arange(0.5, 0.95 + 1e-5, 0.05).numpy()


def best_first(proposals: Instances) -> Tensor:
    """(P, 4) boxes of the proposals for an image on the CPU, those of the highest objectness first."""
    order = proposals.objectness_logits.sort(descending=True, stable=True).indices
    return proposals.proposal_boxes.tensor[order].detach().to("cpu")


@dataclass(frozen=True)
class Recall:
    """How well proposals reach objects, crowd regions aside.

    Attributes:
        overlaps: (size, limit) -> (M,) float32 IoU of the M objects of that size with the proposals that the best
            `limit` of their images hold for them; 0 for none. Sizes: "" (all), "s", "m", "l" (small, medium, large).
        images: number of images.
    """

    overlaps: Mapping[tuple[str, int], np.ndarray]
    images: int

    @classmethod
    def of(
        cls, proposals: Iterable[tuple[Any, Tensor]], annotations: Iterable[Mapping[str, Any]],
        img_ids: Collection[Any] | None = None,
    ) -> Recall:  # fmt: skip
        """Match what was proposed for some images.

        Args:
            proposals: (id of the image, boxes as `best_first` gives them).
            annotations: COCO's: "image_id", "bbox" (xywh, pixels), and "area" and "iscrowd" where they are known.
            img_ids: of the images to look at; all by default.
        """
        objects: dict[Any, list[Mapping[str, Any]]] = {}
        for row in annotations:
            if not row.get("iscrowd", 0):
                objects.setdefault(row["image_id"], []).append(row)
        chosen = [(i, boxes) for i, boxes in proposals if img_ids is None or i in img_ids]
        keys = [(size, limit) for size in _SIZES for limit in LIMITS] + [("", limit) for limit in _CURVE]
        found: dict[tuple[str, int], list[np.ndarray]] = {key: [np.zeros(0, np.float32)] for key in keys}
        for number, boxes in chosen:
            rows = objects.get(number, [])
            truth = torch.tensor([row["bbox"] for row in rows], dtype=torch.float32).reshape(-1, 4)
            truth[:, 2:] += truth[:, :2]
            iou = pairwise_iou(Boxes(boxes[: max(_CURVE)].float()), Boxes(truth)).numpy()
            area = np.array([row.get("area", row["bbox"][2] * row["bbox"][3]) for row in rows], np.float64)
            for size, limit in found:
                least, most = _SIZES[size]
                found[size, limit].append(matched(iou[:limit, (least <= area) & (area <= most)]))
        return cls({key: np.concatenate(parts) for key, parts in found.items()}, len(chosen))

    def average(self, size: str = "", limit: int = LIMITS[0]) -> float:
        """Recall averaged over the IoU thresholds 0.5, 0.55, ..., 0.95, from 0 to 1; NaN where there is no object."""
        overlaps = self.overlaps[size, limit]
        return float((overlaps[:, None] >= _IOUS).mean()) if len(overlaps) else float("nan")

    def metrics(self) -> dict[str, float]:
        """AR@100, ARs@100, ARm@100, ARl@100, and the same @1000, from 0 to 100, as Detectron2's evaluator has them."""
        return {f"AR{size}@{limit}": 100 * self.average(size, limit) for limit in LIMITS for size in _SIZES}

    def curve(self) -> list[dict[str, float | int | None]]:
        """For 1, 2, 5, ..., 1000 proposals of each image: "AR", and "recall" at an IoU of 0.5, from 0 to 1."""
        rows: list[dict[str, float | int | None]] = []
        for limit in _CURVE:
            overlaps = self.overlaps["", limit]
            at_half = float((overlaps >= _IOUS[0]).mean()) if len(overlaps) else None
            average = self.average("", limit) if len(overlaps) else None
            rows.append({"proposals": limit, "AR": average, "recall": at_half})
        return rows


def matched(iou: np.ndarray) -> np.ndarray:
    """(P, M) IoU of proposals and objects -> (M,) that of each object with its own proposal, 0 without one.

    The pair of the highest IoU of all comes first; both are then taken.
    """
    left, found = iou.copy(), np.zeros(iou.shape[1], np.float32)
    for _ in range(min(iou.shape)):
        column = int(left.max(axis=0).argmax())
        row = int(left[:, column].argmax())
        found[column] = left[row, column]
        left[row] = left[:, column] = -1
    return found


def shares_of(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """`Recall.metrics` from 0 to 1, with sizes in words and None where there is no object."""
    words = {"": "AR", "s": "AR_small", "m": "AR_medium", "l": "AR_large"}
    named = {f"AR{size}@{limit}": f"{words[size]}@{limit}" for limit in LIMITS for size in _SIZES}
    return {named[name]: round(value / 100, 6) if value == value else None for name, value in metrics.items()}
