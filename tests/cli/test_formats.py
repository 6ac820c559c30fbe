"""Commands on data sets of several formats, and on an archive of one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from label_files import as_yolo_and_voc, write

from fcos_d2.cli.checks import check
from fcos_d2.errors import FcosError
from fcos_d2.train import configure
from fcos_d2.train.own_data import open_data

SHORT = (
    "--model", "fcos_R_18_slim_FPN_small", "--iterations", 1, "--image-size", 64, "--batch-size", 2, "--workers", 0,
    "train.pictures=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def forms(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set as folders of COCO and VOC, and as archives of YOLO."""
    root = tmp_path_factory.mktemp("forms")
    for part in ("train", "val"):
        coco = json.loads((shapes / f"{part}.json").read_text(encoding="utf-8"))
        coco["annotations"] = [row for row in coco["annotations"] if not row["iscrowd"]]  # YOLO has no word for these
        write(root / "coco" / f"{part}.json", json.dumps(coco))
        as_yolo_and_voc(coco, shapes / "images", root / "yolo", root / "voc", part)
    (root / "coco" / "images").symlink_to(shapes / "images")
    for name in ("pets", "beasts"):
        shutil.make_archive(str(root / name), "zip", root / "yolo")
    return root


def seen(names: list[str | None]) -> list[list]:
    """File, size, and boxes with their classes, of each image of registered data sets."""
    return [
        sorted(
            [Path(record["file_name"]).name, record["height"], record["width"],
             [(box["category_id"], [float(one) for one in box["bbox"]], box["iscrowd"])
              for box in record["annotations"]]]
            for record in DatasetCatalog.get(name)
        )
        for name in names
    ]  # fmt: skip


def test_a_data_set_is_the_same_to_training_in_each_format(forms, tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))
    expected, *others = (open_data(folder) for folder in (forms / "coco", forms / "pets.zip", forms / "voc"))
    for data in others:
        assert (data.class_names, data.images, data.boxes) == (expected.class_names, expected.images, expected.boxes)
        assert seen([data.names.train, data.names.val]) == seen([expected.names.train, expected.names.val])
    cfg = configure(forms / "voc", format="voc0")
    assert cfg.model.num_classes == 3 and cfg.dataloader.train.dataset.names == "voc_train"


def test_training_on_an_archive_and_evaluation_on_a_folder(fcos: Callable, forms: Path) -> None:
    done = fcos("train", "--data", forms / "beasts.zip", "--format", "yolo", *SHORT)
    assert done.code == 0, done.err
    checkpoint = Path("output/beasts/model_final.pth")
    assert checkpoint.is_file() and re.search(r"fcos eval [^\n]*--format\s+yolo", done.out + done.err)
    done = fcos("eval", "--weights", checkpoint, "--data", forms / "voc", "--workers", 0)
    assert done.code == 0, done.err


def test_what_is_told_before_pytorch_is_there(forms: Path, tmp_path: Path) -> None:
    check(data=forms / "voc", need=("train", "val"))
    check(data=forms / "voc", need=("train",), format="voc0")
    with pytest.raises(FcosError, match="no format 'x' of data sets; there are coco, yolo, "):
        check(data=forms / "voc", format="x")
    (tmp_path / "train.tfrecord").write_bytes(b"")
    with pytest.raises(FcosError, match="seems to hold data of TFRecord, which is not read here"):
        check(data=tmp_path)
