"""What exporters write, read as it is meant or refused in one sentence; nothing is lost without a word."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from PIL import Image

from fcos_d2.data import find_dataset, register, register_coco
from fcos_d2.data.mapper import FastMapper
from fcos_d2.data.meant import flag, identity, number, shown
from fcos_d2.errors import FcosError
from fcos_d2.evaluation import FastCOCOEvaluator

NAN, INF = math.nan, math.inf


pytestmark = pytest.mark.usefixtures("clean_catalog")


def box(n=1, **more):
    """An annotation; `...` takes a key away."""
    row = {"id": n, "image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 8], "area": 80.0, "iscrowd": 0, **more}
    return {key: value for key, value in row.items() if value is not ...}


def coco(*annotations, images=2, **more):
    return {
        "images": [{"id": n + 1, "file_name": f"{n}.png", "width": 32, "height": 24} for n in range(images)],
        "annotations": list(annotations) or [box()],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        **more,
    }


def read(folder: Path, content: dict, name: str = "meant") -> tuple[list[dict], dict]:
    """The boxes of the first image as Detectron2's catalog has them, and the report."""
    for n in range(2):
        Image.new("RGB", (32, 24)).save(folder / f"{n}.png")
    (folder / "a.json").write_text(json.dumps(content))
    register_coco(name, folder / "a.json", folder)
    report = MetadataCatalog.get(name).fcos_report
    records = DatasetCatalog.get(name)
    rows = [row for record in records for row in record["annotations"]]
    assert report["annotations"] == len(content["annotations"]) == len(rows) + sum(report["left_out"].values())
    assert (report["objects"], report["crowds"]) == tuple(sum(r["iscrowd"] == i for r in rows) for i in (0, 1))
    return records[0]["annotations"], report


