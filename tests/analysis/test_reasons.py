"""Why an object is never learned: each reason planted, and what the objects of a size and level get."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fcos_d2.analysis import LOST, Objects, Rule, lost, plain_assignment, read_objects
from fcos_d2.analysis.reasons import told
from fcos_d2.data import find_dataset
from fcos_d2.errors import FcosError

AT_320 = Rule(image_size=320, max_size=640)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Objects]:
    """`made([x, y, width, height], ...)`: one picture of 320 x 320 with these boxes, of which there is no file."""

    def make(*boxes: list[float], crowd: int = 0) -> Objects:
        rows = [
            {"id": 10 + n, "image_id": 1, "category_id": 1 + n % 2, "bbox": box, "iscrowd": 0, "area": 1.0}
            for n, box in enumerate(boxes)
        ]
        rows += [{**rows[0], "id": 90 + n, "iscrowd": 1} for n in range(crowd)]
        image = {"id": 1, "file_name": "1.jpg", "width": 320, "height": 320}
        names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        data = {"images": [image], "annotations": rows, "categories": names}
        (tmp_path / "train.json").write_text(json.dumps(data), encoding="utf-8")
        return read_objects(find_dataset(tmp_path))["train"]

    return make


@pytest.mark.parametrize(
    ("boxes", "rule", "reasons"),
    [
        ([[5, 5, 6, 6]], AT_320, {0: "between locations"}),  # from 5 to 11, between locations at 4 and 12
        ([[3, 3, 2, 2]], AT_320, {}),  # around a location at 4
        ([[1, 10, 10, 300]], AT_320, {0: "no level"}),  # 300 px ask for p5, whose first location is at 16
        ([[100, 100, 16, 16], [100, 100, 16, 15.5]], AT_320, {0: "covered"}),
        ([[100, 100, 16, 16], [101, 101, 3, 3]], AT_320, {1: "between locations"}),
        ([[96, 96, 16, 16]], Rule(320, 640, center_radius=0.4), {0: "off centre"}),  # 104, between 100 and 108
        ([[96, 96, 16, 16]], Rule(320, 640, center_radius=0.6), {}),
    ],
)
def test_each_reason(made: Callable[..., Objects], boxes: list, rule: Rule, reasons: dict[int, str]) -> None:
    objects = made(*boxes)
    found = lost(objects, objects.assign(rule))
    assert {one.object: one.reason for one in found} == reasons
    assert [one.by for one in found if one.reason == "covered"] == [(1,)] * list(reasons.values()).count("covered")


def test_what_is_told_of_one(made: Callable[..., Objects]) -> None:
    objects = made([1, 10, 10, 300], [100, 100, 16, 16], [100, 100, 16, 15.5])
    one, covered = (told(objects, each, AT_320) for each in lost(objects, objects.assign(AT_320)))
    assert one["annotation"] == "10" and one["image"] == "1.jpg" and one["class"] == "cat" and one["part"] == "train"
    assert one["input_size"] == [10, 300] and one["bbox"] == [1, 10, 10, 300] and "covered_by" not in one
    assert "its 300 px ask for p5 or above, its 10.0 px lie between locations 32 px apart" in one["why"]
    assert covered["covered_by"] == ["12"] and covered["why"] == LOST["covered"]


def test_crowds_and_what_training_leaves_out_do_not_count(made: Callable[..., Objects]) -> None:
    assert len(made([5, 5, 40, 40], [0, 0, 0, 9], [400, 0, 9, 9], crowd=2)) == 1
    with pytest.raises(FcosError, match="no usable box, so there is nothing to analyze"):
        made([0, 0, 0, 9])


def test_positives_by_level_and_size(made: Callable[..., Objects]) -> None:
    """A centre square of 1.5 strides holds 3 x 3 locations of a box whose middle is one, 2 x 2 around a corner."""
    objects = made([80, 80, 24, 24], [160, 160, 32, 32], [0, 0, 320, 320], [1, 1, 1, 1])
    found = plain_assignment(objects, objects.assign(AT_320))
    assert found["boxes"] == 4 and found["images"] == 1 and found["best_possible_recall"] == 0.75
    sizes = found["sizes"]
    assert {name: row["objects"] for name, row in sizes.items()} == {"small": 2, "medium": 1, "large": 1, "all": 4}
    assert sizes["small"]["none"] == 1 and sizes["small"]["positives"]["p3"] == 9 / 2 and sizes["small"]["mean"] == 4.5
    assert sizes["medium"]["positives"] == {"p3": 4, "p4": 0, "p5": 0, "p6": 0, "p7": 0}
    levels = {row["level"]: row for row in found["levels"]}
    assert levels["p3"]["objects"] == 2 and levels["p3"]["positives"] == 13 and levels["p3"]["ambiguous"] == 0
    assert levels["p7"]["size_range"] == [512, None]
    assert sum(row["positives"] for row in found["levels"]) == found["positives"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_sizes_lie_between_coco_s_borders(made: Callable[..., Objects]) -> None:
    objects = made([0, 0, 32, 32], [0, 0, 96, 96], [0, 0, 95, 96])
    sizes = plain_assignment(objects, objects.assign(Rule(size_ranges=((-1.0, math.inf),) * 5)))["sizes"]
    assert [sizes[name]["objects"] for name in ("small", "medium", "large")] == [0, 2, 1]
