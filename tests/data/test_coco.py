"""COCO folders: found, checked, mended and evaluated."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from PIL import Image

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.data import class_names, find_dataset, register, register_coco
from fcos_d2.errors import FcosError

SHARED = Path(os.environ.get("FCOS_D2_SHARED", Path(__file__).resolve().parents[3] / "shared"))
NAMES = ("cat", "dog")


pytestmark = pytest.mark.usefixtures("clean_catalog")


@pytest.fixture
def shared_data():
    if not (SHARED / "data" / "bccd").is_dir():
        pytest.skip(f"no shared data in {SHARED}")
    return SHARED / "data"


def annotation(number, image=1, category=1, bbox=(2, 2, 10, 8), **more):
    row = {"id": number, "image_id": image, "category_id": category, "bbox": list(bbox), "area": 80.0, "iscrowd": 0}
    return {key: value for key, value in {**row, **more}.items() if value is not ...}


def coco(count=2, annotations=None, names=NAMES):
    return {
        "images": [{"id": n + 1, "file_name": f"{n}.png", "width": 32, "height": 24} for n in range(count)],
        "annotations": [annotation(1)] if annotations is None else annotations,
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(names)],
    }


def write(path: Path, content, images: Path | None = None) -> Path:
    """Write annotations (text as it is) and the images they name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    if images is not None:
        images.mkdir(parents=True, exist_ok=True)
        for row in content["images"]:
            Image.new("RGB", (row["width"], row["height"])).save(images / row["file_name"])
    return path


def registered(folder: Path, content, name="set") -> str:
    return register_coco(name, write(folder / "a.json", content, folder / "images"), folder / "images")


