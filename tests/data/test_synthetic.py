"""The synthetic data set: valid, deterministic, reused, never written over something else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fcos_d2.data import find_dataset
from fcos_d2.data.synthetic import DEFAULT_CLASSES, SHAPES, _run_lengths, generate
from fcos_d2.errors import FcosError


def contents(folder):
    """Bytes of all data files."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path):
    return np.asarray(Image.open(path))


def annotations(layout, part="train"):
    return json.loads(layout.splits[part].annotations.read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("synthetic") / "set", {"train": 60, "val": 6})


def test_is_a_coco_data_set(made):
    assert find_dataset(made.root) == made
    coco = annotations(made)
    assert len(coco["images"]) == 60
    assert [row["name"] for row in coco["categories"]] == list(DEFAULT_CLASSES)
    assert [row["id"] for row in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    assert {row["category_id"] for row in coco["annotations"]} == {1, 2, 3, 4, 5}
    for row in coco["images"]:
        assert pixels(made.splits["train"].images / row["file_name"]).shape == (256, 256, 3)
    for row in coco["annotations"]:
        x, y, width, height = row["bbox"]
        assert 0 <= x < x + width <= 256 and 0 <= y < y + height <= 256
        assert 0 < row["area"] <= width * height


def test_has_all_sizes_empty_images_overlaps_and_crowds(made):
    coco = annotations(made)
    sides = np.array([max(row["bbox"][2:]) for row in coco["annotations"] if not row["iscrowd"]])
    assert sides.min() <= 12 and sides.max() >= 120
    assert sides.max() <= 0.7 * 256 + 2
    assert np.histogram(sides, [0, 16, 32, 64, 128, 256])[0].min() >= 10  # every FCOS level gets work
    with_objects = {row["image_id"] for row in coco["annotations"]}
    assert len(coco["images"]) - len(with_objects) == 3  # 5% of 60
    crowds = [row for row in coco["annotations"] if row["iscrowd"]]
    assert len(crowds) >= 2
    overlaps = 0
    for image in with_objects:
        boxes = np.array([row["bbox"] for row in coco["annotations"] if row["image_id"] == image], dtype=float)
        ious = coco_mask.iou(boxes, boxes, np.zeros(len(boxes)))
        overlaps += int((np.triu(ious, 1) > 0.02).sum())
    assert overlaps >= 20


def test_crowd_regions_are_coco_run_lengths(made):
    for row in annotations(made)["annotations"]:
        assert ("segmentation" in row) == bool(row["iscrowd"])
        if row["iscrowd"]:
            encoded = coco_mask.frPyObjects(row["segmentation"], *row["segmentation"]["size"])
            assert coco_mask.area(encoded) == row["area"]
            assert coco_mask.toBbox(encoded).tolist() == row["bbox"]


def test_run_lengths_start_with_the_zeros():
    for mask in ([[1, 0], [1, 1]], [[0, 1], [0, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]):
        mask = np.array(mask, bool)
        counts = _run_lengths(mask)
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        assert (mask == flat.reshape(2, 2).T).all()
        assert coco_mask.area(coco_mask.frPyObjects({"counts": counts, "size": [2, 2]}, 2, 2)) == mask.sum()


@pytest.mark.parametrize("name", SHAPES)
def test_boxes_are_tight_around_the_shape_that_is_seen(tmp_path, name):
    """A lone shape: the picture changes far more at the sides of its box than on the ground around it."""
    layout = generate(
        tmp_path / name, {"train": 12}, (96, 96), classes=[name], max_objects=1, empty_fraction=0, crowd_fraction=0,
        min_size=30, min_visible=1.0,
    )  # fmt: skip
    coco = annotations(layout)
    assert len(coco["annotations"]) >= 10
    edges = []
    for row in coco["annotations"]:
        image = pixels(layout.splits["train"].images / coco["images"][row["image_id"] - 1]["file_name"])
        x, y, width, height = row["bbox"]
        change = np.abs(np.diff(image.astype(float), axis=1)).sum(2)[y : y + height].max(0)  # between columns
        outside = np.concatenate([change[: max(x - 3, 0)], change[x + width + 2 :]])
        if x >= 8 and x + width <= 88:
            edges.append((change[x - 2 : x + 2].max(), change[x + width - 3 : x + width + 1].max(), np.median(outside)))
    left, right, ground = np.median(np.array(edges), axis=0)
    assert min(left, right) > 2 * ground


def test_same_arguments_give_the_same_bytes(tmp_path):
    for name in "ab":
        generate(tmp_path / name, {"train": 5, "val": 3}, (64, 48), seed=7)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    generate(tmp_path / "c", {"train": 5, "val": 3}, (64, 48), seed=8)
    assert contents(tmp_path / "a")["images/train_000000.jpg"] != contents(tmp_path / "c")["images/train_000000.jpg"]


def test_an_image_does_not_depend_on_the_others(tmp_path):
    few, many = (
        generate(tmp_path / name, splits, (64, 64)).root
        for name, splits in (("few", {"val": 2}), ("many", {"train": 3, "val": 6}))
    )
    for name in ("val_000000.jpg", "val_000001.jpg"):
        assert (few / "images" / name).read_bytes() == (many / "images" / name).read_bytes()
    assert (many / "images" / "train_000000.jpg").read_bytes() != (many / "images" / "val_000000.jpg").read_bytes()


def test_sizes_may_vary(tmp_path):
    sizes = [(80, 60), (60, 80), (97, 33)]
    coco = annotations(generate(tmp_path / "set", {"train": 20}, sizes, max_size=0.9))
    assert {(row["width"], row["height"]) for row in coco["images"]} == set(sizes)
    for row in coco["images"]:
        shape = pixels(tmp_path / "set" / "images" / row["file_name"]).shape
        assert shape == (row["height"], row["width"], 3)


def test_shares_of_empty_and_crowd_images(tmp_path):
    coco = annotations(generate(tmp_path / "all", {"train": 8}, (64, 64), empty_fraction=1.0))
    assert coco["annotations"] == []
    coco = annotations(generate(tmp_path / "none", {"train": 8}, (64, 64), empty_fraction=0.0, crowd_fraction=0.0))
    assert {row["image_id"] for row in coco["annotations"]} == set(range(1, 9))
    assert not any(row["iscrowd"] for row in coco["annotations"])


def test_reuse_and_repair(tmp_path):
    calls = []

    def make():
        return generate(tmp_path / "set", {"train": 4}, (64, 64), progress=lambda *step: calls.append(step))

    root = make().root
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    whole = contents(root)
    make()
    assert len(calls) == 4  # nothing was made again
    for damage in ("images/train_000002.jpg", "train.json"):
        (root / damage).unlink()
        make()
        assert contents(root) == whole
    (root / "train.json").write_text("{}")
    make()
    assert contents(root) == whole


def test_interruption_is_noticed(tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", {"train": 4, "val": 2}, (64, 64), progress=stop)
    assert not (tmp_path / "set" / "train.json").exists()
    generate(tmp_path / "set", {"train": 4, "val": 2}, (64, 64))
    generate(tmp_path / "fresh", {"train": 4, "val": 2}, (64, 64))
    assert contents(tmp_path / "set") == contents(tmp_path / "fresh")


def test_other_contents_are_never_overwritten(tmp_path):
    generate(tmp_path / "set", {"train": 2}, (64, 64))
    before = contents(tmp_path / "set")
    with pytest.raises(FcosError, match=r"other arguments \(seed 0 instead of 1"):
        generate(tmp_path / "set", {"train": 2}, (64, 64), seed=1)
    assert contents(tmp_path / "set") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("-")
    with pytest.raises(FcosError, match="holds something other"):
        generate(tmp_path / "mine", {"train": 2})
    (tmp_path / "mine" / "synthetic.json").write_text("[]")
    with pytest.raises(FcosError, match="is not a record"):
        generate(tmp_path / "mine", {"train": 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["circle", "pear"]}, "different names among circle, square"),
        ({"classes": []}, "different names"),
        ({"splits": {"train": 0}}, "count from 1"),
        ({"splits": {"../x": 1}}, "must name"),
        ({"image_size": (10, 10)}, "do not fit an image of 10x10"),
        ({"empty_fraction": 1.5}, "empty_fraction is 1.5"),
        ({"min_visible": 0}, "min_visible is 0"),
        ({"max_objects": 0}, "max_objects 0"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(FcosError, match=message):
        generate(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()
