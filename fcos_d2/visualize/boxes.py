"""Boxes with labels, on a copy of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import FcosError
from .fonts import load_font, text_length, write
from .style import Color, class_color, class_name

__all__ = ["Drawable", "draw_boxes"]

Place = tuple[float, float, float, float]  # xyxy in pixels of the overlay
_OVERSAMPLING = 2  # strokes are drawn this much larger and reduced, which smooths them
_SMOOTHED = 1 << 23  # pixels up to which lines are smoothed, which takes 40 bytes for each


@dataclass(frozen=True)
class Drawable:
    """Boxes of one image."""

    boxes: Any  # (n, 4) xyxy pixels
    classes: Any  # (n,) class indices
    scores: Any = None  # (n,) in 0..1, or None

    @classmethod
    def of(cls, boxes: Any) -> Drawable:
        """From Detectron2's `Instances` with `gt_*` or `pred_*` fields, or a tuple of the fields here."""
        if isinstance(boxes, Drawable):
            return boxes
        if hasattr(boxes, "get_fields"):
            fields = boxes.get_fields()
            kind = "pred" if "pred_boxes" in fields else "gt"
            if f"{kind}_boxes" not in fields:
                raise FcosError(f"Instances to draw have neither 'pred_boxes' nor 'gt_boxes' but {sorted(fields)}.")
            return cls(fields[f"{kind}_boxes"].tensor, fields[f"{kind}_classes"], fields.get("scores"))
        return cls(*boxes)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Boxes (n, 4) float64, classes (n,) int64 and scores (n,) float64 or None, from tensors, arrays or lists."""

        def array(values: Any, kind: type) -> np.ndarray:
            values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
            return np.asarray(values, dtype=kind)

        boxes = array(self.boxes, np.float64).reshape(-1, 4)
        classes = array(self.classes, np.int64).reshape(-1)
        scores = None if self.scores is None else array(self.scores, np.float64).reshape(-1)
        if len(classes) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
            count = "" if scores is None else f" and {len(scores)} scores"
            raise FcosError(f"There are {len(boxes)} boxes to draw but {len(classes)} classes{count}.")
        return boxes, classes, scores


def draw_boxes(
    image: np.ndarray,
    boxes: Any,
    classes: Any,
    scores: Any = None,
    names: Sequence[str] | None = None,
    labels: bool = True,
    size: float = 1.0,
    tags: Sequence[str] | None = None,
    smooth: bool = True,
) -> np.ndarray:
    """Draw boxes with labelled chips on a copy of an image.

    Strokes and text grow with the image. A chip stands above its box, else inside or below it, where it does not
    cover another chip and never outside the image. Higher scores are drawn over lower ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes, classes, scores: as in `Drawable`; a box that is not finite is left out.
        names: names of the classes; a class without one is shown by its number.
        labels: whether chips are drawn.
        size: factor on the thickness of strokes and the height of text.
        tags: what is written before each score, such as the number of a track.
        smooth: whether lines of images that are not large are smoothed, which takes more memory.
    Returns:
        (H, W, 3) uint8 RGB.
    Raises:
        FcosError: the image is not (H, W, 3) uint8, or the lengths differ.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise FcosError(f"The image to draw on is {image.dtype} {image.shape}; it must be uint8 (height, width, 3).")
    boxes, classes, scores = Drawable(boxes, classes, scores).arrays()
    height, width = image.shape[:2]
    length = math.sqrt(height * width)
    stroke = max(1.6, length / 200 * size)
    scale = _OVERSAMPLING if smooth and height * width <= _SMOOTHED else 1
    font = load_font(round(scale * max(9.0, length / 42 * size)))

    picture = Image.fromarray(np.ascontiguousarray(image))
    overlay = Image.new("RGBA", (width * scale, height * scale), (0, 0, 0, 0)) if scale > 1 else picture
    pen = ImageDraw.Draw(overlay, "RGBA")
    ranks = np.argsort(scores if scores is not None else -(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")
    order = [row for row in ranks if np.isfinite(boxes[row]).all()]
    for row in order:
        _outline(pen, boxes[row], class_color(int(classes[row])), stroke, width, height, scale)
    taken = np.zeros((len(order), 4))
    chips: list[tuple[Place, str, int]] = []
    for row in reversed(order) if labels else ():  # the best score chooses its place first
        tag = f" {tags[row]}" if tags and tags[row] else ""
        text = class_name(int(classes[row]), names) + tag + ("" if scores is None else f" {scores[row]:.2f}")
        place = _place(font, text, boxes[row], stroke, overlay.size, scale, taken[: len(chips)])
        taken[len(chips)] = place
        chips.append((place, text, int(classes[row])))
    for place, text, label in reversed(chips):
        _chip(pen, font, place, text, class_color(label))
    if scale == 1:
        return np.array(overlay)
    overlay = overlay.resize((width, height), Image.Resampling.BOX)
    return np.asarray(Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")).copy()


def _outline(
    pen: ImageDraw.ImageDraw, box: np.ndarray, color: Color, stroke: float, width: int, height: int, scale: int
) -> None:
    """A rounded frame with a thin dark seam outside, so that it shows on any ground."""
    corners = np.clip(box.reshape(2, 2), 0, (width, height)) * scale
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    thick = max(1, round(stroke * scale))
    side = min(x1 - x0, y1 - y0)
    radius = min(2.2 * thick, side / 4) if side >= 8 else -1.0  # Pillow cannot round the corners of less
    pen.rounded_rectangle((x0 - 1, y0 - 1, x1, y1), radius + 1, outline=(0, 0, 0, 70), width=thick + 2)
    inner = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
    pen.rounded_rectangle(inner, max(0.0, radius), outline=(*color, 255), width=thick)


def _place(
    font: ImageFont.FreeTypeFont, text: str, box: np.ndarray, stroke: float, canvas: tuple[int, int], scale: int,
    taken: np.ndarray,
) -> Place:  # fmt: skip
    """Where a chip goes: the first place that covers none of the (n, 4) taken ones; else the least covered one."""
    ascent, descent = font.getmetrics()
    pad = max(2, round(font.size * 0.22))
    width, height = text_length(text, font) + 2 * pad, ascent + descent + max(1, pad // 2)
    x0, y0, x1, y1 = (float(value) * scale for value in box)
    edge = stroke * scale
    candidates = (
        (x0, y0 - height), (x0 + edge, y0 + edge), (x0, y1),
        (x1 - width, y0 - height), (x1 - width - edge, y1 - height), (x1, y0),
    )  # fmt: skip
    places: list[tuple[float, Place]] = []
    for position, (x, y) in enumerate(candidates):
        left, top = max(0.0, min(x, canvas[0] - width)), max(0.0, min(y, canvas[1] - height))
        place = (left, top, left + width, top + height)
        cover = _covered(place, taken)
        cover += (abs(left - x) + abs(top - y)) * 0.5 * height + position * 1e-3  # rather not moved from the box
        places.append((cover, place))
    return min(places)[1]


def _covered(place: Place, others: np.ndarray) -> float:
    """Area that a place shares with others, (n, 4)."""
    sides = np.minimum(others[:, 2:], place[2:]) - np.maximum(others[:, :2], place[:2])
    return float(sides.clip(0).prod(1).sum())


def _chip(pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, place: Place, text: str, color: Color) -> None:
    """A label in black or white, whichever reads better on the color."""
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = (20, 20, 20) if luminance > 140 else (255, 255, 255)
    middle = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
    pen.rounded_rectangle(place, font.size * 0.22, fill=(*color, 235))
    write(pen, middle, text, font, ink, "mm")
