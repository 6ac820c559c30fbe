"""Image files by the names that annotations have for them, and boxes in the frame of the file."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from fcos_d2.data import find_dataset, register, register_coco
from fcos_d2.data.images import read_image
from fcos_d2.data.mapper import FastMapper
from fcos_d2.data.pictures import Pictures
from fcos_d2.errors import FcosError
from fcos_d2.train.own_data import check_images

pytestmark = pytest.mark.usefixtures("clean_catalog")


def picture(path: Path, size=(32, 24), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **options)
    return path


def coco(*names, **image):
    return {
        "images": [{"id": n, "file_name": name, "width": 32, "height": 24, **image} for n, name in enumerate(names)],
        "annotations": [
            {"id": n + 1, "image_id": n, "category_id": 1, "bbox": [2, 3, 10, 8], "area": 80, "iscrowd": 0}
            for n in range(len(names))
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }


def records(folder: Path, content) -> list[dict]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.json").write_text(json.dumps(content))
    names = register(find_dataset(folder), "set", need=("train",))
    return DatasetCatalog.get(names.train)


# Names


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("images\\0.png", "images/0.png"),
        (".\\images\\0.png", "images/0.png"),
        ("..\\..\\upload\\0.png", "images/0.png"),
        ("../../upload/0.png", "images/0.png"),
        ("C:\\Users\\me\\0.png", "images/0.png"),
        ("d:/me/0.png", "images/0.png"),
        ("/data/upload/1/abc-0.png", "images/abc-0.png"),
        ("/data/local-files/?d=project%2F0.png", "images/0.png"),
        ("http://host:8080/data/upload/1/0.png", "images/0.png"),
        ("https://host/0.png?size=9&x=/y", "images/0.png"),
        ("s3://bucket/a/0.png", "images/0.png"),
        ("file:///C:/me/0.png", "images/0.png"),
        ("./0.png", "images/0.png"),
        ("some%20cat%201.png", "images/some cat 1.png"),
        ("0.PNG", "images/0.png"),
        ("IMAGES/0.png", "images/0.png"),
        ("0.jpg", "images/0.JPG"),
        (unicodedata.normalize("NFD", "café.png"), "images/café.png"),
        ("upload/café.png", "images/" + unicodedata.normalize("NFD", "café.png")),
        ("elsewhere/0.png", "images/0.png"),
    ],
)
def test_names_of_other_machines_are_found(tmp_path, name, file):
    root = tmp_path / "data"
    picture(root / file)
    picture(root / "images" / "1.png")
    picture(tmp_path / "upload" / "0.png")  # outside: is not read
    (record,) = records(root, coco(name))
    assert Path(record["file_name"]).resolve() == (root / file).resolve()
    assert Path(json.loads(Path(MetadataCatalog.get("set_train").json_file).read_text())["images"][0]["file_name"]).name


def test_absolute_names_inside_and_outside(tmp_path):
    inside, outside = picture(tmp_path / "data" / "deep" / "0.png"), picture(tmp_path / "other" / "1.png")
    (record,) = records(tmp_path / "data", coco(str(inside)))
    assert Path(record["file_name"]).resolve() == inside.resolve()
    for name in (str(outside), "../other/1.png", "deep/../../other/1.png", "..\\other\\1.png", "%2e%2e/other/1.png"):
        with pytest.raises(FcosError, match=r"1 of 1 images .* missing from .*only images below .* are read") as error:
            records(tmp_path / "data", coco(name))
        assert name in str(error.value)


def test_of_several_files_the_one_whose_folders_agree(tmp_path):
    for folder in ("a", "b"):
        picture(tmp_path / "images" / folder / "0.png")
    find = Pictures(tmp_path / "images").find
    assert find("C:\\x\\b\\0.png") == ["b/0.png"]
    assert find("C:\\x\\0.png") == ["a/0.png", "b/0.png"]
    with pytest.raises(FcosError, match=r"the first: x\\0\.png, which may be a/0\.png or b/0\.png; .* 'file_name'"):
        register_coco("s", write(tmp_path / "t.json", coco("x\\0.png")), tmp_path / "images")


def write(path: Path, content) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_two_names_never_become_one_file(tmp_path):
    picture(tmp_path / "data" / "images" / "0.png")
    for names in (("a\\0.png", "b\\0.png"), ("0.png", "b\\0.png")):
        with pytest.raises(FcosError, match=r"\\0\.png, which seems to be the file of another name, too; put them"):
            records(tmp_path / "data", coco(*names))


def test_an_image_that_is_missing_is_not_taken_from_elsewhere(tmp_path):
    """Where the names are right, an absent one is no name of another machine."""
    root = tmp_path / "data"
    picture(root / "train" / "0.png")
    picture(root / "val" / "1.png")
    for names in (("train/0.png", "train/1.png"), ("train/0.png", "1.png"), ("train/0.png", "train\\2.png")):
        with pytest.raises(FcosError, match="1 of 2 images"):
            records(root, coco(*names))


def test_hidden_files_are_nobodys_image(tmp_path):
    for name in ("._0.png", "__MACOSX/0.png", ".cache/0.png", "images/0.png"):
        picture(tmp_path / name)
    assert Pictures(tmp_path).find("C:\\0.png") == ["images/0.png"]


@pytest.mark.parametrize(
    "name", ["a\0b.png", "\ud800.png", "x" * 5000, "..", "/", "C:", "\\", "//", "http://", "?", " "]
)
def test_names_that_cannot_be(tmp_path, name):
    picture(tmp_path / "data" / "0.png")
    with pytest.raises(FcosError, match="missing"):
        records(tmp_path / "data", coco(name))


# Sizes


@pytest.mark.parametrize("value", [0, -1, ..., None, "", "wide", "0", float("nan"), float("inf"), True, [], "1e999"])
@pytest.mark.parametrize("keys", [("width", "height"), ("height",)])
def test_sizes_that_are_none_are_the_files(tmp_path, caplog, value, keys):
    picture(tmp_path / "data" / "0.jpg", (40, 30))
    content = coco("0.jpg")
    for key in keys:
        content["images"][0][key] = value
        if value is ...:
            del content["images"][0][key]
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        (record,) = records(tmp_path / "data", content)
    assert (record["width"], record["height"]) == (40, 30)
    assert "1 of 1 images have no usable width and height, which are read from the files" in caplog.text


# Photographs

STORED, UPRIGHT = (64, 48), (48, 64)


def photograph(path: Path, number: int, box) -> Path:
    """An image whose EXIF data turn it, with a white box of upright pixels."""
    upright = np.zeros((*(UPRIGHT if number >= 5 else STORED)[::-1], 3), np.uint8)
    x, y, w, h = box
    upright[y : y + h, x : x + w] = 255
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[number]  # fmt: skip
    exif = Image.Exif()
    exif[274] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(upright).transpose(undo).save(
        path, exif=exif, **({"quality": 100} if path.suffix == ".jpg" else {})
    )
    with Image.open(path) as image:
        assert path.suffix == ".tif" or image.size == STORED
    found = np.argwhere(read_image(path)[:, :, 0] > 128)
    assert found.min(0).tolist() == [y, x] and found.max(0).tolist() == [y + h - 1, x + w - 1]
    return path


def before_turning(number, box):
    """A box of an upright image as it lies in the file."""
    x, y, w, h = box
    image = np.zeros(UPRIGHT[::-1], np.uint8)
    image[y : y + h, x : x + w] = 1
    undone = {5: image.T, 6: np.rot90(image), 7: np.rot90(image, 2).T, 8: np.rot90(image, -1)}[number]
    found = np.argwhere(undone)
    (top, left), (bottom, right) = found.min(0).tolist(), found.max(0).tolist()
    return [left, top, right + 1 - left, bottom + 1 - top]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("number", [5, 6, 7, 8])
def test_labels_before_turning_are_turned(tmp_path, caplog, suffix, number):
    box = (4, 8, 16, 24)
    photograph(tmp_path / "data" / f"0.{suffix}", number, box)
    content = coco(f"0.{suffix}", width=STORED[0], height=STORED[1])
    content["annotations"][0] |= {"bbox": before_turning(number, box), "segmentation": [[1, 1, 9, 1, 9, 9]]}
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        (record,) = records(tmp_path / "data", content)
    assert (record["width"], record["height"]) == UPRIGHT
    assert record["annotations"][0]["bbox"] == list(box) and "segmentation" not in record["annotations"][0]
    assert (
        "1 photographs are turned by their EXIF orientation, and their width and height are those before" in caplog.text
    )
    check_images(["set_train"])
    found = FastMapper(is_train=True, augmentations=[], image_format="RGB")(record)
    x0, y0, x1, y1 = found["instances"].gt_boxes.tensor[0].int().tolist()
    assert (found["image"][:, y0:y1, x0:x1] > 128).all() and (found["image"] > 128).sum() == 3 * (x1 - x0) * (y1 - y0)


def test_labels_on_the_turned_image_with_the_size_before_turning(tmp_path, caplog):
    """A box that reaches below the height before turning shows it for all images."""
    boxes = [(4, 8, 16, 24), (4, 40, 16, 24)]
    for n, box in enumerate(boxes):
        photograph(tmp_path / "data" / f"{n}.jpg", 6, box)
    content = coco("0.jpg", "1.jpg", width=STORED[0], height=STORED[1])
    for n, box in enumerate(boxes):
        content["annotations"][n]["bbox"] = list(box)
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        found = records(tmp_path / "data", content)
    assert [record["annotations"][0]["bbox"] for record in found] == [list(box) for box in boxes]
    assert [(record["width"], record["height"]) for record in found] == [UPRIGHT] * 2
    assert (
        "2 photographs" in caplog.text
        and "drawn on the turned images, beyond whose other size they reach" in caplog.text
    )
    content["annotations"][0]["bbox"] = [40, 4, 20, 20]  # and now the other image says the contrary
    with pytest.raises(FcosError, match=r"boxes of 0\.jpg are drawn before turning, those of 1\.jpg after it"):
        records(tmp_path / "data", content)


@pytest.mark.parametrize("size", [UPRIGHT, None, (0, 0)])
def test_labels_on_the_turned_image_stay(tmp_path, size):
    box = (4, 8, 16, 24)
    photograph(tmp_path / "data" / "0.jpg", 8, box)
    content = coco("0.jpg", width=size and size[0], height=size and size[1])
    content["annotations"][0]["bbox"] = list(box)
    (record,) = records(tmp_path / "data", content)
    assert (record["width"], record["height"]) == UPRIGHT and record["annotations"][0]["bbox"] == list(box)
    check_images(["set_train"])


@pytest.mark.parametrize("number", [2, 3, 4])
def test_mirrored_images_keep_size_and_boxes(tmp_path, number):
    box = (4, 8, 16, 24)
    photograph(tmp_path / "data" / "0.jpg", number, box)
    content = coco("0.jpg", width=STORED[0], height=STORED[1])
    content["annotations"][0]["bbox"] = list(box)
    (record,) = records(tmp_path / "data", content)
    assert record["annotations"][0]["bbox"] == list(box)
    assert MetadataCatalog.get("set_train").json_file == str(tmp_path / "data" / "train.json")  # nothing to mend


def test_a_wrong_size_of_a_turned_image_names_exif(tmp_path):
    photograph(tmp_path / "data" / "0.jpg", 6, (4, 8, 16, 24))
    records(tmp_path / "data", coco("0.jpg", width=60, height=48))
    with pytest.raises(
        FcosError, match="has 48x64 pixels, turned as its EXIF orientation says, the annotations say 60x48"
    ):
        check_images(["set_train"])
