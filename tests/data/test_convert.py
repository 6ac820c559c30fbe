"""Data sets in other formats: the same boxes, and an account of what a format cannot say."""

from __future__ import annotations

import json
import random
import shutil
from itertools import permutations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog
from PIL import Image

from fcos_d2.data import class_names, find_dataset, register
from fcos_d2.data.convert import Account, write_set
from fcos_d2.data.exports import WRITERS
from fcos_d2.data.parts import divided, open_parts
from fcos_d2.data.transfer import WAYS
from fcos_d2.errors import FcosError
from fcos_d2.evaluation import FastCOCOEvaluator

pytestmark = pytest.mark.usefixtures("clean_catalog")
Labels = dict[str, dict[str, list[tuple[str, list[float], int]]]]


def coco(folder: Path, boxes: dict[str, list[tuple[Any, ...]]], names: tuple[str, ...] = ("cat", "dog"),
         size: tuple[int, int] = (320, 240), part: str = "train") -> Path:  # fmt: skip
    """A data set with a row (class index, box, crowd, ...) for each label of each image."""
    images, annotations = [], []
    for number, (name, rows) in enumerate(boxes.items(), start=1):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number * 30 % 256, 90, 60)).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        for label, box, crowd, *more in rows:
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * label + 5, "bbox": box}
            annotations.append({**row, "iscrowd": crowd, "area": max(box[2] * box[3], 0), **dict(*more)})
    categories = [{"id": 10 * at + 5, "name": name} for at, name in enumerate(names)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / f"{part}.json").write_text(text)
    return folder


def labels(folder: Path, part: str | None = None) -> Labels:
    """Part -> name of the image without folders -> (class, box, crowd) of its labels."""
    found: Labels = {}
    for name, there in open_parts(find_dataset(folder)).items():
        names = {row["id"]: row["name"] for row in there.coco["categories"]}
        found[name] = {path.name: [] for path in there.files.values()}
        for row in there.coco["annotations"]:
            box = names[row["category_id"]], row["bbox"], row["iscrowd"]
            found[name][there.files[row["image_id"]].name].append(box)
    return found


def convert(source: Path, destination: Path, to: str, images: str = "link", **options: Any) -> dict[str, Account]:
    return write_set(open_parts(find_dataset(source)), destination, to, images, source=source, **options)


def some_boxes(draw: random.Random, count: int, decimals: int | None, crowds: bool = False) -> list[tuple[Any, ...]]:
    rows = []
    for _ in range(count):
        x, y, w, h = draw.uniform(-9, 300), draw.uniform(-9, 220), draw.uniform(0.3, 200), draw.uniform(0.3, 150)
        box = [x, y, w, h] if decimals is None else [round(value, decimals) for value in (x, y, w, h)]
        rows.append((draw.randrange(2), box, int(crowds and draw.random() < 0.2)))
    return rows


@pytest.mark.parametrize("decimals", [0, 2, None])
@pytest.mark.parametrize(("there", "back"), list(permutations(WRITERS, 2)))
def test_there_and_back(tmp_path, there, back, decimals):
    """Exact to a billionth of a pixel, as long as boxes are where YOLO's shares can be; to the bit up to 9 decimals."""
    draw = random.Random(decimals)
    names = ["a.jpg", "b.c.png", "été 1.jpg", "sub/d.jpg", "empty.png"]
    boxes = {name: some_boxes(draw, 20 * (name != "empty.png"), decimals) for name in names}
    start = coco(tmp_path / "start", {name: [r for r in rows if fits(r[1])] for name, rows in boxes.items()})
    convert(start, tmp_path / there, there)
    convert(tmp_path / there, tmp_path / "second", back)
    convert(tmp_path / "second", tmp_path / "end", "coco")
    wanted, found = labels(start)["train"], labels(tmp_path / "end")["train"]
    assert wanted.keys() == found.keys() and sum(map(len, wanted.values())) > 40
    for name, rows in wanted.items():
        assert [(kind, crowd) for kind, _, crowd in rows] == [(kind, crowd) for kind, _, crowd in found[name]]
        for (_, one, _), (_, other, _) in zip(rows, found[name]):
            assert one == other if decimals is not None else np.allclose(one, other, rtol=0, atol=2e-9)


def fits(box: list[float]) -> bool:
    """Whether center and sides are within 320 x 240 pixels."""
    x, y, w, h = box
    return 0 < x + w / 2 < 320 and 0 < y + h / 2 < 240 and 0 < w <= 320 and 0 < h <= 240


