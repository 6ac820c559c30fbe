"""A `Predictor` as an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..predict import Predictor

__all__ = ["Eager", "Seen"]


@dataclass(frozen=True)
class Seen:
    """Boxes (n, 4) float32 xyxy in pixels of the picture, scores (n,) float32, classes (n,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Eager:
    """What PyTorch finds, with the thresholds of the predictor."""

    name = "torch"

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.class_names: Sequence[str] = predictor.class_names
        self.thresholds: Mapping[str, float] = predictor.thresholds or {}

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Seen]:
        """For each (H, W, 3) uint8 RGB what it shows."""
        found = [result["instances"].to("cpu") for result in self.predictor.predict(pictures, len(pictures), "RGB")]
        return [Seen(x.pred_boxes.tensor.numpy(), x.scores.numpy(), x.pred_classes.numpy()) for x in found]
