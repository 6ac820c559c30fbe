"""What tiles find becomes what there is: whole objects untouched, each once, pieces put together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fcos_d2.predict.seams import WHOLE, Found, joined
from fcos_d2.predict.tiles import grid

SIZE, OVERLAP = (1000, 400), (100.0, 100.0)
PARTS = np.array([(0, 0, 400, 400), (300, 0, 700, 400), (600, 0, 1000, 400)], dtype=float)


def found(*rows):
    """Rows (box, score, class, part)."""
    boxes, scores, classes, part = zip(*rows) if rows else ([], [], [], [])
    return Found(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(classes), np.array(part))


def seen(whole, score=0.9, label=0, reduced=True):
    """What parts, and the reduced image if asked for, show of an object."""
    rows = []
    for part, (x0, y0, x1, y1) in enumerate(PARTS):
        box = (max(whole[0], x0), max(whole[1], y0), min(whole[2], x1), min(whole[3], y1))
        if box[0] < box[2]:
            rows.append((box, score - 0.05 * (box != tuple(whole)), label, part))
    blurred = tuple(np.array(whole, float) + (3, -2, -3, 2))
    return [*rows, (blurred, score - 0.1, label, WHOLE)] if reduced else rows


def boxes(objects):
    return sorted(map(tuple, objects.boxes.tolist()))


@pytest.mark.parametrize("left", [0, 120, 280, 299, 310, 330, 345, 360, 395, 640, 900])
@pytest.mark.parametrize("width", [8, 60, 99])
def test_an_object_no_larger_than_the_overlap_is_untouched(left, width):
    box = (left, 50, left + width, 120)
    objects = joined(found(*seen(box)), PARTS, SIZE, OVERLAP)
    assert boxes(objects) == [box] and objects.scores.tolist() == [0.9]


@pytest.mark.parametrize("box", [(100, 50, 560, 300), (20, 10, 980, 390), (350, 20, 900, 90), (250, 30, 460, 60)])
def test_a_large_object_is_the_reduced_images_or_put_together(box):
    objects = joined(found(*seen(box)), PARTS, SIZE, OVERLAP)
    assert len(objects) == 1
    assert np.abs(objects.boxes[0] - box).max() <= 3
    objects = joined(found(*seen(box, reduced=False)), PARTS, SIZE, OVERLAP)
    assert boxes(objects) == [tuple(map(float, box))]


def test_neighbours_are_two_and_classes_are_apart():
    """Two boxes of one part that overlap are what the model says; pieces of two heights are no one object."""
    two = [((20, 20, 80, 80), 0.9, 0, 0), ((40, 20, 100, 80), 0.8, 0, 0), ((20, 20, 80, 80), 0.7, 1, 0)]
    assert len(joined(found(*two), PARTS, SIZE, OVERLAP)) == 3
    pieces = [((200, 20, 400, 80), 0.9, 0, 0), ((300, 200, 500, 260), 0.8, 0, 1), ((300, 20, 500, 80), 0.8, 1, 1)]
    assert len(joined(found(*pieces), PARTS, SIZE, OVERLAP)) == 3
    order = joined(found(*pieces), PARTS, SIZE, OVERLAP).scores
    assert (np.diff(order) <= 0).all()


def test_many_objects_of_random_places_are_each_found_once():
    random = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(5, 900, 110), np.arange(5, 300, 130))
    whole = [(a + dx, b + dy, a + dx + w, b + dy + h) for a, b, dx, dy, w, h in zip(
        x.ravel(), y.ravel(), *random.integers(0, 8, (2, x.size)), *random.integers(6, 98, (2, x.size)))]  # fmt: skip
    rows = [row for box in whole for row in seen(tuple(map(int, box)))]
    assert boxes(joined(found(*rows), PARTS, SIZE, OVERLAP)) == sorted(tuple(map(float, box)) for box in whole)


def test_nothing():
    assert len(joined(found(), PARTS, SIZE, OVERLAP)) == 0


@pytest.mark.parametrize("length", [1, 255, 256, 257, 448, 449, 1000, 10_000])
def test_grid_covers_a_side_with_the_overlap(length):
    tiles = list(grid(length, 256, 192))
    assert tiles[0][0] == 0 and tiles[-1][1] == length
    assert all(end - begin == 256 for begin, end in tiles[:-1]) and 0 < tiles[-1][1] - tiles[-1][0] <= 256
    assert all(second[0] - first[0] == 192 for first, second in pairwise(tiles))
    assert len(tiles) == 1 or tiles[-1][1] - tiles[-1][0] > 64
