"""YOLO data sets in all their layouts."""

from __future__ import annotations

import math

import pytest
from label_files import in_yolo, parts_of, picture, write

from fcos_d2.data import find_dataset, read_parts
from fcos_d2.data.coco import prepare
from fcos_d2.data.layout import UNREADABLE
from fcos_d2.errors import FcosError

LINE = in_yolo((32, 24), [(1, [4, 6, 8, 3])])
NAMES = "names: [cat, dog]\n"


@pytest.mark.parametrize(
    ("texts", "places"),
    [
        ({"data.yaml": f"path: .\ntrain: images/train\nval: images/val\n{NAMES}"}, "images/{} labels/{}"),
        ({"data.yaml": f"train: ../train/images\nval: ../valid/images\n{NAMES}"}, "{}/images {}/labels"),
        ({"data.yaml": f"path: ../datasets/mine\ntrain: train\nval: val\n{NAMES}"}, "{}/images {}/labels"),
        ({"data.yaml": f"train: C:\\data\\images\\train\nval: /x/images/val\n{NAMES}"}, "images/{} labels/{}"),
        ({"pets.yml": "train: [a/images/train]\nval: [a/images/val]\nnames: {0: cat, 1: dog}\n"},
         "a/images/{} a/labels/{}"),
        ({"data.yaml": "train: train.txt\nval: val.txt\nnc: 2\nnames: names.txt\n", "names.txt": "cat\ndog\n",
          "train.txt": "./images/train/0.png\n", "val.txt": "/home/me/pets/images/val/0.png\n"},
         "images/{} labels/{}"),
        ({"obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/val.txt\nnames = data/obj.names\n",
          "obj.names": "cat\ndog\n", "train.txt": "data/obj_train_data/0.png\n",
          "val.txt": "data/obj_val_data/0.png\n"},
         "obj_{}_data obj_{}_data"),
        ({"train.txt": "images/train/0.png\n", "val.txt": "images/val/0.png\n", "classes.txt": "cat\ndog\n"},
         "images/{} labels/{}"),
        ({"classes.txt": "cat\ndog\n"}, "images/{} labels/{}"),
        ({"classes.txt": "cat\ndog\n"}, "{}/images {}/labels"),
        ({"classes.txt": "cat\ndog\n"}, "{} {}"),
        ({"classes.txt": "cat\ndog\n"}, "Images/{} Labels/{}"),
    ],
)  # fmt: skip
def test_layouts(tmp_path, texts, places):
    for name, text in texts.items():
        write(tmp_path / name, text)
    val = "valid" if "valid/" in texts.get("data.yaml", "") else "val"
    for part in ("train", val):
        images, labels = places.format(part, part).split()
        picture(tmp_path / images / "0.png")
        write(tmp_path / labels / "0.txt", LINE)
        if "txt" not in "".join(texts.values()) and "train.txt" not in texts:
            picture(tmp_path / images / "empty.png")
    found = parts_of(tmp_path)
    assert set(found) == {"train", "val"}
    for part, those in found.items():
        file = f"{places.split()[0].format(val if part == 'val' else part)}/0.png"
        assert those == [(file, "dog", [4.0, 6.0, 8.0, 3.0])]


@pytest.mark.parametrize(
    ("texts", "where"),
    [({}, ""), ({"classes.txt": "a\nb\n"}, "images"), ({"data.yaml": "train: .\nnames: [a, b]\n"}, "images")],
)
def test_one_undivided_folder(tmp_path, texts, where):
    for name, text in texts.items():
        write(tmp_path / name, text)
    for at in range(3):
        picture(tmp_path / where / f"{at}.png")
    write(tmp_path / where / "1.txt", LINE)
    ((part, found),) = parts_of(tmp_path).items()
    assert part == "train" and [row[2] for row in found] == [[4, 6, 8, 3]]
    assert found[0][1] == ("b" if texts else "class_1")


def test_a_missing_label_file_is_an_empty_image(tmp_path):
    write(tmp_path / "data.yaml", f"train: images\n{NAMES}")
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "deeper" / "b.jpg")
    write(tmp_path / "labels" / "deeper" / "b.txt", "")
    coco = read_parts(find_dataset(tmp_path), ("train",))["train"]
    assert [row["file_name"] for row in coco["images"]] == ["images/a.png", "images/deeper/b.jpg"]
    assert coco["annotations"] == [] and len(coco["categories"]) == 2


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.5 0.5 0.25 0.5", [12, 6, 8, 12]),
        ("0.0 0.5 0.5 0.25 0.5 0.93", [12, 6, 8, 12]),  # a score
        ("cat 0.5 0.5 0.25 0.5", [12, 6, 8, 12]),
        ("0 0.25 0.25 0.75 0.25 0.5 0.75", [8, 6, 16, 12]),  # a polygon
        ("0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5", [8, 6, 16, 12]),  # an oriented box
        ("\t0  0.5 0.5\t0.25 0.5  ", [12, 6, 8, 12]),
        ("0 0.5 0.5 -0.25 0.5", [20, 6, -8, 12]),  # left to `clean`
        ("0 nan 0.5 0.25 0.5", [math.nan, 6, 8, 12]),
    ],
)
def test_lines(tmp_path, line, box):
    picture(tmp_path / "images" / "0.png")
    write(tmp_path / "labels" / "0.txt", line + "\n")
    write(tmp_path / "data.yaml", f"train: images\n{NAMES}")
    ((_, name, found),) = parts_of(tmp_path)["train"]
    assert name == "cat" and found == pytest.approx(box, abs=0, nan_ok=True)


