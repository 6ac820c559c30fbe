"""Colors of classes, and names of pictures that nobody else's file has."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fcos_d2.visualize import class_color, free_name, save_picture


def test_colors_are_fixed_and_differ():
    colors = [class_color(index) for index in range(100)]
    assert len(set(colors)) == 100
    assert all(0 <= value <= 255 for color in colors for value in color)
    first = np.array(colors[:12])
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + 999 * np.eye(12)
    assert distances.min() > 60


def test_only_pictures_of_ours_are_replaced(tmp_path):
    picture = np.full((8, 9, 3), 200, np.uint8)
    first = free_name(tmp_path, "a", ())
    assert first == tmp_path / "a.jpg"
    save_picture(picture, first)
    assert free_name(tmp_path, "a", ()) == first
    assert free_name(tmp_path, "a", {first}) == tmp_path / "a-2.jpg"
    Image.fromarray(picture).save(first)  # now it is somebody's photo
    (tmp_path / "a-2.jpg").write_text("a text")
    (tmp_path / "a-3.jpg").mkdir()
    assert free_name(tmp_path, "a", ()) == tmp_path / "a-4.jpg"
