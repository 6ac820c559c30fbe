"""Pictures of detections and of training, drawn without a display."""

from __future__ import annotations

import colorsys
import functools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import FcosError

__all__ = ["Drawable", "class_color", "draw_boxes", "draw_comparison", "draw_curves"]

# Told apart on photographs and from each other; further classes continue by the golden angle.
_PALETTE = (
    (255, 87, 51), (0, 168, 255), (46, 204, 64), (255, 195, 0), (177, 13, 201), (0, 206, 186),
    (255, 65, 149), (127, 140, 255), (163, 228, 53), (128, 128, 0), (0, 104, 130), (141, 85, 60),
)  # fmt: skip
_OVERSAMPLING = 2  # strokes are drawn this much larger and reduced, which smooths them
_INK, _FAINT, _PAPER, _TILE_EDGE = (33, 37, 41), (108, 117, 125), (255, 255, 255), (222, 226, 230)


@dataclass(frozen=True)
class Drawable:
    """Boxes of one image."""

    boxes: Any  # (n, 4) xyxy pixels
    classes: Any  # (n,) class indices
    scores: Any = None  # (n,) in 0..1, or None


def class_color(index: int) -> tuple[int, int, int]:
    """RGB in 0..255 of a class index; always the same for the same index."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    hue = (index * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.6, 0.95)[index % 3], (0.95, 1.0, 0.75)[index // 3 % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: np.ndarray,
    boxes: Any,
    classes: Any,
    scores: Any = None,
    names: Sequence[str] | None = None,
    labels: bool = True,
    size: float = 1.0,
) -> np.ndarray:
    """Draw boxes with labelled chips on a copy of an image.

    Strokes and text grow with the image. A chip stands above its box, else inside or below it, where it does not
    cover another chip and never outside the image. Higher scores are drawn over lower ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) xyxy pixels; n may be 0. A box that is not finite is left out.
        classes: (n,) class indices.
        scores: (n,) in 0..1, shown beside the name; None for ground truth.
        names: names of the classes; a class without one is shown by its number.
        labels: whether chips are drawn.
        size: factor on the thickness of strokes and the height of text.
    Returns:
        (H, W, 3) uint8 RGB.
    Raises:
        FcosError: the image is not (H, W, 3) uint8, or the lengths differ.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise FcosError(f"The image to draw on is {image.dtype} {image.shape}; it must be uint8 (height, width, 3).")
    boxes, classes, scores = _arrays(Drawable(boxes, classes, scores))
    height, width = image.shape[:2]
    length = math.sqrt(height * width)
    stroke = max(1.6, length / 200 * size)
    font = _font(round(_OVERSAMPLING * max(9.0, length / 42 * size)))

    overlay = Image.new("RGBA", (width * _OVERSAMPLING, height * _OVERSAMPLING), (0, 0, 0, 0))
    pen = ImageDraw.Draw(overlay)
    order = np.argsort(scores, kind="stable") if scores is not None else np.argsort(-_areas(boxes), kind="stable")
    order = [row for row in order if np.isfinite(boxes[row]).all()]
    for row in order:
        _outline(pen, boxes[row], class_color(int(classes[row])), stroke, width, height)
    taken: list[tuple[float, float, float, float]] = []
    chips = []
    for row in reversed(order) if labels else ():  # the best score chooses its place first
        text = _class_name(int(classes[row]), names)
        text += f" {scores[row]:.2f}" if scores is not None else ""
        chips.append((_place(font, text, boxes[row], stroke, overlay.size, taken), text, int(classes[row])))
        taken.append(chips[-1][0])
    for place, text, label in reversed(chips):
        _chip(pen, font, place, text, class_color(label))
    overlay = overlay.resize((width, height), Image.Resampling.BOX)
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGBA")
    return np.asarray(Image.alpha_composite(picture, overlay).convert("RGB")).copy()


