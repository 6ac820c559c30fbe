"""COCO's numbers from 0 to 1."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from fcos_d2.evaluation.scores import scores, shares


@pytest.fixture
def boxes():
    """Registers a data set with one box of class "a" and none of "b"."""
    name = "cli_scores"
    DatasetCatalog.register(name, lambda: [{"annotations": [{"category_id": 0}, {"category_id": 1, "iscrowd": 1}]}])
    MetadataCatalog.get(name).thing_classes = ["a", "b"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_scores_are_shares(boxes):
    found = scores(
        {"bbox": {"AP": 50.0, "AP50": 75.0, "AP75": 40.0, "APs": -1.0, "AP-a": 50.0, "AP-b": float("nan")}}, boxes
    )
    assert (found["AP"], found["AP50"], found["AP75"], found["AP_small"]) == (0.5, 0.75, 0.4, None)
    assert found["per_class"] == {"a": 0.5, "b": None}


def test_nothing_found_is_zero_where_there_is_something(boxes):
    found = scores({"bbox": {"AP": float("nan"), "AP50": float("nan")}}, boxes)
    assert found["AP"] == found["AP50"] == 0.0 and found["per_class"] == {"a": 0.0, "b": None}


def test_classes_of_one_name_are_told_apart():
    DatasetCatalog.register("cli_twins", lambda: [{"annotations": [{"category_id": i}]} for i in (0, 2)])
    MetadataCatalog.get("cli_twins").thing_classes = ["cat", "dog", "cat"]
    found = scores({"bbox": {"AP": 75.0, "AP-cat": 50.0, "AP-dog": float("nan"), "AP-cat (2)": 100.0}}, "cli_twins")
    assert found["per_class"] == {"cat": 0.5, "dog": None, "cat (2)": 1.0}
    DatasetCatalog.remove("cli_twins")
    MetadataCatalog.remove("cli_twins")


def test_files_have_ap_from_0_to_1():
    results = {"bbox": {"AP": 50.0, "APs": -1.0, "AP-a": float("nan")}, "box_proposals": {"AR@100": 25.0}, "time": 3.0}
    found = shares({"first": results, "iteration": 7})
    assert str(found["first"]["bbox"]) == "{'AP': 0.5, 'APs': -0.01, 'AP-a': nan}"
    assert (found["first"]["box_proposals"], found["first"]["time"], found["iteration"]) == ({"AR@100": 0.25}, 3.0, 7)
