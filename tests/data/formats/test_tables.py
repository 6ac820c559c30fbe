"""Tables of boxes as CSV."""

from __future__ import annotations

import pytest
from label_files import parts_of, picture, write

from fcos_d2.data import find_dataset, read_parts
from fcos_d2.data.layout import UNREADABLE
from fcos_d2.errors import FcosError

TENSORFLOW = "filename,width,height,class,xmin,ymin,xmax,ymax\n0.png,32,24,dog,4,6,12,9\n0.png,32,24,cat,1.5,2,3,4\n"
BOXES = [("dog", [4, 6, 8, 3]), ("cat", [1.5, 2, 1.5, 2])]
OPEN = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    "0a1b,xclick,/m/0bt9lr,1,0.125,0.375,0.25,0.375,0,0,0,0,0\n0a1b,xclick,/m/01yrx,1,0.25,0.5,0.5,1,0,0,1,0,0\n"
)


@pytest.mark.parametrize(
    "places",
    [
        ("{}_labels.csv", "{}"), ("{}.csv", "images"), ("annotations/{}.csv", "images/{}"),
        ("{}/_annotations.csv", "{}"), ("{}_labels.csv", "images/{}"),
    ],
)  # fmt: skip
def test_tensorflow(tmp_path, places):
    for part in ("train", "test"):
        table, images = (tmp_path / place.format(part) for place in places)
        write(table, TENSORFLOW)
        picture(images / "0.png")
    found = parts_of(tmp_path)
    assert set(found) == {"train", "test"}
    assert all([row[1:] for row in rows] == BOXES for rows in found.values())
    splits = find_dataset(tmp_path).splits
    assert all((split.images / found[part][0][0]).is_file() for part, split in splits.items())


@pytest.mark.parametrize(
    "text",
    [
        TENSORFLOW,
        TENSORFLOW.replace(",", ";"),
        TENSORFLOW.replace(",", "\t").replace("\n", "\r\n"),
        "\ufeff" + TENSORFLOW,
        "image,label,x_min,y_min,x_max,y_max\n0.png,dog,4,6,12,9\n0.png,cat,1.5,2,3,4\n",
        "image_path,x,y,w,h,class_name\nimages/0.png,4,6,8,3,dog\nimages/0.png,1.5,2,1.5,2,cat\n",
        "image_id,label,bbox\n0,dog,\"[4, 6, 8, 3]\"\n0,cat,\"[1.5, 2, 1.5, 2]\"\n",
        "filename,x_center,y_center,width,height,label\n0.png,8,7.5,8,3,dog\n0.png,2.25,3,1.5,2,cat\n",
        "images/0.png,4,6,12,9,dog\nimages/0.png,1.5,2,3,4,cat\n",  # no header
        "filename,class,xmin,ymin,xmax,ymax\n0.png,dog,0.125,0.25,0.375,0.375\n"
        "0.png,cat,0.046875,0.08333333333333333,0.09375,0.16666666666666666\n",
    ],
)  # fmt: skip
def test_plain(tmp_path, text):
    write(tmp_path / "boxes.csv", text)
    picture(tmp_path / "images" / "0.png")
    assert [row[1:] for row in parts_of(tmp_path)["train"]] == BOXES


def test_open_images(tmp_path):
    write(tmp_path / "oidv6-train-annotations-bbox.csv", OPEN)
    write(tmp_path / "validation-annotations-bbox.csv", OPEN)
    write(tmp_path / "class-descriptions-boxable.csv", "/m/0bt9lr,Dog\n/m/01yrx,Cat\n")
    for part in ("train", "validation"):
        picture(tmp_path / part / "0a1b.jpg")
    coco = read_parts(find_dataset(tmp_path), ("train", "val"))
    assert set(coco) == {"train", "val"}
    for part in coco.values():
        assert [row["name"] for row in part["categories"]] == ["Cat", "Dog"]
        assert [row["bbox"] for row in part["annotations"]] == [[4, 6, 8, 3], [8, 12, 8, 12]]
        assert [row["iscrowd"] for row in part["annotations"]] == [0, 1]
        assert part["images"][0]["file_name"].endswith("0a1b.jpg")


def test_no_line_is_lost(tmp_path):
    text = (
        TENSORFLOW
        + "1.png,32,24,,,,,\n0.png,32,24,dog,a,6,12,9\n0.png,32,24,dog\n,32,24,dog,1,2,3,4\n\n0.png,0,0,,1,2,3,4\n"
    )
    write(tmp_path / "train.csv", text)
    for name in ("0.png", "1.png"):
        picture(tmp_path / name)
    coco = read_parts(find_dataset(tmp_path), ("train",))["train"]
    assert [row["file_name"] for row in coco["images"]] == ["0.png", "1.png"]
    why = [row.get(UNREADABLE, row["category_id"]) for row in coco["annotations"]]
    assert why == [2, 1, "its numbers are a 6 12 9", "it names no image", None]
    assert [row["fcos_place"] for row in coco["annotations"]] == [f"line {at}" for at in (2, 3, 5, 7, 9)]


def test_two_tables_of_one_part_are_not_chosen_from(tmp_path):
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, TENSORFLOW)
    with pytest.raises(FcosError, match=r"Of a\.csv and b\.csv .* may be the train part"):
        find_dataset(tmp_path)


def test_other_tables_are_none(tmp_path):
    for text in ("a,b,c\n1,2,3\n", "", "filename,class\n0.png,dog\n", '"unclosed,quote'):
        write(tmp_path / "train.csv", text)
        with pytest.raises(FcosError, match="No data set found"):
            find_dataset(tmp_path)