def draw_comparison(
    rows: Iterable[tuple[np.ndarray, Any, Any]],
    names: Sequence[str],
    path: str | Path,
    title: str = "Ground truth and detections",
    min_score: float = 0.5,
    tile: int = 380,
) -> Path:
    """Write a PNG with ground truth beside detections, for several images.

    Args:
        rows: (image, ground truth, detections) each; image (H, W, 3) uint8 RGB; the boxes as a `Drawable`, a tuple of
            its fields, or Detectron2 `Instances` with `gt_*` or `pred_*` fields. At least one row.
        names: names of the classes.
        path: the PNG; its folder is made.
        title: heading of the picture.
        min_score: detections below are not drawn.
        tile: width of each image in the picture, pixels.
    Returns:
        The path.
    """
    rows = [(np.asarray(image), _drawable(truth), _drawable(found)) for image, truth, found in rows]
    if not rows:
        raise FcosError("There is no image to draw a comparison of.")
    pairs = 2 if len(rows) > 1 else 1
    gap, margin, between = 6, 28, 30
    rendered, present = [], set()
    for image, truth, found in rows:
        sides = []
        for side in (truth, found):
            boxes, classes, scores = _arrays(side)
            keep = np.isfinite(boxes).all(1) & (scores >= min_score if scores is not None else True)
            present.update(int(label) for label in classes[keep])
            sides.append(
                _tile(image, boxes[keep], classes[keep], None if scores is None else scores[keep], names, tile)
            )
        rendered.append(sides)

    lines = [rendered[first : first + pairs] for first in range(0, len(rendered), pairs)]
    width = 2 * margin + pairs * (2 * tile + gap) + (pairs - 1) * between
    heading, caption, body = _font(26, bold=True), _font(16, bold=True), _font(15)
    legend = _legend(sorted(present), names, body, width - 2 * margin)
    heights = [max(side.height for pair in line for side in pair) for line in lines]
    height = margin + 44 + 30 + sum(heights) + gap * 2 * (len(lines) - 1) + 16 + legend.height + margin - 8
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((margin, margin - 6), title, fill=_INK, font=heading)
    top = margin + 44
    for pair in range(pairs):
        left = margin + pair * (2 * tile + gap + between)
        pen.text((left, top), "ground truth", fill=_FAINT, font=caption)
        found_text = (
            f"detections (score ≥ {min_score:g})" if any(row[2].scores is not None for row in rows) else "detections"
        )
        pen.text((left + tile + gap, top), found_text, fill=_FAINT, font=caption)
    top += 30
    for line, line_height in zip(lines, heights, strict=True):
        for pair, sides in enumerate(line):
            left = margin + pair * (2 * tile + gap + between)
            for position, picture in enumerate(sides):
                x, y = left + position * (tile + gap), top + (line_height - picture.height) // 2
                page.paste(picture, (x, y))
                pen.rectangle((x, y, x + picture.width - 1, y + picture.height - 1), outline=_TILE_EDGE)
        top += line_height + gap * 2
    page.paste(legend, (margin, top + 4))
    return _save(path, lambda file: page.save(file, format="PNG", optimize=True))


