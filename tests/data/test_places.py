"""COCO files by the names that people give them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.data import find_dataset
from fcos_d2.errors import FcosError


def coco(name="0.png"):
    return {
        "images": [{"id": 1, "file_name": name, "width": 32, "height": 24}],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }


def write(path: Path, content=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco() if content is None else content))
    return path


@pytest.mark.parametrize(
    ("files", "images"),
    [
        ({"train": "Train.json", "val": "Val.json"}, ["Images"] * 2),
        ({"train": "instances_Train.json", "val": "INSTANCES_VAL.json"}, ["Train", "VAL"]),
        ({"train": "Annotations/instances_Train.json", "val": "Annotations/Instances_Val.JSON"}, ["images"] * 2),
        ({"train": "train_2024.json", "val": "val_2024.json"}, ["train_2024", "val_2024"]),
        ({"train": "annotations/instances_train_2024.json"}, ["images/train_2024"]),
        ({"train": "coco_train.json", "val": "coco-valid-v2.json", "test": "test_annotations.json"}, ["."] * 3),
        ({"train": "Train/_annotations.coco.json", "val": "Valid/_annotations.coco.json"}, ["Train", "Valid"]),
        ({"train": "Training.json", "val": "Validation.json"}, ["images"] * 2),
        ({"train": "annotations/instances_Default.json"}, ["images/default"]),
        ({"train": "Result.json"}, ["images"]),
        ({"train": "_Annotations.COCO.json"}, ["."]),
    ],
)
def test_names_are_recognised(tmp_path, files, images):
    for name, folder in zip(files.values(), images, strict=True):
        write(tmp_path / name)
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24)).save(tmp_path / folder / "0.png")
    for name in (
        "config.json",
        "captions_train2017.json",
        "image_info_test2017.json",
        "._train.json",
        "train_log.json",
    ):
        write(tmp_path / name, {"epochs": 3})
    splits = find_dataset(tmp_path).splits
    assert {part: split.annotations for part, split in splits.items()} == {k: tmp_path / v for k, v in files.items()}
    assert [split.images.resolve() for split in splits.values()] == [(tmp_path / folder).resolve() for folder in images]


@pytest.mark.parametrize("name", ["images\\0.jpg", "0.JPG", "C:\\me\\0.jpg", "../upload/0.jpg"])
def test_images_are_found_whatever_the_first_is_called(tmp_path, name):
    write(tmp_path / "train.json", coco(name))
    (tmp_path / "train").mkdir()
    (tmp_path / "images").mkdir()
    Image.new("RGB", (32, 24)).save(tmp_path / "images" / "0.jpg")
    assert (find_dataset(tmp_path).splits["train"].images / "0.jpg").is_file() or name == "images\\0.jpg"


def test_two_files_of_one_part_are_not_chosen_from(tmp_path):
    for year in (2023, 2024):
        write(tmp_path / f"train_{year}.json")
    with pytest.raises(FcosError, match=r"Of train_2023\.json and train_2024\.json .* may be the train part") as error:
        find_dataset(tmp_path)
    source, target = shlex.split(str(error.value).partition("mv ")[2])
    Path(source).rename(target)
    assert find_dataset(tmp_path).splits["train"].annotations == Path(target)


def test_another_name_comes_with_the_line_that_mends_it(tmp_path):
    root = tmp_path / "my data"
    write(root / "boxes of cats.json")
    write(root / "notes.json", {"text": 1})
    with pytest.raises(
        FcosError, match=r"holds boxes of cats\.json, notes\.json; looked for .*; if boxes of cats"
    ) as error:
        find_dataset(root)
    source, target = shlex.split(str(error.value).partition("run: mv ")[2].rstrip("."))
    Path(source).rename(target)
    assert find_dataset(root).splits["train"].annotations == root / "train.json"
