"""A set with every kind of miss and of false alarm, planted one by one: each is named, and nothing is left over."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import planted
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from planted import Plant

from fcos_d2.errors import FcosError
from fcos_d2.evaluation.ledger import FALSE_ALARMS, MISSES, ErrorLedger, FalseAlarm, Miss
from fcos_d2.evaluation.matching import Found, Truth, match
from fcos_d2.evaluation.tally import tallying
from fcos_d2.files import plain

CAT, DOG = 0, 1
LEAST = (0.3, 0.3)
OPTIONS = {"topk": 3, "nms_threshold": 0.6, "max_detections": 4, "clip": "before", "min_size": 8.0}
A, B, C, D = [8, 8, 40, 40], [72, 8, 104, 40], [8, 72, 40, 104], [72, 72, 104, 104]  # apart from each other
LARGE = [16, 16, 56, 56]


def right(*boxes, label=CAT, score=0.9, level=0):
    """Objects that are found."""
    return [Plant(label, score - 0.01 * i, box, level) for i, box in enumerate(boxes)]


# What is said by the network, the objects (class, box, and True for a crowd region), and the causes that follow.
SCENES = {
    "all is found": (right(LARGE), [(CAT, LARGE)], [], []),
    "nothing is there": ([], [], [], []),
    "so small that no location lies in it": ([], [(CAT, [37, 37, 43, 43])], ["never assignable"], []),
    "smaller ones take all its locations": (
        right([28, 28, 52, 52]), [(CAT, [20, 20, 60, 60]), (CAT, [28, 28, 52, 52])], ["never assignable"], [],
    ),
    "a low score": ([Plant(CAT, 0.2, LARGE)], [(CAT, LARGE)], ["below the score threshold"], []),
    "a very low score": ([Plant(CAT, 0.01, LARGE)], [(CAT, LARGE)], ["below the score threshold"], []),
    "no score at all": ([], [(CAT, LARGE)], ["below the score threshold"], []),
    "three better ones on its level": (
        [*right(A, B, C), Plant(CAT, 0.5, D)], [(CAT, box) for box in (A, B, C, D)], ["cut by top-k"], [],
    ),
    "another one stands close by": (
        [*right(LARGE), Plant(CAT, 0.8, [24, 16, 64, 56])], [(CAT, LARGE), (CAT, [24, 16, 64, 56])], ["suppressed"], [],
    ),
    "four better ones in the image": (
        [*right(A, B, C), Plant(CAT, 0.7, D, 1), Plant(CAT, 0.5, [44, 44, 68, 68], 1)],
        [(CAT, box) for box in (A, B, C, D, [44, 44, 68, 68])], ["cut by the limit"], [],
    ),
    "seven pixels": ([Plant(CAT, 0.9, [41, 41, 48, 48])], [(CAT, [41, 41, 48, 48])], ["dropped as too small"], []),
    "labelled twice": (right(LARGE), [(CAT, LARGE), (CAT, LARGE)], ["duplicate"], []),
    "labelled twice, and a box more": (
        [*right(LARGE), Plant(CAT, 0.6, [18, 16, 58, 56])], [(CAT, LARGE), (CAT, LARGE)], ["duplicate"], [],
    ),
    "a cat that is taken for a dog": ([Plant(DOG, 0.8, LARGE)], [(CAT, LARGE)], ["wrong class"], ["wrong class"]),
    "two in five of it": (
        [Plant(CAT, 0.8, [16, 16, 32, 56])], [(CAT, LARGE)], ["poor overlap"], ["poor overlap"],
    ),
    "its location finds the neighbour": (
        [Plant(CAT, 0.9, [24, 20, 66, 60])], [(CAT, [28, 28, 52, 52]), (CAT, [24, 20, 88, 60])], ["poor overlap"], [],
    ),
    "found twice": (
        [*right(LARGE), Plant(CAT, 0.6, [28, 16, 68, 56])], [(CAT, LARGE)], [], ["duplicate"],
    ),
    "nothing there": ([Plant(DOG, 0.7, B)], [], [], ["background"]),
    "beside what is there": ([*right(A), Plant(CAT, 0.7, B)], [(CAT, A)], [], ["background"]),
    "a dog, and a cat on a part of it": (
        [*right(LARGE, label=DOG), Plant(CAT, 0.6, [16, 16, 32, 56])], [(DOG, LARGE)], [],
        ["wrong class and poor overlap"],
    ),
    "in a crowd": (right(A), [(CAT, [0, 0, 128, 128], True)], [], []),
    "beside a crowd": ([Plant(CAT, 0.8, D)], [(CAT, [0, 0, 40, 40], True)], [], ["background"]),
    "as low as a score may be": ([Plant(CAT, 0.301, LARGE), Plant(CAT, 0.299, B)], [(CAT, LARGE), (CAT, B)],
                                 ["below the score threshold"], []),
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Iterator[str]:
    """The objects of the scenes as a data set in Detectron2's catalog."""
    name = "planted_scenes"
    records = [
        {
            "image_id": number, "file_name": f"{number}.png", "height": planted.SIDE, "width": planted.SIDE,
            "annotations": [
                {"category_id": label, "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                 "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": int(bool(crowd))}
                for label, box, *crowd in scene[1]
            ],
        } for number, scene in enumerate(SCENES.values())
    ]  # fmt: skip
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=["cat", "dog"])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def seen(data: str) -> tuple[ErrorLedger, list[dict]]:
    """The ledger of the planted set, and what the detector reported, in batches of different sizes."""
    model = planted.detector([scene[0] for scene in SCENES.values()], **OPTIONS)
    inputs = [planted.image_input(number) for number in range(len(SCENES))]
    outputs = []
    with torch.no_grad(), tallying(model, data, LEAST) as ledger:
        for start, end in ((0, 1), (1, 8), (8, 9), (9, len(inputs))):
            outputs += model(inputs[start:end])
    return ledger, outputs