def draw_curves(metrics: str | Path | Iterable[Mapping[str, Any]], path: str | Path, title: str = "Training") -> Path:
    """Write a PNG with losses, learning rate and AP over the iterations.

    Args:
        metrics: lines of Detectron2's `JSONWriter` (`metrics.json`) or the file itself; every key may be missing, the
            last line may be cut off, and a resumed training overrules the iterations that it repeats.
        path: the PNG; its folder is made.
        title: heading of the picture.
    Returns:
        The path.
    Raises:
        FcosError: the metrics file is missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    points = _by_iteration(_read_lines(metrics) if isinstance(metrics, (str, Path)) else metrics)
    losses = sorted({key for row in points.values() for key in row if "/" not in key and key.startswith("loss_")})
    panels = (
        ("loss", {"total_loss": "total", **{key: _loss_name(key) for key in losses}}, None),
        ("learning rate", {"lr": "learning rate"}, None),
        ("AP on the validation images", {"bbox/AP": "AP", "bbox/AP50": "AP50", "bbox/AP75": "AP75"}, (0, 100)),
    )
    figure = Figure(figsize=(13.5, 4.0), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, fontweight="bold", color=_hex(_INK), x=0.008, ha="left")
    for axes, (name, keys, limits) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.set_title(name, fontsize=11, color=_hex(_INK), loc="left")
        axes.set_xlabel("iteration", color=_hex(_FAINT))
        drawn, highest = 0, 0.0
        for key, label in keys.items():
            curve = [(step, row[key]) for step, row in points.items() if _is_finite(row.get(key))]
            if not curve:
                continue
            x, y = zip(*curve, strict=True)
            color = _hex(_INK if key == "total_loss" else class_color((1, 0, 2, 4, 3, 5, 6)[drawn % 7]))
            sparse = len(curve) <= 25
            axes.plot(x, y, color=color, label=label, linewidth=1.8, marker="o" if sparse else None, markersize=4)
            if limits:
                axes.annotate(
                    f"{y[-1]:.1f}", (x[-1], y[-1]), xytext=(5, 0), textcoords="offset points", va="center",
                    fontsize=9, color=color, annotation_clip=False,
                )  # fmt: skip
            drawn, highest = drawn + 1, max(highest, *y)
        axes.grid(True, color=_hex(_TILE_EDGE), linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_hex(_TILE_EDGE))
        axes.tick_params(colors=_hex(_FAINT), labelsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if not drawn:
            axes.text(0.5, 0.5, "nothing recorded yet", transform=axes.transAxes, ha="center", color=_hex(_FAINT))
            axes.set_xticks([])
            axes.set_yticks([])
            continue
        if limits:
            axes.set_ylim(*limits)
        else:
            axes.set_ylim(0, highest * 1.08 or 1.0)
        if name == "learning rate":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.legend(frameon=False, fontsize=9, loc="lower right" if limits else "upper right")
    return _save(path, lambda file: figure.savefig(file, format="png"))


# Boxes and chips


def _drawable(boxes: Any) -> Drawable:
    """Accept Detectron2's `Instances` and plain tuples, too."""
    if isinstance(boxes, Drawable):
        return boxes
    if hasattr(boxes, "get_fields"):
        fields = boxes.get_fields()
        kind = "pred" if "pred_boxes" in fields else "gt"
        if f"{kind}_boxes" not in fields:
            raise FcosError(f"Instances to draw have neither 'pred_boxes' nor 'gt_boxes' but {sorted(fields)}.")
        return Drawable(fields[f"{kind}_boxes"].tensor, fields[f"{kind}_classes"], fields.get("scores"))
    return Drawable(*boxes)


def _arrays(side: Drawable) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Boxes (n, 4) float64, classes (n,) int64 and scores (n,) float64 or None, from tensors, arrays or lists."""

    def array(values: Any, kind: type) -> np.ndarray:
        values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
        return np.asarray(values, dtype=kind)

    boxes = array(side.boxes, np.float64).reshape(-1, 4)
    classes = array(side.classes, np.int64).reshape(-1)
    scores = None if side.scores is None else array(side.scores, np.float64).reshape(-1)
    if len(classes) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
        count = "" if scores is None else f" and {len(scores)} scores"
        raise FcosError(f"There are {len(boxes)} boxes to draw but {len(classes)} classes{count}.")
    return boxes, classes, scores


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _outline(
    pen: ImageDraw.ImageDraw, box: np.ndarray, color: tuple[int, int, int], stroke: float, width: int, height: int
) -> None:
    """A rounded frame with a thin dark seam outside, so that it shows on any ground."""
    limits = (width, height, width, height)
    x0, y0, x1, y1 = (float(np.clip(value, 0, limit)) * _OVERSAMPLING for value, limit in zip(box, limits, strict=True))
    x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    thick = max(1, round(stroke * _OVERSAMPLING))
    radius = min(2.2 * thick, (x1 - x0) / 4, (y1 - y0) / 4)
    pen.rounded_rectangle((x0 - 1, y0 - 1, x1, y1), radius + 1, outline=(0, 0, 0, 70), width=thick + 2)
    inner = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
    pen.rounded_rectangle(inner, radius, outline=(*color, 255), width=thick)


def _place(
    font: ImageFont.FreeTypeFont,
    text: str,
    box: np.ndarray,
    stroke: float,
    canvas: tuple[int, int],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Where a chip goes: the first place that covers no other chip; the least covered one if there is none."""
    ascent, descent = font.getmetrics()
    pad = max(2, round(font.size * 0.22))
    width, height = font.getlength(text) + 2 * pad, ascent + descent + max(1, pad // 2)
    x0, y0, x1, y1 = (float(value) * _OVERSAMPLING for value in box)
    edge = stroke * _OVERSAMPLING
    candidates = (
        (x0, y0 - height), (x0 + edge, y0 + edge), (x0, y1),
        (x1 - width, y0 - height), (x1 - width - edge, y1 - height), (x1, y0),
    )  # fmt: skip
    best, best_cover = (0.0, 0.0, width, height), math.inf
    for position, (x, y) in enumerate(candidates):
        left, top = max(0.0, min(x, canvas[0] - width)), max(0.0, min(y, canvas[1] - height))
        place = (left, top, left + width, top + height)
        cover = sum(_overlap(place, other) for other in taken)
        cover += (abs(left - x) + abs(top - y)) * 0.5 * height + position * 1e-3  # rather not moved from the box
        if cover < best_cover:
            best, best_cover = place, cover
    return best


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _chip(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    place: tuple[float, float, float, float],
    text: str,
    color: tuple[int, int, int],
) -> None:
    pen.rounded_rectangle(place, font.size * 0.22, fill=(*color, 235))
    pen.text(
        ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2), text, fill=_on(color), font=font, anchor="mm"
    )  # fmt: skip


