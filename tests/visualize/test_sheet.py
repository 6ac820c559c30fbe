from __future__ import annotations

import numpy as np
import pytest

from fcos_d2.errors import FcosError
from fcos_d2.visualize import Drawable, draw_sheet, sheet


def rows(sizes: list[tuple[int, int]]):
    for at, (width, height) in enumerate(sizes):
        image = np.full((height, width, 3), 90, np.uint8)
        yield image, Drawable([[5, 5, width - 5, height - 5]], [at % 2]), f"train: a folder/with a long name/{at}.jpg"


def test_page_holds_every_image_in_its_column():
    """Wide, tall and tiny images; the page is as wide as its columns, and only as many as there are images."""
    page = draw_sheet(rows([(200, 100), (60, 300), (10, 10), (640, 480), (50, 50)]), ["a", "b"], "Five", 3, 120)
    assert page.dtype == np.uint8 and page.shape[1] == 2 * 24 + 3 * 120 + 2 * 12
    for column in range(3):
        left = 24 + column * 132
        assert (page[:, left : left + 120] == 90).all(-1).any(), f"no image in column {column}"
    assert draw_sheet(rows([(50, 50)]), ["a"], "One", 8, 100).shape[1] == 2 * 24 + 100


def test_no_boxes_no_images_too_many(monkeypatch):
    draw_sheet([(np.zeros((5, 5, 3), np.uint8), Drawable([], []), "")], [], "Empty")
    with pytest.raises(FcosError, match="no image"):
        draw_sheet([], [], "Nothing")
    monkeypatch.setattr(sheet, "LARGEST_SHEET", 30_000)
    with pytest.raises(FcosError, match="too large: show fewer images than 4"):
        draw_sheet(rows([(100, 100)] * 9), ["a", "b"], "Many", 3, 100)