def perfect_ap(name: str, output: Path) -> dict:
    """COCO's results of detections that equal the ground truth."""
    evaluator = COCOEvaluator(name, output_dir=str(output), tasks=("bbox",), distributed=False)
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        rows = [row for row in record["annotations"] if not row["iscrowd"]]
        found = Instances((record["height"], record["width"]))
        boxes = torch.tensor([row["bbox"] for row in rows], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found.pred_boxes = Boxes(boxes)
        found.pred_classes = torch.tensor([row["category_id"] for row in rows], dtype=torch.int64)
        found.scores = torch.ones(len(rows))
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


# Finding


@pytest.mark.parametrize(
    ("files", "images"),
    [
        ({"train": "train.json", "val": "val.json", "test": "test.json"}, ["images"] * 3),
        ({"train": "train.json", "val": "val.json"}, ["images/train", "images/val"]),
        ({"train": "annotations/train.json", "val": "annotations/val.json"}, ["train", "val"]),
        ({"train": "annotations/train.json", "val": "annotations/val.json"}, ["images", "images"]),
        (
            {"train": "annotations/instances_train2017.json", "val": "annotations/instances_val2017.json"},
            ["train2017", "val2017"],
        ),
        ({part: f"{part}/_annotations.coco.json" for part in ("train", "test")}, ["train", "test"]),
        ({"train": "train/labels.json", "val": "validation/labels.json"}, ["train/data", "validation/data"]),
        ({"train": "annotations/instances_default.json"}, ["images"]),
        ({"train": "train.json", "val": "val.json"}, [".", "."]),
    ],
)
def test_layouts_are_found(tmp_path, files, images):
    root = tmp_path / "data"
    for (_part, name), folder in zip(files.items(), images, strict=True):
        (root / "images").mkdir(parents=True, exist_ok=True)  # a distraction where images lie elsewhere
        write(root / name, coco(), root / folder)
    layout = find_dataset(root)
    assert layout.format == "coco"
    assert {part: split.annotations for part, split in layout.splits.items()} == {
        part: root / name for part, name in files.items()
    }
    assert [split.images.resolve() for split in layout.splits.values()] == [(root / f).resolve() for f in images]


def test_roboflow_calls_its_val_part_valid(tmp_path):
    for part in ("train", "valid"):
        write(tmp_path / "data" / part / "_annotations.coco.json", coco(), tmp_path / "data" / part)
    names = register(find_dataset(tmp_path / "data"), "robo")
    assert (names.train, names.val, names.test) == ("robo_train", "robo_val", None)


def test_images_named_with_their_folder_are_found(tmp_path):
    content = coco(1)
    content["images"][0]["file_name"] = "images/0.png"
    (tmp_path / "data" / "images").mkdir(parents=True)
    write(tmp_path / "data" / "train.json", content, tmp_path / "data")
    assert find_dataset(tmp_path / "data").splits["train"].images == tmp_path / "data" / "."


def test_folders_without_a_data_set(tmp_path):
    with pytest.raises(FcosError, match="gone does not exist"):
        find_dataset(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FcosError, match="is empty"):
        find_dataset(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("-")
    with pytest.raises(FcosError, match=r"holds empty/, notes\.txt; looked for coco: train\.json"):
        find_dataset(tmp_path)
    with pytest.raises(FcosError, match="is a file"):
        find_dataset(tmp_path / "notes.txt")


# Registering


def test_records_are_detectron2s(tmp_path):
    crowd = annotation(3, iscrowd=1, segmentation={"counts": [0, 100, 668], "size": [24, 32]})
    content = coco(3, [annotation(2, image=2, category=2), annotation(1), crowd])
    name = registered(tmp_path, content)
    records = DatasetCatalog.get(name)
    assert records == load_coco_json(str(tmp_path / "a.json"), str(tmp_path / "images"), "same_by_detectron2")
    MetadataCatalog.remove("same_by_detectron2")
    assert [len(record["annotations"]) for record in records] == [2, 1, 0]  # the image without any stays
    assert [row["iscrowd"] for row in records[0]["annotations"]] == [0, 1]
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == str(tmp_path / "a.json")  # nothing to mend: no copy
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1}
    assert class_names(name) == list(NAMES)


def test_class_order_is_that_of_the_ids(tmp_path):
    content = coco(1, [annotation(1, category=90)])
    content["categories"] = [{"id": 90, "name": "b"}, {"id": 7, "name": "a"}]
    name = registered(tmp_path, content)
    assert class_names(name) == ["a", "b"]
    assert DatasetCatalog.get(name)[0]["annotations"][0]["category_id"] == 1


DEGENERATE = [
    (5, 5, 0, 4),
    (5, 5, 4, 0),
    (5, 5, -3, 4),
    (float("nan"), 5, 4, 4),
    (5, 5, float("inf"), 4),
    (32, 0, 4, 4),
    (0, 24, 4, 4),
    (-9, 2, 9, 4),
    (2, -9, 4, 9),
]


def test_degenerate_boxes_are_dropped_and_reported_once(tmp_path, caplog):
    good = [annotation(1), annotation(2, bbox=(-4, -4, 5, 5)), annotation(3, bbox=(31, 23, 40, 40))]
    bad = [annotation(10 + n, bbox=bbox) for n, bbox in enumerate(DEGENERATE)]
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        name = registered(tmp_path, coco(1, bad + good))
        registered(tmp_path, coco(1, bad + good))
        register_coco("again", tmp_path / "a.json", tmp_path / "images")
    messages = [row.getMessage() for row in caplog.records if row.name == "fcos_d2"]
    assert len(messages) == 1
    assert str(tmp_path / "a.json") in messages[0]
    assert "9 of 12 boxes are degenerate" in messages[0]
    assert messages[0].endswith("annotation ids: 10, 11, 12, 13, 14, ....")
    (record,) = DatasetCatalog.get(name)
    assert [row["bbox"] for row in record["annotations"]] == [row["bbox"] for row in good]
    assert perfect_ap(name, tmp_path / "out")["AP"] == pytest.approx(100)  # nor do they count as missed


@pytest.mark.parametrize(
    "lacking",
    [
        {"area": ...},
        {"iscrowd": ...},
        {"area": None, "iscrowd": None},
        {"segmentation": [[1, 1, 5, 5]]},
        {"segmentation": []},
        {"ignore": 0},
        {"id": ...},
    ],
    ids=str,
)
def test_evaluation_copes_with_what_annotations_lack(tmp_path, lacking):
    rows = [annotation(n + 1, image=1 + n % 2, category=1 + n // 2, **lacking) for n in range(4)]
    name = registered(tmp_path, coco(2, rows))
    assert [len(record["annotations"]) for record in DatasetCatalog.get(name)] == [2, 2]
    assert MetadataCatalog.get(name).json_file != str(tmp_path / "a.json")
    assert perfect_ap(name, tmp_path / "out")["AP"] == pytest.approx(100)


def test_annotation_id_zero_counts(tmp_path):
    """pycocotools takes a detection of annotation 0 for a wrong one; exporters number from 0."""
    name = registered(tmp_path, coco(2, [annotation(0), annotation(1, image=2)]))
    assert perfect_ap(name, tmp_path / "out")["AP"] == pytest.approx(100)


def test_repeated_annotation_ids_are_renumbered(tmp_path):
    name = registered(tmp_path, coco(2, [annotation(5), annotation(5, image=2)]))
    assert [len(record["annotations"]) for record in DatasetCatalog.get(name)] == [1, 1]


def test_ignored_annotations_become_crowd(tmp_path):
    name = registered(tmp_path, coco(1, [annotation(1), annotation(2, ignore=1)]))
    assert [row["iscrowd"] for row in DatasetCatalog.get(name)[0]["annotations"]] == [0, 1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_of_unicode(tmp_path, encoding):
    path = write(tmp_path / "a.json", coco(1, names=("café", "dog")), tmp_path / "images")
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    name = register_coco("marked", path, tmp_path / "images")
    assert len(DatasetCatalog.get(name)) == 1 and class_names(name) == ["café", "dog"]
    assert perfect_ap(name, tmp_path / "out")["AP"] == pytest.approx(100)


def test_names_on_a_system_that_is_not_utf_8(tmp_path, monkeypatch):
    """pycocotools opens files in the system's encoding, so it gets a copy that is ASCII."""
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ISO-8859-1")
    write(tmp_path / "a.json", json.dumps(coco(1, names=("café", "dog")), ensure_ascii=False))
    Image.new("RGB", (32, 24)).save(tmp_path / "0.png")
    name = register_coco("latin", tmp_path / "a.json", tmp_path)
    assert Path(MetadataCatalog.get(name).json_file).read_bytes().isascii() and class_names(name)[0] == "café"


def test_unwritable_cache_falls_back_to_a_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    name = registered(tmp_path, coco(1, [annotation(1, area=...)]))
    assert Path(MetadataCatalog.get(name).json_file).is_relative_to(tmp_path / "temporary")


def test_registering_again(tmp_path):
    name = registered(tmp_path, coco())
    assert registered(tmp_path, coco()) == name
    registered(tmp_path, coco(names=("cat", "cow")))  # the same file, corrected
    assert class_names(name) == ["cat", "cow"]
    with pytest.raises(FcosError, match=r"'set' is already taken by .*a\.json"):
        registered(tmp_path / "elsewhere", coco())
    DatasetCatalog.register("foreign", list)
    with pytest.raises(FcosError, match="already taken by another program"):
        registered(tmp_path, coco(), name="foreign")


def test_class_names_of_other_registrations(tmp_path):
    assert class_names("coco_2017_train")[0] == "person"
    with pytest.raises(FcosError, match="no data set named 'nothing'"):
        class_names("nothing")


# Bad input


def without(key, of=None):
    content = coco()
    del (content if of is None else content[of][0])[key]
    return content


def with_images(**values):
    content = coco()
    content["images"][0].update(values)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(coco())[:-20], r"a\.json is not valid JSON: .* line 1, column \d+; it may be cut off"),
        ("", "not valid JSON"),
        ([1], "a JSON list instead of an object"),
        (without("images"), "list 'images' is missing; it has 'annotations', 'categories'"),
        (without("annotations"), "list 'annotations' is missing"),
        (without("categories"), "list 'categories' is missing"),
        ({**coco(), "categories": [1]}, "entry of 'categories' is not an object"),
        (coco(0, []), "lists no images"),
        (coco(names=()), "lists no categories"),
        ({**coco(), "categories": [{"id": "one", "name": "cat"}]}, "lacks an integer 'id'"),
        ({**coco(), "categories": [{"id": 1, "name": "a"}] * 2}, "category id 1 twice"),
        (with_images(file_name=7), "file_name 7"),
        (with_images(id=2), "image id 2 twice; the second time for 1.png"),
        (coco(annotations=[annotation(1), annotation(7, image=99)]), r"1 of 2 .* known image_id; .* 7, image_id 99"),
        (coco(annotations=[annotation(8, category=3)]), "annotation 8, category_id 3, which is not in 'categories'"),
        (coco(annotations=[annotation(4, bbox=(1, 2, 3))]), r"Annotation 4 .* bbox \[1, 2, 3\]; it must be four"),
        (coco(annotations=[annotation(4, bbox=["a"] * 4)]), "must be four numbers"),
    ],
)
def test_wrong_files_are_named_in_one_sentence(tmp_path, content, message):
    write(tmp_path / "a.json", content)
    for n in range(2):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{n}.png")
    with pytest.raises(FcosError, match=message) as error:
        register_coco("wrong", tmp_path / "a.json", tmp_path)
    assert "a.json" in str(error.value)
    assert "\n" not in str(error.value)
    assert "wrong" not in DatasetCatalog.list()


def test_missing_files(tmp_path):
    with pytest.raises(FcosError, match=r"gone\.json cannot be read: No such file"):
        register_coco("wrong", tmp_path / "gone.json", tmp_path)
    write(tmp_path / "a.json", coco(3), tmp_path / "images")
    for n in (1, 2):
        (tmp_path / "images" / f"{n}.png").unlink()
    with pytest.raises(FcosError, match=r"2 of 3 images named in .*a\.json are missing .*, the first: 1\.png"):
        register_coco("wrong", tmp_path / "a.json", tmp_path / "images")


def test_equal_category_names_are_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        name = registered(tmp_path, coco(names=("cat", "cat")))
    assert "two categories named 'cat'" in caplog.text
    assert class_names(name) == ["cat", "cat"]


# Parts together


def two_parts(root, train=None, val=None):
    write(root / "train.json", train or coco(), root / "images")
    write(root / "val.json", val or coco(), root / "images")
    return find_dataset(root)


def test_parts_must_have_the_same_classes(tmp_path):
    layout = two_parts(tmp_path / "data", val=coco(names=("cat", "cow", "sow")))
    with pytest.raises(FcosError, match=r"train\.json \(2 .*val\.json \(3\).* first: dog; .* second: cow, sow"):
        register(layout, "x")
    layout = two_parts(tmp_path / "data", coco(names=("cat", "cat", "dog")), coco(names=("dog", "cat", "cat")))
    with pytest.raises(FcosError, match="some names repeat, and the order differs"):
        register(layout, "x")


def test_parts_are_matched_by_the_names_of_classes(tmp_path, caplog):
    val = coco(1, [annotation(1, category=7), annotation(2, category=9, bbox=(1, 1, 5, 5))])
    val["categories"] = [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}]  # in another order, too
    layout = two_parts(tmp_path / "data", val=val)
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        names = register(layout, "x")
    assert caplog.text.count("matched with those of") == 1
    assert class_names(names.train) == class_names(names.val) == list(NAMES)
    assert [row["category_id"] for row in DatasetCatalog.get(names.val)[0]["annotations"]] == [1, 0]
    assert {row["category_id"] for row in json.loads(Path(MetadataCatalog.get(names.val).json_file).read_text())[
        "annotations"]} == {1, 2}  # fmt: skip
    assert perfect_ap(names.val, tmp_path / "out")["AP"] == pytest.approx(100)