def refusal(folder: Path, content: dict) -> str:
    with pytest.raises(FcosError) as error:
        read(folder, content)
    assert str(folder / "a.json") in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def perfect(name: str = "meant") -> dict:
    """Results for detections that equal the objects."""
    evaluator = FastCOCOEvaluator(name, distributed=False)
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        rows = [row for row in record["annotations"] if not row["iscrowd"]]
        boxes = torch.tensor([row["bbox"] for row in rows], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = Instances((record["height"], record["width"]), pred_boxes=Boxes(boxes), scores=torch.ones(len(rows)))
        found.pred_classes = torch.tensor([row["category_id"] for row in rows], dtype=torch.int64)
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


def trained_on(name: str = "meant") -> list[Instances]:
    """What a training gets to see of each image."""
    mapper = FastMapper(is_train=True, augmentations=[T.ResizeShortestEdge(24, 64)], image_format="BGR")
    return [mapper(record)["instances"] for record in DatasetCatalog.get(name)]


# Fields that detection does not use

CVAT = coco(
    box(attributes={"occluded": False, "rotation": 0.0}, segmentation=[]), box(2, image_id=2, category_id=2, score=NAN),
    licenses=[{"name": "", "id": 0, "url": ""}], info={"contributor": "", "year": "", "date_created": 0},
)  # fmt: skip
for _row in CVAT["images"]:
    _row |= {"license": "", "flickr_url": 0, "coco_url": None, "date_captured": 0}
for _row in CVAT["categories"]:
    _row |= {"supercategory": None, "color": [1, 2], "keypoints": NAN}

UNUSED = {
    "CVAT": CVAT,
    "no info": coco(info=None, licenses=None),
    "info is a list": coco(info=[1], licenses={"a": NAN}, videos=[[]]),
    **{
        f"segmentation {value!r}": coco(box(segmentation=value), box(2, image_id=2, segmentation=[[1, 1, 9, 1, 9, 9]]))
        for value in ([], None, "", "poly", 7, {}, [None], ["abcdef"], [["a"] * 6], [[NAN] * 6], [[1, 2, 3, 4]],
                      {"counts": "x"}, {"counts": [1, "a"], "size": [24, 32]}, {"counts": [9], "size": [24, 32]})
    },
    **{f"keypoints {v!r}": coco(box(keypoints=v, num_keypoints=v)) for v in (None, [], "x", 3, [1, 2], ["a", 1, 2])},
    "attributes": coco(box(attributes=[None], occluded="no", track_id=NAN, difficult=INF)),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSED)
def test_fields_that_detection_does_not_use(tmp_path, name):
    content = UNUSED[name]
    read(tmp_path, content)
    assert sum(map(len, trained_on())) == len(content["annotations"])
    assert perfect()["AP"] == pytest.approx(100)


def test_polygons_that_can_be_read_stay(tmp_path):
    good = [1, 1, 9, 1, 9, 9]
    (row,), report = read(tmp_path, coco(box(segmentation=[good, "x", [1, 2], good])))
    assert row["segmentation"] == [good, good] and report["mended"] == {"segmentation": 1}


# Flags, numbers and ids written in another way


@pytest.mark.parametrize(
    ("given", "crowd"),
    [("0", 0), ("1", 1), (0.0, 0), (1.0, 1), (True, 1), (False, 0), (None, 0), (NAN, 0), ("", 0), ("true", 1)]
    + [(value, None) for value in (2, -1, "x", [], {}, "2", INF, 0.5)],
)  # fmt: skip
@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_crowd_flags(tmp_path, key, given, crowd):
    content = coco(box(), box(7, **{key: given}))
    if crowd is None:
        message = f"Annotation 7 in .*a.json has {key} {re.escape(shown(given))}; it must be 0 or 1"
        assert re.search(message, refusal(tmp_path, content))
    else:
        rows, report = read(tmp_path, content)
        assert [row["iscrowd"] for row in rows] == [0, crowd] and report["crowds"] == crowd
        assert len(trained_on()[0]) == 2 - crowd


def test_crowd_and_ignored(tmp_path):
    rows, _ = read(tmp_path, coco(box(iscrowd=1, ignore=1), box(2, iscrowd=1, ignore=0), box(3, iscrowd=0, ignore="1")))
    assert [row["iscrowd"] for row in rows] == [1, 1, 1]


@pytest.mark.parametrize("image", [1, "1", 1.0, "1.0"])
@pytest.mark.parametrize("there", [1, "1", 1.0])
def test_ids_as_text_on_one_side(tmp_path, image, there):
    content = coco(box(image_id=image, category_id=image))
    content["images"][0]["id"] = content["categories"][0]["id"] = there
    (row,), _ = read(tmp_path, content)
    assert row["category_id"] == 0 and perfect()["AP"] == pytest.approx(100)


@pytest.mark.parametrize("ids", [("a", "b"), ("001", 1), (2**70, 3), ("x", 7.0), (-5, 0)])
def test_ids_of_images_are_numbers_or_text_all_of_them(tmp_path, ids):
    """Detectron2 sorts them."""
    content = coco(box(image_id=ids[0]), box(2, image_id=ids[1]))
    for row, number_or_text in zip(content["images"], ids):
        row["id"] = number_or_text
    read(tmp_path, content)
    assert sum(len(record["annotations"]) for record in DatasetCatalog.get("meant")) == 2
    assert len({type(record["image_id"]) for record in DatasetCatalog.get("meant")}) == 1
    assert perfect()["AP"] == pytest.approx(100)


@pytest.mark.parametrize("ids", [("5", "6"), (1.0, 2.0), (0, 1), (3, 3), (None, 4), (NAN, INF), ([], {}), (-1, 2**60)])
def test_ids_of_annotations_have_no_meaning(tmp_path, ids):
    read(tmp_path, coco(*(box(number, bbox=[2 + 9 * i, 2, 8, 8]) for i, number in enumerate(ids))))
    assert perfect()["AP"] == pytest.approx(100)


WRONG = {
    "an id twice, once as text": (lambda c: c["images"][1].update(id="1"), "lists the image id 1 twice"),
    "an image without id": (lambda c: c["images"][0].update(id=None), "has the id None"),
    "an id that is a list": (lambda c: c["images"][0].update(id=[1]), "has the id [1]"),
    "half an image": (lambda c: c["annotations"][0].update(image_id=1.5), "no known image_id"),
    "true as an image": (lambda c: c["annotations"][0].update(image_id=True), "no known image_id"),
    "an unknown image": (lambda c: c["annotations"][0].update(image_id=9), "which is not in 'images'"),
    "an unknown category": (lambda c: c["annotations"][0].update(category_id="9"), "which is not in 'categories'"),
    "no category": (lambda c: c["annotations"][0].pop("category_id"), "no known category_id"),
    "a category by name": (lambda c: c["annotations"][0].update(category_id="cat"), "category_id cat"),
    "a category twice": (lambda c: c["categories"][1].update(id="1"), "category id 1 twice"),
    "a category of null": (lambda c: c["categories"][1].update(name=None), "'id' or a 'name'"),
    "a huge category": (lambda c: c["categories"][1].update(id=10**30), "'id' or a 'name'"),
    "an image twice": (lambda c: c["images"].append(c["images"][0]), "lists the image id 1 twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_has_no_meaning_is_a_sentence(tmp_path, name):
    content = coco()
    WRONG[name][0](content)
    assert WRONG[name][1] in refusal(tmp_path, content)


def test_numbers_as_names(tmp_path):
    read(tmp_path, coco(categories=[{"id": n, "name": n, "supercategory": NAN} for n in range(10)]))
    assert MetadataCatalog.get("meant").thing_classes == list("0123456789")
    assert perfect()["AP"] == pytest.approx(100)


# Boxes and areas


@pytest.mark.parametrize(
    "area", [-1, 1e11, NAN, INF, 0, 0.0, ..., None, "", "x", [], {}, True, -1e300, 10**400, "-1"],
    ids=lambda value: str(value)[:9],
)  # fmt: skip
def test_areas_that_cannot_be(tmp_path, area, caplog):
    rows = [box(n, bbox=[2 + 9 * n, 2, 8, 8], area=area) for n in range(1, 3)]
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        _, report = read(tmp_path, coco(*rows))
    assert report["mended"]["area"] == 2 and report["objects"] == 2
    told = "2 of 2 annotations have an area that cannot be" in caplog.text
    assert told == (area is not ... and area is not None)  # what is not there is usual
    assert perfect()["AP"] == perfect()["APs"] == pytest.approx(100)


@pytest.mark.parametrize("area", ["64", 64, 31.5, "31.5", 700])
def test_areas_that_can_be_stay(tmp_path, area):
    read(tmp_path, coco(box(bbox=[2, 2, 8, 8], area=area)))
    (row,) = json.loads(Path(MetadataCatalog.get("meant").json_file).read_text())["annotations"]
    assert row["area"] == float(area)


@pytest.mark.parametrize("bbox", [[], None, "", ...], ids=str)
@pytest.mark.parametrize("more", [{}, {"category_id": 0}, {"category_id": None, "image_id": 77}], ids=str)
def test_background_is_no_object(tmp_path, bbox, more, caplog):
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        rows, report = read(tmp_path, coco(box(), box(8, bbox=bbox, **more)))
    assert len(rows) == 1 and report["left_out"] == {"no box": 1, "degenerate": 0}
    assert "1 of 2 annotations have no box ('bbox' is absent, null or empty) and count as no object; " in caplog.text
    assert "annotation ids: 8." in caplog.text
    assert perfect()["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [(["2", "2.5", " 10 ", "8e0"], [2, 2.5, 10, 8]), ([-1, -1.5, 5, 5.0], [-1, -1.5, 5, 5])]
    + [([0, 0, 5, value], "degenerate") for value in (0, -3, NAN, INF, None, "nan", "", 1e300, 10**400, "1e999")]
    + [([value, 0, 5, 5], "degenerate") for value in (NAN, -INF, -5, 32, 1e7)] + [([0, 0, 0, 0], "degenerate")]
    + [
        (value, "must be four numbers")
        for value in ([1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9, 2, 9, 9, 1, 9], ["a"] * 4, [[1, 2, 3, 4]], "1 2 3 4",
                      {"x": 1, "y": 2, "width": 3, "height": 4}, [1, 2, 3, True], 5, [1, 2, 3, "1_0"], [1, 2, 3, {}])
    ],
    ids=str,
)  # fmt: skip
def test_boxes(tmp_path, bbox, expected):
    content = coco(box(bbox=[1, 1, 5, 5]), box(3, bbox=bbox))
    if expected == "must be four numbers":
        assert "Annotation 3 in " in (text := refusal(tmp_path, content)) and expected in text
    elif expected == "degenerate":
        assert read(tmp_path, content)[1]["left_out"] == {"no box": 0, "degenerate": 1}
    else:
        assert read(tmp_path, content)[0][1]["bbox"] == expected
        assert [len(seen) for seen in trained_on()] == [2, 0]


def test_corners_and_shares_are_not_taken_for_sizes(tmp_path):
    corners = [[x, y, x + 9, y + 9] for x in (1, 5, 13, 21) for y in (1, 5, 13)]
    text = refusal(tmp_path, coco(*(box(n, bbox=bbox) for n, bbox in enumerate(corners))))
    assert "seem to be corners (x1, y1, x2, y2), since " in text
    shares = [[x / 32, y / 24, 9 / 32, 9 / 24] for x, y, *_ in corners]
    text = refusal(tmp_path, coco(*(box(n, bbox=bbox) for n, bbox in enumerate(shares))))
    assert "seem to be shares of the image" in text
    rows = [box(n, bbox=[x - 8, y - 8, 40, 40], area=...) for n, (x, y, *_) in enumerate(corners)]
    assert read(tmp_path, coco(*rows))[1]["objects"] == 12  # over the border on all sides, and no corners


# Other JSON by mistake

FOREIGN = {
    "labelme": {"version": "5.0", "flags": {}, "shapes": [{"label": "a", "points": [[1, 2]]}], "imagePath": "0.png"},
    "VIA": {"0.png1234": {"filename": "0.png", "regions": [{"shape_attributes": {"x": 1}}]}},
    "results": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
    "a config": {"model": {"backbone": {"images": [1]}}},
    "images by name": {"images": {"0.png": {"id": 1}}, "annotations": [], "categories": []},
    "lists of lists": {"images": [[1, "0.png"]], "annotations": [[1]], "categories": ["cat"]},
    "a text": "cat",
    "a key of lines": {"a\nb" * 500: 1},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_json_is_a_sentence(tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps(FOREIGN[name]))
    with pytest.raises(FcosError, match="is not a COCO file: ") as error:
        register_coco("foreign", tmp_path / "a.json", tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_json_without_end_and_long_numbers(tmp_path):
    for text in ("[" * 200_000, '{"images": ' + "9" * 5000 + "}", '{"a":' * 100_000 + "1" + "}" * 100_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(FcosError, match=r"a\.json is not (a COCO file|valid JSON)"):
            register_coco("foreign", tmp_path / "a.json", tmp_path)


def test_half_a_character_and_names_without_end(tmp_path):
    """Python reads them from JSON; no file can be named so, and pycocotools stops at the first."""
    text = json.dumps(coco(), ensure_ascii=False).replace('"cat"', '"c\ud83dt"')
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    for n in range(2):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{n}.png")
    register_coco("half", tmp_path / "a.json", tmp_path)
    assert MetadataCatalog.get("half").thing_classes[0] == "c?t" and perfect("half")["AP"] == pytest.approx(100)
    for name in ("a" * 5000 + ".png", "\ud83d.png", "a\0.png", "\n.png"):
        content = coco()
        content["images"][0]["file_name"] = name
        (tmp_path / "train.json").write_text(json.dumps(content))
        with pytest.raises(FcosError, match="1 of 2 images named in ") as error:
            register(find_dataset(tmp_path), "odd", need=("train",))
        assert "\n" not in str(error.value) and len(str(error.value)) < 1000


# The readers alone


def test_what_is_meant():
    assert [number(v) for v in (3, 2.5, "3", "2.5", " 7 ", "1e3", 10**400)] == [3, 2.5, 3, 2.5, 7, 1000, INF]
    assert all(math.isnan(number(v)) for v in (None, "", NAN, "nan"))
    assert [number(v) for v in (True, "x", "1_0", [], {}, "1,5")] == [None] * 6
    assert [identity(v) for v in (3, "3", 3.0, "3.0", "003", "a", 2**70, "-4")] == [3, 3, 3, 3, "003", "a", 2**70, -4]
    assert [identity(v) for v in (None, "", True, 3.5, NAN, INF, [], {})] == [None] * 8
    assert [flag(v) for v in ("TRUE", " 0 ", "yes", 10**400, "maybe")] == [1, 0, 1, None, None]
    assert shown("a\nb") == "'a\\nb'" and len(shown({"a": ["x" * 1000] * 1000})) <= 200 and shown("café") == "café"