def of_image(rows: list[Miss] | list[FalseAlarm], number: int) -> list:
    return [row for row in rows if row.image == f"{number}.png"]


@pytest.mark.parametrize(("number", "name"), list(enumerate(SCENES)), ids=list(SCENES))
def test_each_cause_is_named(seen: tuple[ErrorLedger, list[dict]], number: int, name: str) -> None:
    misses, alarms = (of_image(rows, number) for rows in (seen[0].misses, seen[0].false_alarms))
    assert ([one.cause for one in misses], [one.cause for one in alarms]) == SCENES[name][2:]
    assert all(one.detail for one in (*misses, *alarms))


def test_every_cause_is_planted() -> None:
    assert {cause for scene in SCENES.values() for cause in scene[2]} == set(MISSES)
    assert {cause for scene in SCENES.values() for cause in scene[3]} == set(FALSE_ALARMS)


def test_all_is_accounted_for(seen: tuple[ErrorLedger, list[dict]], data: str) -> None:
    ledger, outputs = seen
    marked = [row for record in DatasetCatalog.get(data) for row in record["annotations"]]
    reported = sum(int((x["instances"].scores > 0.3).sum()) for x in outputs)
    assert ledger.objects == sum(not row["iscrowd"] for row in marked)
    assert ledger.detections == reported
    assert ledger.found + sum(ledger.misses_by_cause().values()) == ledger.objects
    assert ledger.found + ledger.ignored + sum(ledger.false_alarms_by_cause().values()) == reported
    told = ledger.summary()
    for percent in (told["misses_percent"], told["false_alarms_percent"]):
        assert sum(percent.values()) == pytest.approx(100, abs=1e-9)


