"""In which order and unit four numbers of a box are written, told from all boxes of a file by their likelihood.

Each reading of the numbers is a hypothesis: a row of `LAYOUTS` in a row of `UNITS`. Read rightly, boxes lie inside
their images, and some end exactly at a border; read wrongly, many reach beyond or have no size. The density of a box
is, axis by axis, uniform over all intervals inside the image, with a share that ends at a border; a share of boxes
reaches beyond with its centre inside, and a share is anything. These shares are not known and averaged over. Sizes and
places have no weight of their own, so large, small and centred objects look alike, and what no border tells is left to
the prior: that the file is written as its format says. (y1, x1, y2, x2 is no hypothesis: in shares of an image nothing
tells it from x first.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["LAYOUTS", "UNITS", "Reading", "Verdict", "judge", "to_pixels"]


@dataclass(frozen=True)
class Reading:
    """One way to read four numbers."""

    layout: str  # a key of `LAYOUTS`
    units: str  # a key of `UNITS`

    def __str__(self) -> str:
        return f"{LAYOUTS[self.layout].words} in {UNITS[self.units].words}"


@dataclass(frozen=True)
class _Layout:
    words: str
    weight: float  # how often files are written so by mistake, beside other mistakes
    corners: Callable[[np.ndarray], np.ndarray]  # (M, 4) as written -> x1, y1, x2, y2 in the same unit
    written: Callable[[np.ndarray], np.ndarray]  # the other way round


@dataclass(frozen=True)
class _Units:
    words: str
    weight: float
    whole: float | None  # what the side of an image is; None: its pixels


LAYOUTS = {
    "xywh": _Layout(
        "x, y, width, height", 1.0, lambda b: np.concatenate((b[:, :2], b[:, :2] + b[:, 2:]), 1),
        lambda c: np.concatenate((c[:, :2], c[:, 2:] - c[:, :2]), 1),
    ),
    "xyxy": _Layout("x1, y1, x2, y2", 1.0, lambda b: b, lambda c: c),
    "cxcywh": _Layout(
        "centre x, centre y, width, height", 1.0,
        lambda b: np.concatenate((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), 1),
        lambda c: np.concatenate(((c[:, :2] + c[:, 2:]) / 2, c[:, 2:] - c[:, :2]), 1),
    ),
}  # fmt: skip
UNITS = {
    "pixels": _Units("pixels", 1.0, None),
    "shares": _Units("shares of the image (0 to 1)", 1.0, 1.0),
    "percent": _Units("percent of the image (0 to 100)", 0.0, 100.0),  # read where a format states it, never guessed
}

_READINGS = [Reading(layout, units) for layout in LAYOUTS for units in UNITS]
_STATED = 0.99  # probability, before any box is seen, that a file is written as its format says
_STRAY = (0.001, 0.01, 0.05, 0.2, 0.5)  # shares of boxes that may be anything
_BEYOND = (0.001, 0.05, 0.4)  # shares of boxes that reach beyond their image, as boxes of hidden parts do
_AT_BORDER = 0.03  # share of intervals that end at one side of the image, at each
_TOUCH = 1.0  # pixels from a border that count as at it
_MOST = 4000  # boxes that are looked at; no more are needed
_TEMPER = 0.5  # boxes of one picture are not independent, so each tells half of what it would
_EXPLAINED = 0.8  # share of boxes that a reading has to place in or around their images
_SURE = math.log(1000.0)  # odds of a reading against the stated one before it is believed


@dataclass(frozen=True)
class Verdict:
    """What a file's boxes seem to be."""

    reading: Reading
    stated: Reading
    log_odds: float  # natural logarithm of the odds of the reading against the stated one; 0 where they are the same
    boxes: int  # different boxes that were looked at

    @property
    def confused(self) -> bool:
        """Whether the boxes are written otherwise than stated, beyond doubt."""
        return self.reading != self.stated and self.log_odds > _SURE

    @property
    def odds(self) -> str:
        """In words: "10^12 to 1"."""
        power = self.log_odds / math.log(10.0)
        return f"10^{min(power, 999):.0f} to 1" if power >= 6 else f"{math.exp(self.log_odds):,.0f} to 1"


