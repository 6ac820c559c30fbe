"""The picture of thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.visualize.thresholds import Panel, draw_thresholds


def panel(name: str, boxes: int = 50, threshold: float = 0.4) -> Panel:
    right = np.linspace(0.9 * boxes, 0, 101).round()
    return Panel(name, threshold, boxes >= 30, boxes, right + np.linspace(3 * boxes, 0, 101).round() ** 0.9, right)


def bins(count: int = 40) -> np.ndarray:
    score = (np.arange(15) + 0.5) / 15
    return np.stack([[np.full(15, count), score * count, (score**2 * count).round()]] * 2)


def colored(path) -> int:
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((picture.max(2) - picture.min(2) > 80).sum())


@pytest.mark.parametrize("count", [0, 3, 10])
def test_a_panel_for_each_class_up_to_eight(count, tmp_path):
    panels = [panel(f"$x_{k}$ é", 30 + k) for k in range(count)]
    path = draw_thresholds(panels, bins(), tmp_path / "new" / "x.png", "data", temperature=1.5 if count else None)
    with Image.open(path) as image:
        rows, columns = {0: (1, 1), 3: (1, 4), 10: (3, 4)}[count]
        assert image.size[0] == pytest.approx(385 * columns, abs=2)
        assert image.size[1] == pytest.approx(99 + 363 * rows, abs=2)
    assert count == 0 or colored(path) > 1500 * min(count, 8)


def test_nothing_detected_and_nothing_there(tmp_path):
    nothing = np.zeros(101)
    panels = [Panel("a", 0.5, False, 0, nothing, nothing), Panel("b", 0.5, False, 40, nothing, nothing)]
    draw_thresholds(panels, np.zeros((2, 3, 15)), tmp_path / "x.png", "nothing")
    draw_thresholds([panel("猫")], bins(), tmp_path / "y.png", "something")
    assert colored(tmp_path / "y.png") > colored(tmp_path / "x.png") / 2 > 0