def test_what_is_right_is_what_cocos_matching_says(seen: tuple[ErrorLedger, list[dict]], data: str) -> None:
    ledger, outputs = seen
    found = [
        {"image_id": number, "category_id": label, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
        for number, x in enumerate(outputs)
        for (x0, y0, x1, y1), label, score in zip(
            x["instances"].pred_boxes.tensor.tolist(), x["instances"].pred_classes.tolist(),
            x["instances"].scores.tolist(),
        ) if score > 0.3
    ]  # fmt: skip
    truth = [{**row, "image_id": record["image_id"]} for record in DatasetCatalog.get(data)
             for row in record["annotations"]]  # fmt: skip
    matches = match(Found.of(found), Truth.of(truth))
    assert (int(matches.right.sum()), int(matches.ignored.sum())) == (ledger.found, ledger.ignored)


def test_what_stands_in_the_place_of_a_miss(seen: tuple[ErrorLedger, list[dict]]) -> None:
    """The suppressor, its overlap, the level's room, the class that it was taken for, the score that was missing."""
    missed = {name: of_image(seen[0].misses, number) for number, name in enumerate(SCENES)}
    (one,) = missed["another one stands close by"]
    assert one.by is not None and one.by.box == tuple(map(float, LARGE)) and one.by.score == pytest.approx(0.9)
    assert one.detail == "cat 0.80 was suppressed by cat 0.90, which it overlaps by 0.67"
    assert (one.iou, one.level) == (1.0, 0)
    (one,) = missed["three better ones on its level"]
    assert one.detail == "cat 0.50 is number 4 of 4 on its level, which has room for 3"
    (one,) = missed["a cat that is taken for a dog"]
    assert one.by is not None and one.by.label == DOG and one.object.label == CAT
    (one,) = missed["a low score"]
    assert one.score == pytest.approx(0.2) and one.iou == 1.0 and "0.300 is to be exceeded" in one.detail
    (one,) = missed["smaller ones take all its locations"]
    assert one.detail == "smaller objects take all of its 4 locations"
    (one,) = missed["so small that no location lies in it"]
    assert one.detail.startswith("no location lies near enough")
    (one,) = missed["four better ones in the image"]
    assert (one.level, one.detail) == (1, "cat 0.50 comes after the 4 best of the image")


def test_a_false_alarm_says_what_is_there(seen: tuple[ErrorLedger, list[dict]]) -> None:
    alarms = {name: of_image(seen[0].false_alarms, number) for number, name in enumerate(SCENES)}
    (one,) = alarms["found twice"]
    assert one.detail == "cat 0.90 found it; the two overlap by 0.54, and more than 0.6 is suppressed"
    (one,) = alarms["a cat that is taken for a dog"]
    assert one.object is not None and (one.object.label, one.detection.label, one.iou) == (CAT, DOG, 1.0)
    (one,) = alarms["nothing there"]
    assert one.object is None and one.iou == 0


def test_a_ledger_goes_through_json(seen: tuple[ErrorLedger, list[dict]]) -> None:
    again = ErrorLedger.of(json.loads(json.dumps(plain(seen[0].plain()))))
    assert again == seen[0] and again.summary() == seen[0].summary()


def test_other_thresholds_and_overlaps_move_objects_from_cause_to_cause(data: str) -> None:
    """At an IoU of 0.3 a badly placed box finds its object; above 0.85, a score of 0.8 is too low."""
    model = planted.detector([scene[0] for scene in SCENES.values()], **OPTIONS)
    names = list(SCENES)
    for iou, least, name, causes in (
        (0.3, LEAST, "two in five of it", []), (0.5, (0.85, 0.3), "two in five of it", ["below the score threshold"]),
        (0.5, (0.3, 0.85), "a cat that is taken for a dog", ["below the score threshold"]),
        (0.95, LEAST, "a low score", ["below the score threshold"]),
    ):  # fmt: skip
        with torch.no_grad(), tallying(model, data, least, iou) as ledger:
            model([planted.image_input(names.index(name))])
        assert [one.cause for one in ledger.misses] == causes
        assert ledger.objects == len(SCENES[name][1])


def test_random_scenes_are_accounted_for_in_any_order_of_objects(data: str) -> None:
    """Whatever lies where: each object and each detection once, and the order of annotations changes no count."""
    random = np.random.default_rng(0)

    def box() -> list[float]:
        low, side = random.uniform(0, 96, 2), random.uniform(4, 64, 2)
        return [*low, *np.minimum(low + side, 127)]

    plants = [
        [Plant(int(random.integers(2)), float(random.uniform(0.05, 0.95)), box(), int(random.integers(3)))
         for _ in range(12)] for _ in range(20)
    ]  # fmt: skip
    model = planted.detector(plants, topk=4, max_detections=6)
    records = [
        {"image_id": number, "file_name": f"{number}.png", "annotations": [
            {"category_id": int(random.integers(2)), "bbox": box(), "bbox_mode": BoxMode.XYXY_ABS,
             "iscrowd": int(random.random() < 0.1)} for _ in range(6)
        ]} for number in range(20)
    ]  # fmt: skip
    summaries = []
    for turn in (1, -1):
        name = f"planted_random_{turn}"
        DatasetCatalog.register(name, lambda turn=turn: [
            {**record, "annotations": record["annotations"][::turn]} for record in records
        ])  # fmt: skip
        MetadataCatalog.get(name).set(thing_classes=["cat", "dog"])
        with torch.no_grad(), tallying(model, name, LEAST) as ledger:
            model([planted.image_input(number) for number in range(20)])
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        objects = [row for record in records for row in record["annotations"] if not row["iscrowd"]]
        assert ledger.objects == len(objects) and ledger.images == 20
        assert {one.cause for one in ledger.misses} <= set(MISSES)
        summaries.append({**ledger.summary(), "dataset": ""})
    assert summaries[0] == summaries[1]
    assert len([count for count in summaries[0]["misses"].values() if count]) >= 4


def test_an_image_that_is_not_in_the_data_is_refused(data: str) -> None:
    model = planted.detector([[]])
    with pytest.raises(FcosError, match="not in planted_scenes"), torch.no_grad(), tallying(model, data, LEAST):
        model([{**planted.image_input(0), "image_id": "elsewhere"}])
