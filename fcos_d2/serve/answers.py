"""What was found in a picture, as the data and the picture that go out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..runtime import Detections, described
from ..visualize import draw_boxes
from ..webpage import jpeg
from .waiting import Boxes, Found

__all__ = ["above", "as_data", "as_jpeg"]

_LONGEST = 65_500  # pixels of a side that a JPEG can have


def above(found: Boxes, threshold: float) -> np.ndarray:
    """(n,) rows of what has a higher score, best first."""
    order = np.argsort(-found.scores, kind="stable")
    return order[found.scores[order] > threshold]


def as_data(found: Found, rows: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Detections as `fcos detect --json` has them, and the seconds that they took."""
    seen = found.boxes
    return {
        "detections": described(
            Detections(seen.boxes[rows], seen.scores[rows], seen.classes[rows]), names, labels=True
        ),
        "seconds": {"waited": round(found.waited, 4), "detected": round(found.took, 4)},
        "batch": found.batch,
    }


def as_jpeg(picture: np.ndarray, found: Boxes, rows: np.ndarray, names: Sequence[str]) -> bytes:
    """The picture with the boxes, as a JPEG file."""
    drawn = draw_boxes(picture, found.boxes[rows], found.classes[rows], found.scores[rows], names)
    image = Image.fromarray(drawn)
    image.thumbnail((_LONGEST, _LONGEST))
    return jpeg(image, 90)
