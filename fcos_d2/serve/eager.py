"""A `Predictor` as an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..predict import Predictor
from ..predict.arrays import as_arrays
from ..runtime import Detections

__all__ = ["Eager"]


class Eager:
    """What PyTorch finds, with the thresholds of the predictor."""

    name = "torch"

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.class_names: Sequence[str] = predictor.class_names
        self.thresholds: Mapping[str, float] = predictor.thresholds or {}

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        """For each (H, W, 3) uint8 RGB what it shows."""
        found = self.predictor.predict(pictures, len(pictures), "RGB")
        return [as_arrays(result["instances"]) for result in found]