def test_a_part_may_lack_classes(tmp_path):
    val = coco(1, [annotation(1, category=1)], names=("dog",))
    names = register(two_parts(tmp_path / "data", val=val), "x")
    assert class_names(names.val) == list(NAMES)
    assert [row["category_id"] for row in DatasetCatalog.get(names.val)[0]["annotations"]] == [1]
    found = perfect_ap(names.val, tmp_path / "out")
    assert found["AP-dog"] == pytest.approx(100) and np.isnan(found["AP-cat"])


def test_equal_ids_of_other_names_are_a_sentence(tmp_path):
    layout = two_parts(tmp_path / "data", val=coco(names=("car", "bus")))
    with pytest.raises(FcosError, match="only in the first: cat, dog; only in the second: car, bus"):
        register(layout, "x")


def test_train_needs_boxes(tmp_path):
    layout = two_parts(tmp_path / "data", train=coco(annotations=[annotation(1, iscrowd=1)]))
    with pytest.raises(FcosError, match=r"train\.json has no usable box"):
        register(layout, "x")
    assert register(layout, "x", need=("val",)).val == "x_val"
    layout = two_parts(tmp_path / "more", val=coco(annotations=[]))
    assert register(layout, "y").val == "y_val"  # nothing to find is a fair question


def test_a_wrong_part_that_is_not_needed_is_left_out(tmp_path, caplog):
    write(tmp_path / "data" / "test.json", "{")
    layout = two_parts(tmp_path / "data")
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        names = register(layout, "x")
    assert names.test is None
    assert "test part" in caplog.text and "test.json is not valid JSON" in caplog.text


