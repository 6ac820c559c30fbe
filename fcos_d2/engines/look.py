"""How an engine looks at images for a detection job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..predict.look import Pixels, tags
from ..runtime import Detections, described
from ..visualize import draw_boxes
from .choice import Engine

__all__ = ["ByEngine"]


@dataclass(frozen=True, kw_only=True)
class ByEngine(Pixels):
    """By an engine; see `predict.look.Look`."""

    engine: Engine

    def together(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return self.engine.detect(images)

    def draw(self, image: np.ndarray, found: Detections) -> np.ndarray:
        columns = (found.boxes, found.classes, found.scores, self.engine.class_names)
        return draw_boxes(image, *columns, tags=tags(found))

    def describe(self, found: Detections) -> list[dict[str, Any]]:
        return described(found, self.engine.class_names)