def test_lines_of_yolo_by_hand(tmp_path):
    start = coco(
        tmp_path / "start", {"a.jpg": [(1, [10, 20, 40, 60], 0)], "b.jpg": []}, names=("no", "1.0"), size=(100, 200)
    )
    convert(start, tmp_path / "yolo", "yolo", "copy")
    assert (tmp_path / "yolo" / "labels" / "train" / "a.txt").read_text() == "1 0.3 0.25 0.4 0.3\n"
    assert (tmp_path / "yolo" / "labels" / "train" / "b.txt").read_text() == ""
    about = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert about == {"train": "images/train", "nc": 2, "names": {0: "no", 1: "1.0"}}


def test_corners_of_voc_by_hand(tmp_path):
    """The first pixel is 1, and both corners lie in the box: one of 40 x 60 pixels from the corner of the image."""
    boxes = {"a.jpg": [(1, [0, 0, 40, 60], 0), (0, [0.25, 1, 1, 1.5], 1)]}
    convert(coco(tmp_path / "start", boxes), tmp_path / "voc", "voc")
    root = ElementTree.parse(tmp_path / "voc" / "Annotations" / "a.xml").getroot()
    corners = [
        [thing.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")] for thing in root.iter("object")
    ]
    assert corners == [["1", "1", "40", "60"], ["1.25", "2", "1.25", "2.5"]]
    assert [(thing.findtext("name"), thing.findtext("difficult")) for thing in root.iter("object")] == [
        ("dog", "0"),
        ("cat", "1"),
    ]
    assert (root.findtext("size/width"), root.findtext("size/height")) == ("320", "240")
    assert (tmp_path / "voc" / "ImageSets" / "Main" / "train.txt").read_text() == "a\n"


FAULTY = {
    "a.jpg": [
        (0, [10, 10, 20, 20], 0), (0, [10, 10, 20, 20], 1), (1, [-30, 5, 40, 10], 0), (1, [30, 5, 0, 10], 0),
        (0, [30, 5, -4, 10], 0), (0, [900, 5, 40, 10], 0), (0, [-5, -5, 400, 300], 0),
    ],
    "b.jpg": [(1, [1, 2, 3, 4], 0, {"segmentation": [[1, 2, 4, 2, 4, 6]], "area": 6, "attributes": {"old": True}})],
}  # fmt: skip


@pytest.mark.parametrize(
    ("to", "written", "crowds", "degenerate", "clipped", "left_out", "not_said"),
    [
        ("coco", 8, 1, 3, 0, {}, {}),
        ("voc", 8, 1, 3, 0, {}, {"masks": 1, "other fields": 1, "areas of masks": 1}),
        (
            "yolo", 5, 0, 1, 2, {"crowd": 1, "negative size": 1, "outside the image": 1},
            {"masks": 1, "other fields": 1, "areas of masks": 1},
        ),
    ],
)  # fmt: skip
def test_the_account_has_every_label(tmp_path, to, written, crowds, degenerate, clipped, left_out, not_said):
    """Degenerate boxes go over where they can be said, so that training counts the same in both."""
    start = coco(tmp_path / "start", FAULTY)
    (account,) = convert(start, tmp_path / "end", to).values()
    counts = account.written, account.crowds, account.degenerate, account.clipped
    assert counts == (written, crowds, degenerate, clipped) and account.annotations == 8
    assert account.left_out == left_out and account.not_said == not_said
    assert account.annotations == account.written + sum(account.left_out.values())
    again = open_parts(find_dataset(tmp_path / "end"))["train"]
    assert len(again.coco["annotations"]) == written and len(again.degenerate) == degenerate
    if to == "coco":
        assert again.coco["annotations"][-1]["segmentation"] == [[1, 2, 4, 2, 4, 6]]


def test_classes_without_objects_keep_their_order(tmp_path):
    """VOC's own files do not say it: labelmap.txt does."""
    start = coco(tmp_path / "start", {"a.jpg": [(1, [1, 2, 3, 4], 0)]}, names=("zebra", "ant", "unused", "Bee"))
    for to in WRITERS:
        convert(start, tmp_path / to, to)
        categories = open_parts(find_dataset(tmp_path / to))["train"].coco["categories"]
        assert [row["name"] for row in sorted(categories, key=lambda row: row["id"])] == [
            "zebra",
            "ant",
            "unused",
            "Bee",
        ]


def test_names_that_a_format_cannot_have_are_told(tmp_path):
    names = ("a\x07b", "a\\x07b", " c ", "c", "", "<&>\"'")
    boxes = {"a.jpg": [(at, [at + 1, 2, 3, 4], 0) for at in range(len(names))]}
    start = coco(tmp_path / "start", boxes, names)
    (account,) = convert(start, tmp_path / "voc", "voc").values()
    assert account.classes_renamed == {"a\x07b": "a\\x07b", "a\\x07b": "a\\x07b-2", " c ": "c", "c": "c-2", "": "class"}
    assert len(labels(tmp_path / "voc")["train"]["a.jpg"]) == 6
    (account,) = convert(start, tmp_path / "yolo", "yolo").values()
    assert set(account.classes_renamed) == {" c "}


def test_images_that_share_a_name(tmp_path):
    """a.jpg and a.png would share a label file; in VOC all parts share a folder, and names have no folders."""
    start = coco(tmp_path / "start", {"a.jpg": [(0, [1, 2, 3, 4], 0)], "a.png": [], "x/b.jpg": [(1, [5, 6, 7, 8], 0)]})
    coco(start / "more", {"a.jpg": [(1, [9, 9, 9, 9], 0)], "b.jpg": []}, part="val", size=(100, 90))
    shutil.move(start / "more" / "images", start / "images" / "val")
    shutil.move(start / "more" / "val.json", start / "val.json")
    (train, val) = convert(start, tmp_path / "yolo", "yolo").values()
    assert train.renamed == {"a.png": "a-2.png"} and val.renamed == {}
    (train, val) = convert(start, tmp_path / "voc", "voc").values()
    assert train.renamed == {"a.png": "a-2.png", "x/b.jpg": "b.jpg"} and val.renamed == {
        "a.jpg": "a-3.jpg",
        "b.jpg": "b-2.jpg",
    }
    for to in ("yolo", "voc"):
        found = labels(tmp_path / to)
        assert sorted(map(len, found["train"].values())) == [0, 1, 1] and sorted(map(len, found["val"].values())) == [
            0,
            1,
        ]
        assert Image.open(next((tmp_path / to).rglob("a-2.png"))).size == (320, 240)


def test_names_of_images_that_lists_and_folders_cannot_have(tmp_path):
    boxes = {
        name: [(0, [1, 2, 3, 4], 0)] for name in ("images/a b.jpg", ".hidden.png", "two\nlines.jpg", "labels/c.jpg")
    }
    start = coco(tmp_path / "start", boxes)
    shutil.copy(start / "images" / "images" / "a b.jpg", start / "images" / "no_suffix")
    text = (start / "train.json").read_text()
    (start / "train.json").write_text(text.replace("labels/c.jpg", "no_suffix"))
    for to in WRITERS:
        convert(start, tmp_path / to, to, "copy")
        assert sorted(map(len, labels(tmp_path / to)["train"].values())) == [1, 1, 1, 1]


@pytest.mark.parametrize("to", WRITERS)
def test_photographs_that_exif_turns(tmp_path, to):
    """The size is that of the file, so boxes are turned; what is written is upright and not turned again."""
    start = coco(tmp_path / "start", {"a.jpg": [(0, [10, 20, 40, 30], 0)]})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (320, 240)).save(start / "images" / "a.jpg", exif=exif)
    convert(start, tmp_path / "end", to, "copy")
    assert (
        labels(start)["train"]["a.jpg"] == [("cat", [190, 10, 30, 40], 0)] == labels(tmp_path / "end")["train"]["a.jpg"]
    )
    (row,) = open_parts(find_dataset(tmp_path / "end"))["train"].coco["images"]
    assert (row["width"], row["height"]) == (240, 320)


