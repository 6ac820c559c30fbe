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


def test_what_somebody_made_of_a_picture_of_ours_is_theirs(tmp_path):
    picture = np.full((8, 9, 3), 200, np.uint8)
    ours = save_picture(picture, tmp_path / "a.jpg")
    with Image.open(ours) as image:
        assert image.info["comment"].startswith(b"drawn by fcos_d2 ")
        assert image.size == (9, 8)
    (tmp_path / "renamed.jpg").write_bytes(ours.read_bytes())
    assert free_name(tmp_path, "renamed", ()) == tmp_path / "renamed-2.jpg"
    with Image.open(ours) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(ours, comment=image.info["comment"])  # edited, comment kept
    assert free_name(tmp_path, "a", ()) == tmp_path / "a-2.jpg"
    (tmp_path / "b.jpg").symlink_to(tmp_path / "not yet there.jpg")
    (tmp_path / "c.jpg").symlink_to(save_picture(picture, tmp_path / "d.jpg"))
    for name in "bc":
        assert free_name(tmp_path, name, ()) == tmp_path / f"{name}-2.jpg"
    # A picture of ours is not overwritten while it is an input, by whatever way it is named.
    assert free_name(tmp_path, "d", {tmp_path / "." / "x" / ".." / "d.jpg"}) == tmp_path / "d-2.jpg"
    assert free_name(tmp_path, "d", {tmp_path / "c.jpg"}) == tmp_path / "d-2.jpg"


def test_a_picture_longer_than_a_jpeg_can_be(tmp_path):
    with Image.open(save_picture(np.zeros((2, 70_000, 3), np.uint8), tmp_path / "a.jpg")) as image:
        assert image.size == (65_500, 2)