def _on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on the color."""
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return (20, 20, 20) if luminance > 140 else (255, 255, 255)


def _class_name(label: int, names: Sequence[str] | None) -> str:
    name = str(names[label]) if names is not None and 0 <= label < len(names) else f"class {label}"
    return name if len(name) <= 24 else name[:23] + "…"


# Pages


def _tile(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray | None,
    names: Sequence[str],
    width: int,
) -> Image.Image:
    """The image at the width of a tile, then boxes on it, so that all tiles have strokes and text of one size."""
    scale = width / image.shape[1]
    if image.shape[0] * scale > 1.6 * width:  # a tall one fits its height
        scale = 1.6 * width / image.shape[0]
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)
    factor = np.array([size[0] / image.shape[1], size[1] / image.shape[0]] * 2)
    even = 0.9 * width / math.sqrt(size[0] * size[1])  # undoes the growth with the image, for tiles of all shapes
    drawn = draw_boxes(np.asarray(resized), boxes * factor, classes, scores, names, size=even)
    return Image.fromarray(drawn)


def _legend(present: Sequence[int], names: Sequence[str], font: ImageFont.FreeTypeFont, width: int) -> Image.Image:
    """Colored dots and names of the classes in the picture, in as many lines as it takes."""
    line, x, y = 26, 0.0, 0
    places = []
    for label in present:
        text = _class_name(label, names)
        length = 20 + font.getlength(text) + 24
        if x + length > width and x > 0:
            x, y = 0.0, y + line
        places.append((x, y, text, class_color(label)))
        x += length
    page = Image.new("RGB", (width, y + line), _PAPER)
    pen = ImageDraw.Draw(page)
    for x, y, text, color in places:
        pen.rounded_rectangle((x, y + 6, x + 13, y + 19), 3, fill=color)
        pen.text((x + 20, y + 12.5), text, fill=_INK, font=font, anchor="lm")
    return page


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so that no system has to have it."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _save(path: str | Path, write: Any) -> Path:
    """Write a file through a temporary one, so that a viewer never meets half of it."""
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        write(file)
    os.replace(temporary, path)
    return path


# Metrics


def _read_lines(path: str | Path) -> list[Mapping[str, Any]]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise FcosError(f"The metrics file {path} cannot be read: {error.strerror or error}.") from error
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # an interrupted training leaves a cut line
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _by_iteration(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Merge the lines of each iteration, in order; where iterations go back, the later lines count."""
    points: dict[int, dict[str, Any]] = {}
    last = -1
    for row in rows:
        if not _is_finite(row.get("iteration")):
            continue
        step = int(row["iteration"])
        if step < last:
            points = {known: values for known, values in points.items() if known < step}
        points.setdefault(step, {}).update(row)
        last = step
    return points


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _loss_name(key: str) -> str:
    short = key.removeprefix("loss_").removeprefix("fcos_")
    return {"cls": "classification", "loc": "box", "ctr": "centerness", "iou": "IoU quality"}.get(short, short)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
