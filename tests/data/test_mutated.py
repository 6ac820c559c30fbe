"""Two thousand faulty annotation files: each is read as meant or refused in one sentence, and every box counts."""

from __future__ import annotations

import copy
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from fcos_d2.data import register_coco
from fcos_d2.errors import FcosError
from fcos_d2.evaluation import FastCOCOEvaluator
from fcos_d2.evaluation.scores import scores

FILES, PARTS = 2000, 5  # in all, and tests that share them
NOTHING = object()  # stands for a key that is taken away
VALUES = (
    None, True, False, 0, 1, -1, 2, 3.0, 2.5, 1e11, -1e300, 2**53 + 1, 10**400, math.nan, math.inf, -math.inf, "", "0",
    "1", "3", "12", "1.0", "nan", "x", "é\n", "\ud800", "0.png", [], [1, 2], [[1, 1, 9, 1, 9, 9]], ["a"], [None], {},
    {"a": 1}, {"size": [24, 32], "counts": "x"}, {"size": [24, 32], "counts": [768]}, NOTHING,
)  # fmt: skip


def valid() -> dict:
    """A file as CVAT writes it, with fields that detection does not use."""
    boxes = [[2, 2, 10, 8], [5.5, 6.0, 9.25, 7.5], [0, 0, 32, 24], [20, 10, 6, 6], [1, 15, 4, 5], [12, 3, 8.0, 9.0]]
    return {
        "info": {"year": 0, "date_created": 0},
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": 32, "height": 24, "license": "", "date_captured": 0}
            for n in range(1, 4)
        ],
        "annotations": [
            {
                "id": n + 1, "image_id": n % 3 + 1, "category_id": n % 2 + 1, "bbox": box, "area": box[2] * box[3],
                "iscrowd": int(n == 4), "attributes": {"occluded": False}, "keypoints": [1, 2, 2], "num_keypoints": 1,
                "segmentation": [[2, 2, 12, 2, 12, 10, 2, 10]],
            }
            for n, box in enumerate(boxes)
        ],
        "categories": [{"id": n, "name": name, "supercategory": ""} for n, name in ((1, "cat"), (2, "dog"))],
    }  # fmt: skip


def mutated(draw: random.Random) -> bytes:
    """The file with one to three faults at any level, or none that is JSON."""
    coco = valid()
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        spots = [coco]
        spots += [rows for rows in coco.values() if isinstance(rows, list)] * 2
        for rows in spots[1:]:
            spots = spots + [row for row in rows if isinstance(row, dict)]
        spots += [row["bbox"] for row in spots if isinstance(row, dict) and isinstance(row.get("bbox"), list)] * 2
        where = draw.choice(spots)
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        if not keys:
            continue
        key, value = draw.choice(keys), draw.choice(VALUES)
        old, change = where[key], draw.random()
        if value is NOTHING:
            del where[key]
        elif change < 0.15 and isinstance(old, (int, float)):
            where[key] = str(old)
        elif change < 0.3 and isinstance(old, (dict, list)):
            where[key] = [old, old] if isinstance(where, dict) else old
            if isinstance(where, list):
                where.append(copy.deepcopy(old))  # twice
        else:
            where[key] = copy.deepcopy(value)
    text = json.dumps(coco, ensure_ascii=draw.random() < 0.8, allow_nan=True)
    data = text.encode("utf-8", "surrogatepass")
    return draw.choice(WHOLE)(data) if draw.random() < 0.08 else data


WHOLE = (
    lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"[" * 100_000, lambda data: b"[" + data + b"]",
    lambda data: b"\xef\xbb\xbf" + data, lambda data: data.decode("utf-8", "replace").encode("utf-16"),
    lambda data: data.decode("utf-8", "replace").encode("utf-32"), lambda data: data + b"\xff", lambda data: b"\x89PNG",
    lambda data: data.replace(b"32", b"9" * 5000), lambda data: data.replace(b'"', b"'"), lambda data: b"null",
    lambda data: b'{"version": "5.0", "shapes": [{"label": "cat", "points": [[1, 2], [3, 4]]}], "imagePath": "0.png"}',
)  # fmt: skip


def found_by_something(record: dict, draw: random.Random) -> Instances:
    """Boxes near some true ones and others, as a detector gives them."""
    rows = [[draw.uniform(0, 20) for _ in range(4)] for _ in range(2)]
    rows += [row["bbox"] for row in record["annotations"] if draw.random() < 0.8]
    boxes = torch.tensor(rows, dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    found = Instances((record["height"], record["width"]))
    found.pred_boxes, found.scores = Boxes(boxes), torch.rand(len(boxes))
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return found


def evaluate(name: str, draw: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """AP of the detections is a number wherever there is an object, and the same by hotcoco and pycocotools."""
    records, evaluator = DatasetCatalog.get(name), FastCOCOEvaluator(name, distributed=False)
    evaluator.reset()
    for record in records:
        evaluator.process([record], [{"instances": found_by_something(record, draw)}])
    results = evaluator.evaluate()
    with monkeypatch.context() as patch:
        patch.setattr("fcos_d2.evaluation.coco._hotcoco", lambda: None)
        np.testing.assert_equal(evaluator.evaluate(), results)
    objects = sum(not row["iscrowd"] for record in records for row in record["annotations"])
    assert math.isfinite(results["bbox"]["AP"]) == (objects > 0)
    assert (scores(results, name)["AP"] is None) == (objects == 0)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_traceback_and_no_box_lost(part, tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))
    for n in range(1, 4):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{n}.png")
    ends: Counter[str] = Counter()
    for number in range(part, FILES, PARTS):
        draw, file, name = random.Random(number), tmp_path / f"{number}.json", f"mutated_{number}"
        file.write_bytes(mutated(draw))  # and taken away when all is well
        refused = _refusal(name, file)
        if refused:
            assert "\n" not in refused and len(refused) < 1200 and str(file) in refused
            assert name not in DatasetCatalog.list()
        else:
            _check(name, file)
            if number % 2 == 0:
                evaluate(name, draw, monkeypatch)
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        ends["refused" if refused else "read"] += 1
        file.unlink()
    assert min(ends["read"], ends["refused"]) > FILES / PARTS / 5, ends


def _refusal(name: str, file: Path) -> str:
    try:
        register_coco(name, file, file.parent)
    except FcosError as error:
        return str(error)
    return ""


def _check(name: str, file: Path) -> None:
    """Every annotation of the file is accounted for, and what stayed can be trained on and sorted into images."""
    report = MetadataCatalog.get(name).fcos_report
    records = DatasetCatalog.get(name)
    rows = [row for record in records for row in record["annotations"]]
    assert report["annotations"] == len(json.loads(file.read_bytes())["annotations"])
    assert report["annotations"] == report["objects"] + report["crowds"] + sum(report["left_out"].values())
    assert len(rows) == report["objects"] + report["crowds"]
    assert sum(row["iscrowd"] for row in rows) == report["crowds"]
    for row in rows:
        assert type(row["iscrowd"]) is int and type(row["category_id"]) is int
        assert len(row["bbox"]) == 4 and all(math.isfinite(value) for value in row["bbox"]) and min(row["bbox"][2:]) > 0