def test_val_share(tmp_path):
    rows = [annotation(n + 1, image=n + 1) for n in range(20)]
    content = coco(20, rows)
    root = tmp_path / "data"
    write(root / "train.json", content, root / "images")
    with pytest.raises(FcosError, match=r"no val part: add one .* val_fraction \(--val-fraction 0\.2\)"):
        register(find_dataset(root), "x")
    with pytest.raises(FcosError, match=r"val_fraction is 1\.5"):
        register(find_dataset(root), "x", val_fraction=1.5)
    names = register(find_dataset(root), "x", val_fraction=0.25)
    parts = [{record["file_name"] for record in DatasetCatalog.get(name)} for name in (names.train, names.val)]
    assert [len(part) for part in parts] == [12, 8]
    assert not parts[0] & parts[1]
    assert perfect_ap(names.val, tmp_path / "out")["AP"] == pytest.approx(100)
    # The order of the file does not matter.
    write(root / "train.json", {**content, "images": content["images"][::-1]})
    again = register(find_dataset(root), "y", val_fraction=0.25)
    assert {record["file_name"] for record in DatasetCatalog.get(again.val)} == parts[1]


def test_an_image_stays_on_its_side_when_others_come_and_go(tmp_path):
    def val(first, last):
        root = tmp_path / f"{first}_{last}"
        content = coco(last, [annotation(n + 1, image=n + 1) for n in range(last)])
        content["images"] = content["images"][first:]
        content["annotations"] = content["annotations"][first:]
        write(root / "train.json", content, root / "images")
        names = register(find_dataset(root), f"sides_{first}_{last}", val_fraction=0.3)
        return {Path(record["file_name"]).name for record in DatasetCatalog.get(names.val)}

    whole = val(0, 40)
    for first, last in ((0, 39), (0, 23), (11, 40)):
        here = {row["file_name"] for row in coco(last, [])["images"][first:]}
        assert val(first, last) == whole & here
    assert 6 <= len(whole) <= 18  # 0.3 of 40, as far as chance has it


