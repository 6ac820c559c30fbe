"""Detections of one image as NumPy arrays, and as Detectron2's `Instances`."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from ..runtime import Detections

__all__ = ["as_arrays", "from_arrays"]


def as_arrays(instances: Instances) -> Detections:
    """`Instances` with pred_boxes, scores, pred_classes and, where there are some, `track_ids`, on any device."""
    found = instances.to("cpu")
    tracks = found.track_ids if found.has("track_ids") else None
    boxes = np.asarray(found.pred_boxes.tensor, np.float32).reshape(-1, 4)
    return Detections(boxes, found.scores.numpy(), found.pred_classes.numpy(), tracks)


def from_arrays(found: Detections, size: tuple[int, int]) -> Instances:
    """`Instances` of an image of (height, width), on the CPU."""
    boxes = Boxes(torch.from_numpy(np.array(found.boxes, np.float32)))
    scores, classes = (torch.from_numpy(np.array(x)) for x in (found.scores, found.classes))
    return Instances(size, pred_boxes=boxes, scores=scores, pred_classes=classes)
