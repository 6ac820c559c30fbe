"""What `fcos explain` draws: detections, their locations, what they suppressed, what was missed."""

from __future__ import annotations

import numpy as np

from fcos_d2.visualize.explanation import Absent, Mark, draw_explanation
from fcos_d2.visualize.style import class_color

NAMES = ("cat", "dog")
GROUND = np.full((960, 1280, 3), 128, np.uint8)  # large enough to be drawn on as it is
BOX, OTHER = [200, 200, 600, 500], [240, 220, 640, 520]


def drawn(marks: list[Mark] = [], absent: list[Absent] = []) -> np.ndarray:  # noqa: B006
    return draw_explanation(GROUND, marks, absent, NAMES)


def near(pixel: np.ndarray, label: int) -> bool:
    return bool(np.abs(pixel.astype(int) - class_color(label)).max() < 40)


def test_the_location_is_a_dot() -> None:
    page, plain = drawn([Mark(BOX, 1, 0.9, [444, 333])]), drawn([Mark(BOX, 1, 0.9, [-50, -50])])
    changed = np.argwhere((page != plain).any(axis=2))
    assert near(page[333, 444], 1) and np.abs(changed - [333, 444]).max() < 10 and (GROUND == 128).all()


def test_what_was_suppressed_is_thinner_than_what_is_reported() -> None:
    mark = Mark(BOX, 0, 0.9, [400, 350], [OTHER])
    page, plain = drawn([mark]), drawn([Mark(BOX, 0, 0.9, [400, 350])])
    assert (page[300, 630:650] != plain[300, 630:650]).any(axis=1).sum() == 1  # its right side, a pixel wide
    assert (page[300, 190:210] != 128).any(axis=1).sum() > 1  # the left side of the detection
    assert (page[300, 460:590] == 128).all()


def test_what_was_missed_is_dashed_and_says_why() -> None:
    page = drawn(absent=[Absent(BOX, 1, "suppressed")])
    side = np.array([near(pixel, 1) for pixel in page[200, 200:600]])
    assert 0.35 < side.mean() < 0.65 and np.abs(np.diff(side.astype(int))).sum() > 20
    assert (page[505:525, 205:300] != 128).any()  # the label below it
    assert (page[510:] != drawn(absent=[Absent(BOX, 1, "duplicate")])[510:]).any()


def test_small_images_are_enlarged() -> None:
    page = draw_explanation(GROUND[:60, :80], [Mark([10, 10, 40, 40], 0, 0.5, [25, 25])], [], NAMES)
    assert page.shape == (720, 960, 3) and near(page[300, 300], 0)
