"""How boxes are written is told from them: right in 99 of 100 sets, and never said of sets that are right."""

from __future__ import annotations

import numpy as np
import pytest

from fcos_d2.data.audit.confusion import LAYOUTS, UNITS, Reading, judge, to_pixels

STATED = Reading("xywh", "pixels")
SIZES = ((640, 480), (480, 640), (1920, 1080), (512, 512), (800, 600), (4000, 3000))


def share(rng, low, high, count):
    """Sides of boxes as shares of the picture, as many in each octave."""
    return np.exp(rng.uniform(np.log(low), np.log(high), (count, 2)))


def anywhere(rng, sides):
    return sides / 2 + rng.uniform(0, 1, sides.shape) * (1 - sides)


def people(rng, count):
    high = np.exp(rng.uniform(np.log(0.1), np.log(0.9), count))
    return np.stack((high * rng.uniform(0.3, 0.5, count), high), 1)


# Kind of data set -> sides and middles, shares of the picture.
KINDS = {
    "all sizes": lambda rng, n: (s := share(rng, 0.03, 0.9, n), anywhere(rng, s)),
    "large": lambda rng, n: (s := rng.uniform(0.4, 1, (n, 2)), anywhere(rng, s)),
    "centred": lambda rng, n: (s := rng.uniform(0.1, 0.6, (n, 2)), rng.normal(0.5, 0.1, (n, 2)).clip(s / 2, 1 - s / 2)),
    "lines of text": lambda rng, n: (s := rng.uniform((0.5, 0.01), (0.9, 0.04), (n, 2)), anywhere(rng, s)),
    "people": lambda rng, n: (s := people(rng, n), anywhere(rng, s)),
    "cut at borders": lambda rng, n: (share(rng, 0.05, 0.7, n), rng.uniform(0, 1, (n, 2))),
    "in the upper third": lambda rng, n: (s := rng.uniform(0.02, 0.15, (n, 2)), anywhere(rng, s) * (1, 0.4)),
}  # fmt: skip
# Kinds in which a wrong reading is near; they are right, so nothing may be said of them.
MORE = {
    "small": lambda rng, n: (s := share(rng, 0.01, 0.08, n), anywhere(rng, s)),
    "one place": lambda rng, n: (np.full((n, 2), 0.5), rng.normal(0.5, 0.005, (n, 2))),
    "one box": lambda rng, n: (np.full((n, 2), 0.5), np.full((n, 2), 0.5)),
    "half hidden": lambda rng, n: (share(rng, 0.05, 0.7, n), rng.uniform(0, 1, (n, 2))),
    "in a corner": lambda rng, n: (rng.uniform(0.02, 0.1, (n, 2)), 0.05 + rng.uniform(0, 0.3, (n, 2))),
    "few": lambda rng, n: (s := share(rng, 0.03, 0.9, 6), anywhere(rng, s)),
}  # fmt: skip


def made(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, 4) x, y, width, height in pixels and (M, 2) sizes of pictures."""
    rng = np.random.default_rng([seed, len(kind)])
    sides, middles = {**KINDS, **MORE}[kind](rng, int(rng.integers(60, 300)))
    mixed = (
        rng.integers(len(SIZES), size=len(sides))
        if rng.random() < 0.5
        else np.full(len(sides), rng.integers(len(SIZES)))
    )
    sizes = np.array(SIZES, float)[mixed]
    low, high = middles - sides / 2, middles + sides / 2
    if kind != "half hidden":
        low, high = low.clip(0, 1), high.clip(0, 1)
    boxes = np.concatenate((low * sizes, (high - low) * sizes), 1)
    if rng.random() < 0.5:
        boxes = boxes.round(int(rng.integers(0, 3)))
    fine = (boxes[:, 2:] > 0).all(1)
    return boxes[fine], sizes[fine]


def as_written(boxes, sizes, reading):
    """What a file holds whose boxes are written in another way."""
    whole = UNITS[reading.units].whole
    numbers = LAYOUTS[reading.layout].written(LAYOUTS["xywh"].corners(boxes))
    return numbers if whole is None else (numbers / np.tile(sizes / whole, 2)).round(6)


CONFUSED = [
    Reading(layout, units)
    for layout in LAYOUTS
    for units in ("pixels", "shares")
    if (layout, units) != ("xywh", "pixels")
]


def test_99_of_100_sets_are_told_right() -> None:
    wrong, sets = [], 0
    for seed in range(5):
        for kind in KINDS:
            boxes, sizes = made(kind, seed)
            for reading in CONFUSED:
                numbers = as_written(boxes, sizes, reading)
                verdict = judge(numbers, sizes)
                sets += 1
                if verdict.reading != reading or not verdict.confused:
                    wrong.append((kind, seed, str(reading), str(verdict.reading)))
                else:
                    assert np.abs(to_pixels(numbers, sizes, verdict) - boxes).max() < 0.02
    assert sets == 175 and len(wrong) <= sets / 100, wrong


@pytest.mark.parametrize("kind", {**KINDS, **MORE})
def test_no_alarm_on_sets_that_are_right(kind: str) -> None:
    for seed in range(15):
        boxes, sizes = made(kind, seed)
        verdict = judge(boxes, sizes)
        assert not verdict.confused and verdict.reading == STATED, (seed, verdict)


@pytest.mark.parametrize("side", [32, 100, 1000])
def test_no_alarm_on_small_pictures_and_on_those_in_which_units_agree(side: int) -> None:
    rng = np.random.default_rng(side)
    sides = np.maximum((share(rng, 0.05, 0.6, 300) * side).round(), 1)
    boxes = np.concatenate(((rng.uniform(0, 1, (300, 2)) * (side - sides)).round(), sides), 1)
    assert not judge(boxes, np.full((300, 2), float(side))).confused


def test_formats_that_state_another_way() -> None:
    """A YOLO file is read as centres and shares; where it holds corners, or pixels, that is told of the boxes read."""
    stated = Reading("cxcywh", "shares")
    boxes, sizes = made("all sizes", 1)
    assert not judge(boxes, sizes, stated).confused
    for reading in (Reading("xyxy", "shares"), Reading("cxcywh", "pixels"), Reading("xywh", "shares")):
        numbers = as_written(boxes, sizes, reading)
        read = LAYOUTS["xywh"].written(LAYOUTS["cxcywh"].corners(numbers) * np.tile(sizes, 2))
        verdict = judge(read, sizes, stated)
        assert verdict.confused and verdict.reading == reading, (reading, verdict)
        assert np.abs(to_pixels(read, sizes, verdict) - boxes).max() < 0.02


def test_nothing_and_nonsense() -> None:
    assert not judge(np.zeros((0, 4)), np.zeros((0, 2))).confused
    nothing = np.full((20, 4), np.nan)
    assert judge(nothing, np.full((20, 2), 100.0)).boxes == 0
    junk = np.random.default_rng(0).normal(0, 1e5, (200, 4))
    assert not judge(junk, np.full((200, 2), 500.0)).confused


def test_the_odds_grow_with_the_boxes() -> None:
    boxes, sizes = made("all sizes", 3)
    numbers = as_written(boxes, sizes, Reading("xyxy", "pixels"))
    odds = [judge(numbers[:count], sizes[:count]).log_odds for count in (2, 10, 40)]
    assert odds[0] < odds[1] < odds[2] and "to 1" in judge(numbers, sizes).odds