def test_neither_side_is_empty(tmp_path):
    for i, fraction in enumerate((0.001, 0.999)):
        root = tmp_path / str(i)
        write(root / "train.json", coco(3, [annotation(n + 1, image=n + 1) for n in range(3)]), root / "images")
        names = register(find_dataset(root), f"few_{i}", val_fraction=fraction)
        assert sorted(len(DatasetCatalog.get(name)) for name in (names.train, names.val)) == [1, 2]


# Real data


def test_bccd(shared_data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        names = register(find_dataset(shared_data / "bccd"), "cells")
    counts = []
    for name in (names.train, names.val, names.test):
        records = DatasetCatalog.get(name)
        counts.append((len(records), sum(len(record["annotations"]) for record in records)))
        boxes = np.array([row["bbox"] for record in records for row in record["annotations"]])
        assert (boxes[:, 2:] > 0).all()
    assert counts == [(205, 2804), (87, 1137), (72, 945)]
    assert class_names(names.val) == ["Platelets", "RBC", "WBC"]
    result = perfect_ap(names.val, tmp_path / "out")
    assert result["AP"] == pytest.approx(100)
    assert result["AP-WBC"] == pytest.approx(100)


def test_coco_subset(shared_data):
    names = register(find_dataset(shared_data / "coco"), "subset")
    assert [len(DatasetCatalog.get(name)) for name in (names.train, names.val)] == [80, 80]
    assert len(class_names(names.train)) == 80
    assert MetadataCatalog.get(names.val).json_file.endswith("coco/annotations/instances_val2017.json")