def test_key_points_are_no_polygon(tmp_path):
    picture(tmp_path / "images" / "0.png")
    write(tmp_path / "labels" / "0.txt", "0 0.5 0.5 0.25 0.5 0.9 0.9 0.1 0.1\n")
    write(tmp_path / "data.yaml", f"train: images\nkpt_shape: [2, 2]\n{NAMES}")
    assert parts_of(tmp_path)["train"][0][2] == [12, 6, 8, 12]


def test_no_line_is_lost(tmp_path):
    picture(tmp_path / "images" / "0.png")
    write(
        tmp_path / "labels" / "0.txt", "0 0.5 0.5 0.1 0.1\n0 0.5 0.5\n\n0 a 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\nx 1 1 1 1\n"
    )
    write(tmp_path / "labels" / "gone.txt", LINE + LINE)
    write(tmp_path / "data.yaml", f"train: images\n{NAMES}")
    found = read_parts(find_dataset(tmp_path), ("train",))["train"]["annotations"]
    why = [row.get(UNREADABLE, row["category_id"]) for row in found]
    assert why == [0, "3 numbers instead of 5 or more", "a is no number", 7, None] + ["its image is missing"] * 2
    assert found[3]["fcos_place"] == "labels/0.txt:5" and found[5]["fcos_place"] == "labels/gone.txt:1"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (f"train: images/gone\n{NAMES}", "says train: images/gone, and there is no such folder"),
        (f"train: ../../elsewhere\n{NAMES}", "no such folder or list"),
        ("train: images\nnc: 3\nnames: [a, b]\n", "says nc: 3, and names 2 classes"),
        ("train: images\nnames: {a: b}\n", "must be a number and a name"),
        ("train: images\nnames: gone.names\n", "no such file"),
        ("train: [1]\nnames: [a]\n", "must be a folder"),
        ("train: [\n", "is not valid YAML"),
        ("train: images\nnames: !!python/object/apply:os.system [ls]\n", "is not valid YAML"),
    ],
)
def test_a_wrong_description_is_one_sentence(tmp_path, text, match):
    (tmp_path.parent / "elsewhere").mkdir(exist_ok=True)
    write(tmp_path / "data.yaml", text)
    picture(tmp_path / "images" / "0.png")
    with pytest.raises(FcosError, match=match):
        read_parts(find_dataset(tmp_path), ("train",))


def test_two_descriptions_are_not_chosen_from(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        write(tmp_path / name, f"train: images\n{NAMES}")
    with pytest.raises(FcosError, match=r"Of a\.yaml and b\.yaml .* name the one that is meant data\.yaml"):
        find_dataset(tmp_path)


def test_nothing_outside_of_the_folder_is_read(tmp_path):
    root, outside = tmp_path / "data", tmp_path / "outside" / "images"
    picture(outside / "0.png")
    write(outside.parent / "labels" / "0.txt", LINE)
    picture(root / "images" / "1.png")
    write(root / "train.txt", f"{outside}/0.png\n../outside/images/0.png\nimages/1.png\n")
    write(root / "data.yaml", f"train: train.txt\n{NAMES}")
    coco = read_parts(find_dataset(root), ("train",))["train"]
    assert coco["annotations"] == [] and all("width" not in row for row in coco["images"][:2])
    layout = find_dataset(root)
    with pytest.raises(FcosError, match=r"of 3 images named in .* are missing .*only images below .* are read"):
        prepare(layout.splits["train"], lambda split: coco)


def test_folders_that_their_owner_has_linked_are_read(tmp_path):
    picture(tmp_path / "elsewhere" / "deeper" / "0.png")
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "images" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")
    write(root / "labels" / "train" / "deeper" / "0.txt", LINE)
    write(root / "data.yaml", f"train: images\n{NAMES}")
    assert parts_of(root)["train"] == [("images/train/deeper/0.png", "dog", [4, 6, 8, 3])]