def judge(boxes: np.ndarray, sizes: np.ndarray, stated: Reading = Reading("xywh", "pixels")) -> Verdict:
    """Say how boxes are written.

    Args:
        boxes: (M, 4) float64 x, y, width, height in pixels, as the reader of the format understood them.
        sizes: (M, 2) width and height of the image of each, pixels.
        stated: how the format says that they are written, by which the reader understood them.
    """
    fine = np.isfinite(boxes).all(1) & (sizes > 0).all(1) & (np.abs(boxes) < 1e9).all(1)
    known = np.unique(np.concatenate((boxes[fine], sizes[fine]), 1), axis=0)
    if len(known) > _MOST:
        known = known[np.random.default_rng(0).choice(len(known), _MOST, replace=False)]
    if not len(known):
        return Verdict(stated, stated, 0.0, 0)
    boxes, sizes = known[:, :4], known[:, 4:]
    numbers = LAYOUTS[stated.layout].written(LAYOUTS["xywh"].corners(boxes)) / _per_unit(stated, sizes)
    readings = [one for one in _READINGS if one == stated or UNITS[one.units].weight]
    weights = np.array([LAYOUTS[one.layout].weight * UNITS[one.units].weight for one in readings])
    is_stated = np.array([one == stated for one in readings])
    weights[is_stated] = 0.0
    prior = np.where(is_stated, _STATED, (1 - _STATED) * weights / weights.sum())
    evidence = np.array([_evidence(numbers, sizes, one) for one in readings])  # see there
    scores = np.log(prior) + evidence[:, 1]
    best, said = int(scores.argmax()), int(is_stated.argmax())
    # That boxes end at borders confirms, and proves nothing by itself; and what is believed must explain nearly all.
    if evidence[best, 0] <= evidence[said, 0] + 1 or evidence[best, 2] < _EXPLAINED:
        best = said
    return Verdict(readings[best], stated, float(scores[best] - scores[said]), len(known))


def to_pixels(boxes: np.ndarray, sizes: np.ndarray, verdict: Verdict) -> np.ndarray:
    """(M, 4) x, y, width, height in pixels of boxes that the reader understood as stated, read as the verdict says."""
    stated, reading = verdict.stated, verdict.reading
    numbers = LAYOUTS[stated.layout].written(LAYOUTS["xywh"].corners(boxes)) / _per_unit(stated, sizes)
    swapped = _per_unit(reading, sizes)
    return LAYOUTS["xywh"].written(LAYOUTS[reading.layout].corners(numbers) * swapped)


def _per_unit(reading: Reading, sizes: np.ndarray) -> np.ndarray:
    """(M, 4) pixels of one unit, for x, y, x, y."""
    whole = UNITS[reading.units].whole
    return np.tile(np.ones_like(sizes) if whole is None else sizes / whole, 2)


def _evidence(numbers: np.ndarray, sizes: np.ndarray, reading: Reading) -> tuple[float, float, float]:
    """Natural logarithms of the density of the numbers under a reading, without and with a say of the images' borders;
    and the share of boxes that are no strays.
    """
    side = UNITS[reading.units].whole
    whole = np.tile(sizes if side is None else np.full_like(sizes, side), 2)
    corners = LAYOUTS[reading.layout].corners(numbers) / whole  # shares of the image
    area = np.log(whole).sum(1)  # these are densities of the numbers as they are written
    stray = (0.5 / (1 + np.abs(corners)) ** 2).prod(1)
    middle, length = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    beyond = ((middle > 0) & (middle < 1) & (length > 0) & (length < 1)).all(1)

    def total(border: float) -> float:
        axes = [_intervals(corners[:, i], corners[:, i + 2], _TOUCH / sizes[:, i], border) for i in (0, 1)]
        inside = axes[0] * axes[1]
        likely = [
            np.log((1 - any_ - part) * inside + part * beyond + any_ * stray) - area
            for any_ in _STRAY for part in _BEYOND
        ]  # fmt: skip
        totals = _TEMPER * np.array([one.sum() for one in likely])
        return float(np.logaddexp.reduce(totals)) - math.log(len(totals))

    tall = _intervals(corners[:, 1], corners[:, 3], _TOUCH / sizes[:, 1], 0.0)
    known = beyond | (_intervals(corners[:, 0], corners[:, 2], _TOUCH / sizes[:, 0], 0.0) * tall > 0)
    return total(0.0), total(_AT_BORDER), float(known.mean())


def _intervals(low: np.ndarray, high: np.ndarray, touch: np.ndarray, border: float) -> np.ndarray:
    """Density of intervals in 0..1: 0 for those that reach beyond or have no length."""
    inside = (low >= -touch) & (high <= 1 + touch) & (high > low)
    ends = (np.abs(low) <= touch).astype(int) + (np.abs(high - 1) <= touch)
    return np.where(inside, 2 * (1 - 2 * border) + ends * border / (2 * touch), 0.0)
