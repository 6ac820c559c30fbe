"""Numbers of objects follow them through a video."""

from __future__ import annotations

import builtins

import pytest
import torch
from detectron2.structures import Boxes, Instances

from fcos_d2.errors import FcosError
from fcos_d2.predict.track import Tracks


def instances(*boxes):
    return Instances(
        (200, 300), pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)),
        scores=torch.linspace(0.9, 0.5, len(boxes)), pred_classes=torch.zeros(len(boxes), dtype=torch.long),
    )  # fmt: skip


def test_two_objects_that_pass_each_other_keep_their_numbers():
    tracks, numbers = Tracks(25.0, 0.3), []
    for i in range(30):
        right, left = (10 + 6 * i, 20, 50 + 6 * i, 60), (240 - 6 * i, 70, 280 - 6 * i, 110)
        order = (right, left) if i % 3 else (left, right)  # whichever comes first
        told = tracks(instances(*order))
        assert told.image_size == (200, 300) and torch.equal(told.pred_boxes.tensor[0], torch.tensor(order[0]).float())
        numbers.append(told.track_ids if i % 3 else told.track_ids[::-1])
    assert numbers[0] == [None, None] and sorted(numbers[1]) == [1, 2]
    assert all(pair == numbers[1] for pair in numbers[1:])


def test_an_object_that_is_away_for_a_moment_has_its_number_again():
    tracks = Tracks(25.0, 0.3)
    told = [tracks(instances(*([(10, 10, 60, 60)] if not 5 <= i < 12 else []))).track_ids for i in range(20)]
    assert told[4] == told[-1] == [1] and told[6] == []


def test_the_package_may_be_missing(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.partition(".")[0] == "trackers":
            raise ImportError("No module named 'trackers'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(FcosError, match=r"pip install 'fcos_d2\[track\]'"):
        Tracks(25.0, 0.5)
