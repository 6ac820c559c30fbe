"""Pascal VOC in all its layouts."""

from __future__ import annotations

import pytest
from label_files import in_voc, parts_of, picture, write

from fcos_d2.data import find_dataset, read_parts
from fcos_d2.data.layout import UNREADABLE
from fcos_d2.errors import FcosError

XML = in_voc("0.png", (32, 24), [("dog", [4, 6, 8, 3])])


@pytest.mark.parametrize(
    ("places", "lists"),
    [
        ("JPEGImages Annotations", True),
        ("VOCdevkit/VOC2007/JPEGImages VOCdevkit/VOC2007/Annotations", True),
        ("VOC2012/JPEGImages VOC2012/Annotations", True),
        ("{} {}", False),
        ("images/{} annotations/{}", False),
        ("{}/images {}/annotations", False),
        ("Images/{} XML/{}", False),
    ],
)
def test_layouts(tmp_path, places, lists):
    for at, part in enumerate(("train", "val")):
        images, labels = (tmp_path / place for place in places.format(part, part).split())
        picture(images / f"{at}.png")
        write(labels / f"{at}.xml", XML)
        if lists:
            write(labels.parent / "ImageSets" / "Main" / f"{part}.txt", f"{at}\n")
            write(labels.parent / "ImageSets" / "Main" / f"dog_{part}.txt", f"{at} -1\n")
    found = parts_of(tmp_path)
    assert set(found) == {"train", "val"}
    for at, part in enumerate(found):
        file = (
            places.split()[0].format(part).removeprefix("VOCdevkit/").removeprefix("VOC2007/").removeprefix("VOC2012/")
        )
        assert found[part] == [(f"{file}/{at}.png", "dog", [4, 6, 8, 3])]


@pytest.mark.parametrize("places", [". .", "images annotations", "JPEGImages Annotations"])
def test_one_undivided_folder(tmp_path, places, caplog):
    images, labels = (tmp_path / place for place in places.split())
    for name in ("a.jpg", "b.png"):
        picture(images / name)
    write(labels / "b.xml", in_voc("of another name.jpg", None, [("cat", [0, 0, 5, 5])]))
    found = parts_of(tmp_path)
    assert [row[1:] for row in found["train"]] == [("cat", [0, 0, 5, 5])] and "b.png" in found["train"][0][0]
    assert "1 images have no label file and are left out" in caplog.text


def test_what_an_object_says(tmp_path):
    picture(tmp_path / "0.png")
    text = in_voc("0.png", (0, 0), [("a", [1.25, 2, 3, 4.5])], "<difficult>1</difficult><part><bndbox/></part>")
    others = (
        "<object><name>b</name><robndbox><cx>16</cx><cy>12</cy><w>8</w><h>4</h><angle>1.5707963267948966</angle>"
        "</robndbox></object><object><name>c</name></object>"
        "<object><name>c</name><bndbox><xmin>x</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object>"
        "<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object>"
        "<object><name>c</name><difficult>2</difficult>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object>"
    )
    write(tmp_path / "0.xml", text.replace("</annotation>", others + "</annotation>"))
    coco = read_parts(find_dataset(tmp_path), ("train",))["train"]
    a, b, *rest = coco["annotations"]
    assert a["bbox"] == [1.25, 2, 3, 4.5] and a["iscrowd"] == 1 and "width" not in coco["images"][0]
    assert b["bbox"] == [14, 8, 4, 8] and b["iscrowd"] == 0
    assert [row.get(UNREADABLE, row["category_id"]) for row in rest] == [
        "it has no bndbox",
        "its bndbox has no numbers for xmin, ymin, xmax, ymax",
        None,
        "difficult is 2, neither 0 nor 1",
    ]


def test_classes_of_all_parts_are_the_classes(tmp_path):
    for part, name in (("train", "class_10"), ("val", "class_9")):
        picture(tmp_path / part / "0.png")
        write(tmp_path / part / "0.xml", in_voc("0.png", (32, 24), [(name, [1, 1, 2, 2])]))
    found = read_parts(find_dataset(tmp_path), ("train", "val"))
    assert found["train"]["categories"] == found["val"]["categories"]
    assert [row["name"] for row in found["train"]["categories"]] == ["class_9", "class_10"]
    assert found["train"]["annotations"][0]["category_id"] == 2 and found["val"]["annotations"][0]["category_id"] == 1


def test_corners_from_zero_when_asked(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path / "0.xml", XML)
    assert parts_of(tmp_path, "voc0")["train"][0][2] == [5, 7, 7, 2]


BOMB = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (BOMB + XML.replace("dog", "&b;"), "declares the XML entity 'a'"),
        (OUTSIDE + XML.replace("dog", "&x;"), "declares the XML entity 'x'"),
        (XML[:90], "is not valid XML"),
        ("", "is not valid XML"),
        ("<annotations/>", "is not a file of Pascal VOC"),
        ("<?xml version='1.0' encoding='nothing'?>" + XML, "is not valid XML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, match):
    for name in ("0", "1"):
        picture(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.xml", XML)
    write(tmp_path / "1.xml", text)
    with pytest.raises(FcosError, match=match):
        read_parts(find_dataset(tmp_path), ("train",))


def test_a_listed_image_without_a_file(tmp_path):
    picture(tmp_path / "JPEGImages" / "0.png")
    write(tmp_path / "Annotations" / "0.xml", XML)
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "0\n1\n")
    with pytest.raises(FcosError, match=r"1 images of .*train\.txt have no XML file, the first: .*1\.xml"):
        read_parts(find_dataset(tmp_path), ("train",))
