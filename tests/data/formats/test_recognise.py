"""Which format a folder has; what is said where it is none, or several."""

from __future__ import annotations

import json
import shlex

import pytest
from label_files import in_voc, in_yolo, parts_of, picture, write

from fcos_d2.data import FORMATS, find_dataset, format_named
from fcos_d2.errors import FcosError

LINE = in_yolo((32, 24), [(0, [4, 6, 8, 3])])
XML = in_voc("0.png", (32, 24), [("dog", [4, 6, 8, 3])])


def test_a_folder_of_two_formats_is_not_guessed(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path / "0.txt", LINE)
    write(tmp_path / "0.xml", XML)
    with pytest.raises(
        FcosError, match=r"can be read as yolo \(.*\) and as voc \(.*\): .* --format yolo or --format voc"
    ):
        find_dataset(tmp_path)
    assert parts_of(tmp_path, "yolo")["train"][0][1] == "class_0"
    assert parts_of(tmp_path, "voc")["train"][0][1] == "dog"


def test_a_format_that_is_asked_for_and_not_there(tmp_path):
    write(tmp_path / "0.xml", XML)
    with pytest.raises(FcosError, match=r"No data set found in .* looked for yolo: data\.yaml"):
        find_dataset(tmp_path, "yolo")
    with pytest.raises(FcosError, match=r"no format 'pascal' of data sets; there are coco, yolo, voc, voc0, csv"):
        find_dataset(tmp_path, "pascal")
    assert [format_named(row.name) for row in FORMATS] == list(FORMATS)


def test_the_only_folder_in_a_folder_is_looked_into(tmp_path):
    picture(tmp_path / "a" / "b" / "0.png")
    write(tmp_path / "a" / "b" / "0.xml", XML)
    write(tmp_path / "a" / "README.md", "text")
    assert find_dataset(tmp_path).root == tmp_path / "a" / "b"


def test_the_description_of_a_yolo_data_set_stands_for_it(tmp_path):
    picture(tmp_path / "images" / "0.png")
    write(tmp_path / "labels" / "0.txt", LINE)
    for name in ("a.yaml", "b.yaml"):
        write(tmp_path / name, f"train: images\nnames: [{name[0]}]\n")
    assert parts_of(tmp_path / "b.yaml")["train"] == [("images/0.png", "b", [4, 6, 8, 3])]
    with pytest.raises(FcosError, match="describes no data set"):
        find_dataset(write(tmp_path / "c.yaml", "names: [a]\n"))


@pytest.mark.parametrize(
    ("files", "name", "advice"),
    [
        ({"train.tfrecord": ""}, "TFRecord", "datum convert -i "),
        ({"meta.json": "{}", "ds/ann/0.png.json": '{"description": "", "size": {}, "objects": [], "tags": []}'},
         "Supervisely", "Export to COCO"),
        ({"via_region_data.json": json.dumps({"0.png1": {"regions": [{"region_attributes": {}}]}})},
         "VIA", r"Export Annotations \(COCO format\)"),
        ({"via.csv": "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
                     "region_attributes\n"}, "VIA", "Annotation > Export"),
        ({"lvis_v1_train.json": json.dumps({"images": [{"neg_category_ids": [1], "coco_url": "u"}]})},
         "LVIS", "file_name"),
        ({"annotations/default.json": json.dumps({"info": {}, "categories": {"label": {}}, "items": []})}, "Datumaro",
         "datum convert"),
        ({"train/annotations.json": json.dumps([{"image": "0.png", "annotations": [{"coordinates": {}}]}])},
         "Create ML", "datum convert"),
        ({"samples.json": "{}", "metadata.json": "{}"}, "FiftyOne", "fiftyone convert"),
        ({"data.ndjson": "{}"}, "NDJSON", "convert_ndjson_to_yolo"),
        ({"training/label_2/000000.txt": "Car 0.00 0 -1.57 1 2 3 4 1.5 1.6 3.9 1.8 1.5 46.7 -1.6\n"}, "KITTI", "datum"),
        ({"labelTxt/P0000.txt": "imagesource:x\ngsd:1\n1 2 3 4 5 6 7 8 ship 0\n"}, "DOTA", "convert_dota_to_yolo_obb"),
    ],
)  # fmt: skip
def test_formats_of_others_are_named_with_what_converts_them(tmp_path, files, name, advice):
    root = tmp_path / "my data"
    for path, text in files.items():
        write(root / path, text)
    picture(root / "images" / "0.png")
    with pytest.raises(
        FcosError, match=rf"seems to hold data of .*{name}.*, which is not read here: .*{advice}"
    ) as error:
        find_dataset(root)
    assert "my data" not in str(error.value).partition("not read here")[2] or shlex.quote(str(root)) in str(error.value)


def test_json_of_other_tools_by_the_names_of_coco(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path / "train.json", json.dumps([{"id": 1, "data": {"image": "0.png"}, "annotations": [{"result": []}]}]))
    assert find_dataset(tmp_path).format == "labelstudio"
