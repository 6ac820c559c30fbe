"""How an engine looks at images for a detection job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FcosError
from ..predict.look import Pixels, tags
from ..runtime import Detections, described
from ..visualize import draw_boxes
from .choice import Engine

__all__ = ["ByEngine"]


@dataclass(frozen=True, kw_only=True)
class ByEngine(Pixels):
    """Each image as a whole; see `predict.look.Look`."""

    engine: Engine

    def find(self, images: Sequence[np.ndarray], tell: Callable[[int, int], None]) -> list[Detections | FcosError]:
        try:
            return list(self.engine.detect(images))
        except FcosError as error:
            if len(images) == 1:
                return [error]
            return [found for image in images for found in self.find([image], tell)]

    def draw(self, image: np.ndarray, found: Detections) -> np.ndarray:
        columns = (found.boxes, found.classes, found.scores, self.engine.class_names)
        return draw_boxes(image, *columns, tags=tags(found))

    def describe(self, found: Detections) -> list[dict[str, Any]]:
        return described(found, self.engine.class_names)