def test_classes_of_yolo_count_from_1_in_coco(tmp_path):
    convert(coco(tmp_path / "start", {"a.jpg": [(0, [1, 2, 3, 4], 0)]}), tmp_path / "yolo", "yolo")
    convert(tmp_path / "yolo", tmp_path / "end", "coco")
    text = json.loads((tmp_path / "end" / "train.json").read_text())
    assert text["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [row["category_id"] for row in text["annotations"]] == [1]
    assert not any(key.startswith("fcos_") for row in (text, *text["annotations"]) for key in row)


def test_parts_of_different_classes_get_all_of_them(tmp_path):
    start = coco(tmp_path / "start", {"a.jpg": [(0, [1, 2, 3, 4], 0)]}, names=("cat", "dog"))
    coco(start, {"b.jpg": [(0, [1, 2, 3, 4], 0), (1, [1, 2, 3, 4], 0)]}, names=("dog", "cow"), part="val")
    for to in WRITERS:
        convert(start, tmp_path / to, to)
        found = labels(tmp_path / to)
        assert [row[0] for row in found["train"]["a.jpg"]] == ["cat"]
        assert [row[0] for row in found["val"]["b.jpg"]] == ["dog", "cow"]
    coco(start, {"b.jpg": []}, names=("dog", "dog"), part="val")
    with pytest.raises(FcosError, match="give each class a name of its own"):
        convert(start, tmp_path / "more", "coco")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("to", WRITERS)
def test_images_are_copied_linked_or_left(tmp_path, to, way):
    start = coco(tmp_path / "start", {"a.jpg": [(0, [1, 2, 3, 4], 0)], "sub/b.jpg": []})
    (account,) = convert(start, tmp_path / "end", to, way).values()
    there = {path.name: path for path in (tmp_path / "end").rglob("*.jpg")}
    assert set(there) == (set() if way == "none" else {"a.jpg", "b.jpg"})
    for path in there.values():
        assert path.is_symlink() is (way == "link")
        assert path.read_bytes() == next((start / "images").rglob(path.name)).read_bytes()
    if way != "none":
        return
    assert account.images_from == (None if to == "voc" else start / "images")
    if account.images_from is not None:
        (tmp_path / "end" / account.home).symlink_to(account.images_from)
        assert labels(tmp_path / "end") == labels(start)


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    start = coco(tmp_path / "start", {"a.jpg": [(0, [1, 2, 3, 4], 0)]})
    parts = open_parts(find_dataset(start))
    (start / "images" / "a.jpg").unlink()
    with pytest.raises(FcosError, match="No such file"):
        write_set(parts, tmp_path / "end", "yolo", source=start)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    coco(start, {"a.jpg": [(0, [1, 2, 3, 4], 0)]})
    with pytest.raises(FcosError, match=r"0 MB are free.*--images link"):
        write_set(parts, tmp_path / "end", "yolo", source=start)
    assert {path.name for path in tmp_path.iterdir()} == {"start"}


@pytest.mark.parametrize("stratify", [False, True])
def test_dividing_conserves_labels(tmp_path, stratify):
    draw = random.Random(5)
    start = coco(tmp_path / "start", {f"{n}.jpg": some_boxes(draw, n % 5, 1) for n in range(30)})
    whole = labels(start)["train"]
    parts = divided(open_parts(find_dataset(start)), {"val": 0.2, "test": 0.2}, stratify=stratify)
    accounts = write_set(parts, tmp_path / "end", "coco", "link", source=start)
    found = labels(tmp_path / "end")
    assert list(accounts) == ["train", "val", "test"] and min(one.images for one in accounts.values()) > 0
    assert {name: rows for part in found.values() for name, rows in part.items()} == whole
    assert sum(map(len, found.values())) == 30
    with pytest.raises(FcosError, match="has a val part already: --pool"):
        divided(open_parts(find_dataset(tmp_path / "end")), {"val": 0.2})
    pooled = divided(open_parts(find_dataset(tmp_path / "end")), {"val": 0.5}, pool=True)
    write_set(pooled, tmp_path / "pooled", "voc", "link", source=start)
    assert {name: rows for part in labels(tmp_path / "pooled").values() for name, rows in part.items()} == whole


@pytest.fixture(scope="module")
def bccd(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real data, and the same in each format that is written."""
    source, home = shared / "data" / "bccd", tmp_path_factory.mktemp("bccd")
    for to in WRITERS:
        convert(source, home / to, to)
    return {"as it is": source, **{to: home / to for to in WRITERS}}


def test_real_data_is_the_same_to_the_bit_in_every_format(bccd):
    """Records that training reads, and the numbers of an evaluation."""
    records, numbers = {}, {}
    for form, folder in bccd.items():
        names = register(find_dataset(folder), f"bccd_{form}", need=("train", "val", "test"))
        assert class_names(names.train) == ["Platelets", "RBC", "WBC"]
        records[form] = {part: plain_records(name) for part, name in vars(names).items()}
        numbers[form] = evaluation(names.val)
    assert {part: len(rows) for part, rows in records["as it is"].items()} == {"train": 205, "val": 87, "test": 72}
    for form in WRITERS:
        assert records[form] == records["as it is"]
        np.testing.assert_equal(numbers[form], numbers["as it is"])
    assert 0.2 < numbers["as it is"]["AP"] / 100 < 0.95


def plain_records(name: str) -> dict[str, list]:
    """Name of the image -> its size, and what Detectron2 is given of its boxes."""
    found = {}
    for record in DatasetCatalog.get(name):
        rows = [(row["category_id"], row["bbox"], row["iscrowd"], row["bbox_mode"]) for row in record["annotations"]]
        found[Path(record["file_name"]).name] = [record["height"], record["width"], rows]
    return found


def evaluation(name: str) -> dict[str, float]:
    """AP of boxes near the true ones, the same for the same labels."""
    import torch
    from detectron2.structures import Boxes, Instances

    evaluator = FastCOCOEvaluator(name, distributed=False)
    evaluator.reset()
    for record in sorted(DatasetCatalog.get(name), key=lambda record: Path(record["file_name"]).name):
        draw = random.Random(Path(record["file_name"]).name)
        found = Instances((record["height"], record["width"]))
        rows = [[value + draw.gauss(0, 3) for value in row["bbox"]] for row in record["annotations"]]
        boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found.pred_boxes = Boxes(boxes)
        found.scores = torch.tensor([draw.random() for _ in rows])
        found.pred_classes = torch.tensor([row["category_id"] for row in record["annotations"]], dtype=torch.int64)
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["bbox"]
