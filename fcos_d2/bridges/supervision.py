"""Detections for supervision (Roboflow): its trackers, zones, annotators and exporters work with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..libraries import require_library
from ..visualize import Drawable

if TYPE_CHECKING:
    import supervision

__all__ = ["to_supervision"]


def to_supervision(found: Any, class_names: Sequence[str]) -> supervision.Detections:
    """Detections of one image.

    Args:
        found: what `Predictor` gives as "instances", or (boxes, classes, scores), see `visualize.Drawable`.
        class_names: of the detector, `predictor.class_names`.
    Returns:
        `supervision.Detections`: xyxy in pixels of the image, confidence, class_id, and data["class_name"].
    Raises:
        FcosError: supervision is not installed.
    """
    require_library("supervision", "to_supervision")
    import supervision

    boxes, classes, scores = Drawable.of(found).arrays()
    names = np.array([class_names[label] for label in classes], dtype=str)
    return supervision.Detections(
        xyxy=boxes.astype(np.float32),
        confidence=None if scores is None else scores.astype(np.float32),
        class_id=classes,
        data={"class_name": names},
    )
