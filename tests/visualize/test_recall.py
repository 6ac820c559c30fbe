"""The picture of recall over the number of proposals."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fcos_d2.visualize import draw_recall


def rows(high: float | None) -> list[dict]:
    counts = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    known = [None if high is None else high * i / 10 for i in range(1, 11)]
    return [{"proposals": n, "AR": value, "recall": value} for n, value in zip(counts, known)]


@pytest.mark.parametrize("count", [1, 3])
def test_each_curve_is_seen(tmp_path, count):
    curves = {f"generator {i} $x$": rows(0.9 - 0.1 * i) for i in range(count)}
    path = draw_recall(curves, tmp_path / "new" / "recall.png", "Wörter & $1")
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape[1] > 1000
    colored = picture[np.ptp(picture, axis=2) > 60]
    hues = {tuple(color // 64) for color in colored}
    assert len(hues) >= count


def test_without_objects(tmp_path):
    assert Image.open(draw_recall({"nothing": rows(None)}, tmp_path / "recall.png")).size[0] > 1000
