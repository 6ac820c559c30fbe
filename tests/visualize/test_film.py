"""Videos that are written: whole or not there, with the rate that was asked for, never in another file's place."""

from __future__ import annotations

import cv2
import films
import numpy as np
import pytest

from fcos_d2.errors import FcosError
from fcos_d2.visualize.film import Film


def test_pictures_come_back_in_order_and_colour(tmp_path):
    film = Film(tmp_path / "new", "a", 7.5, (64, 48))
    for red in (0, 100, 200):
        film.add(np.full((48, 64, 3), (red, 10, 50), np.uint8))
    film.add(np.full((96, 128, 3), (240, 10, 50), np.uint8), times=2)  # of another size
    assert list(tmp_path.glob("new/a*")) == []
    path = film.close()
    assert path is not None and path.stem == "a" and [path] == list((tmp_path / "new").iterdir())
    found = films.frames(path)
    assert [round(int(f[24, 32, 0]) / 20) for f in found] == [0, 5, 10, 12, 12]
    assert abs(int(found[2][24, 32, 2]) - 50) < 12
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == 7.5


def test_no_file_is_replaced_but_the_one_that_is_named(tmp_path):
    def made(**options):
        film = Film(tmp_path, "a", 5.0, (64, 48), **options)
        film.add(np.zeros((48, 64, 3), np.uint8))
        return film.close()

    first = made()
    content = first.read_bytes()
    second = made(taken={tmp_path / f"a-2{first.suffix}"})
    assert second.name == f"a-3{first.suffix}" and first.read_bytes() == content
    assert made(instead_of=second) == second


def test_a_film_without_a_picture_is_no_file(tmp_path):
    assert Film(tmp_path, "a", 5.0, (64, 48)).close() is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(FcosError, match="cannot be made"):
        Film(tmp_path / "file", "a", 5.0, (64, 48))
