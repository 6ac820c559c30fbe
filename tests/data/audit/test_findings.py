"""Each fault is found, counted and shown; the mended copy has none; the data stay as they are."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_set import HEIGHT, WIDTH, Data, balance, check, picture
from PIL import Image

from fcos_d2.data import register
from fcos_d2.data.audit import KINDS, mend
from fcos_d2.data.layout import Split
from fcos_d2.errors import FcosError


def every(part: str, change: Callable[[dict], object]) -> Callable[[Data], None]:
    """A fault of all annotations of a part."""

    def edit(data: Data) -> None:
        for row in getattr(data, part)["annotations"]:
            change(row)

    return edit


def corners(row: dict) -> None:
    x, y, w, h = row["bbox"]
    row["bbox"] = [x, y, x + w, y + h]


def centres(row: dict) -> None:
    x, y, w, h = row["bbox"]
    row["bbox"] = [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]


def turned(data: Data) -> None:
    """A photograph on its side, whose entry has the size and the boxes before turning."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(900).save(data.image("0.png"), exif=exif)


def smaller(data: Data) -> None:
    picture(0).resize((WIDTH // 2, HEIGHT // 2)).save(data.image("0.png"))


def only_in_val(data: Data) -> None:
    data.val["categories"].append({"id": 4, "name": "owl"})
    data.train["categories"].append({"id": 4, "name": "owl"})
    for place in (0, 5, 9):
        data.box(place, "val")["category_id"] = 4


def near(data: Data) -> None:
    """The same scene a little brighter, and stored otherwise."""
    Image.fromarray(np.clip(np.asarray(picture(15), float) * 1.08 + 4, 0, 255).astype(np.uint8)).save(
        data.image("0.png")
    )


def rows(data: Data, part: str, *places: int, **more: object) -> None:
    for place in places:
        data.box(place, part).update(more)


FAULTS: dict[str, tuple[Callable[[Data], object], str, int]] = {
    "zero size": (lambda d: rows(d, "train", 3, 7, bbox=[5, 5, 0, 9]), "train", 2),
    "negative size": (lambda d: rows(d, "train", 3, bbox=[50, 50, -20, 9]), "train", 1),
    "not finite": (lambda d: rows(d, "val", 3, bbox=[math.nan, 5, 9, 9]), "val", 1),
    "outside": (lambda d: rows(d, "train", 3, bbox=[WIDTH + 3, 5, 30, 30]), "train", 1),
    "beyond": (lambda d: rows(d, "train", 3, bbox=[WIDTH - 30, 5, 38, 30]), "train", 1),
    "no box": (lambda d: rows(d, "train", 3, 4, bbox=[]), "train", 2),
    "not four numbers": (lambda d: rows(d, "train", 3, bbox=[1, 2, 3]), "train", 1),
    "no flag": (lambda d: rows(d, "train", 3, iscrowd=7), "train", 1),
    "duplicate": (lambda d: d.train["annotations"].append({**d.box(3), "id": 999}), "train", 1),
    "two classes": (
        lambda d: d.train["annotations"].append({**d.box(3), "id": 99, "category_id": d.box(3)["category_id"] % 3 + 1}),
        "train", 1,
    ),
    "tiny": (lambda d: rows(d, "train", 3, bbox=[5.5, 5.5, 0.9, 0.9]), "train", 1),
    "crowd": (lambda d: rows(d, "train", 3, iscrowd=1), "train", 1),
    "annotation ids": (lambda d: rows(d, "train", 3, 4, id=1), "train", 3),
    "unknown image": (lambda d: rows(d, "train", 3, image_id=77), "train", 1),
    "unknown category": (lambda d: rows(d, "train", 3, category_id=9), "train", 1),
    "image ids": (lambda d: d.train["images"][2].update(id=1), "train", 1),
    "listed twice": (lambda d: d.train["images"][2].update(file_name="1.png"), "train", 2),
    "no size": (lambda d: d.train["images"][2].update(width=0), "train", 1),
    "category ids": (lambda d: d.train["categories"][2].update(id="x"), "train", 1),
    "names alike": (lambda d: [part["categories"][2].update(name="Dog ") for part in (d.train, d.val)], "", 2),
    "empty class": (lambda d: [p["categories"].append({"id": 8, "name": "owl"}) for p in (d.train, d.val)], "", 1),
    "class only in val": (only_in_val, "", 1),
    "shifted classes": (every("val", lambda row: row.update(category_id=row["category_id"] - 1)), "val", 24),
    "box format": (every("train", corners), "train", 60),
    "missing": (lambda d: d.image("3.png").unlink(), "train", 1),
    "unreadable": (lambda d: d.image("3.png").write_bytes(d.image("3.png").read_bytes()[:900]), "train", 1),
    "size mismatch": (smaller, "train", 1),
    "turned": (turned, "train", 1),
    "in train and val": (lambda d: d.image("0.png").write_bytes(d.image("16.png").read_bytes()), "val", 1),
    "near in train and val": (near, "val", 1),
    "copies": (lambda d: d.image("0.png").write_bytes(d.image("1.png").read_bytes()), "train", 1),
    "refused": (lambda d: d.train["images"][2].update(width=10.5), "train", 1),
}  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_data_set_that_is_right(tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    found = check(data.folder)
    assert found.clean and not [one.kind for one in found.findings if one.level != "advice"]
    assert (
        found.ledger["train"]["in"] == 60
        and found.ledger["train"]["used"] + found.ledger["train"]["unassignable"] == 60
    )


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_found_and_mended(kind: str, tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    edit, part, count = FAULTS[kind]
    edit(data)
    data.save()
    before = digests(data.folder)
    found = check(data.folder)
    told = [one for one in found.findings if one.kind == kind]
    assert [(one.part, one.count) for one in told] == [(part, count)], [
        (o.kind, o.part, o.count) for o in found.findings
    ]
    assert kind in ("refused", "crowd") or told[0].examples or told[0].detail
    assert found.clean == (KINDS[kind].level == "advice")
    assert all(balance(counts) == 0 for counts in found.ledger.values())
    names = {"data": "data", "out": "out"}
    json.dumps(found.plain(names), allow_nan=False)

    summary = mend.write(found, tmp_path / "mended")
    assert digests(data.folder) == before
    for name, part_ in summary["parts"].items():
        assert part_["in"] == len(getattr(data, name)["annotations"])
        assert part_["in"] == part_["written"] + sum(part_["dropped"].values()), part_
    again = check(tmp_path / "mended")
    assert again.clean, [(one.kind, one.part, one.count, one.detail) for one in again.findings]
    assert sum(counts["in"] for counts in again.ledger.values()) == sum(p["written"] for p in summary["parts"].values())


def test_all_kinds_are_shown_by_a_test() -> None:
    """But those that need more than one small fault: they have tests of their own below."""
    assert set(KINDS) - set(FAULTS) == {
        "unreadable label",
        "shifted val",
        "covered",
        "no objects",
        "class not in val",
        "rare class",
    }


def test_a_format_of_boxes_is_mended_exactly(tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    meant = [row["bbox"] for row in data.train["annotations"]]
    every("train", centres)(data)
    data.save()
    found = check(data.folder)
    (told,) = [one for one in found.findings if one.kind == "box format"]
    assert "centre x, centre y, width, height in shares" in told.detail and "odds 10^" in told.detail
    mend.write(found, tmp_path / "mended")
    (rows_,) = [json.loads((tmp_path / "mended" / "train.json").read_text())["annotations"]]
    assert np.abs(np.array([row["bbox"] for row in rows_]) - meant).max() < 1e-3


def test_a_photograph_that_was_made_smaller_takes_its_boxes_along(tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    smaller(data)
    mend.write(check(data.folder), tmp_path / "mended", copy=True)
    made = json.loads((tmp_path / "mended" / "train.json").read_text())
    assert (made["images"][0]["width"], made["images"][0]["height"]) == (WIDTH // 2, HEIGHT // 2)
    assert np.allclose(made["annotations"][0]["bbox"], np.array(data.box(0)["bbox"]) / 2)
    assert not (tmp_path / "mended" / "images" / made["images"][0]["file_name"]).is_symlink()


def test_classes_of_val_that_are_one_off(tmp_path: Path) -> None:
    """All ids are listed, so that only how often they occur tells it."""
    data = Data(tmp_path / "data", train=40, val=20)
    names = [{"id": n, "name": name} for n, name in enumerate("abcdef", start=1)]
    for part in (data.train, data.val):
        part["categories"] = names
        for place, row in enumerate(part["annotations"]):
            row["category_id"] = (1, 1, 1, 1, 1, 1, 2, 2, 3, 5)[place % 10]
    data.save()
    assert "shifted val" not in [one.kind for one in check(data.folder, pictures=False).findings]
    for row in data.val["annotations"]:
        row["category_id"] += 1
    data.save()
    assert [one.part for one in check(data.folder, pictures=False).findings if one.kind == "shifted val"] == ["val"]


def test_advice(tmp_path: Path) -> None:
    data = Data(tmp_path / "data", train=4, val=2)
    data.train["annotations"] = [row for row in data.train["annotations"] if row["image_id"] != 2]
    big = data.box(0)
    big["bbox"] = [10, 10, 60, 60]
    data.train["annotations"] += [
        {**big, "id": 500 + i, "bbox": [36 - i / 2, 36 - i / 2, 8 + i, 8 + i]} for i in range(0, 44, 4)
    ]
    for row in data.val["annotations"]:
        row["category_id"] = 1
    data.save()
    found = {one.kind: one for one in check(data.folder).findings}
    assert {"no objects", "class not in val", "rare class"} <= found.keys() and found["no objects"].count == 1
    assert found["covered"].level == "advice" and "--image-size 480" in found["covered"].mend({"data": "d", "out": "o"})


def test_without_pictures_no_file_is_opened(tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    for path in (data.folder / "images").iterdir():
        path.unlink()
    found = check(data.folder, pictures=False)
    assert found.clean and found.ledger["train"]["in"] == 60
    assert {one.kind for one in check(data.folder).findings} >= {"missing"}


def test_where_a_copy_may_be_written(tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    found = check(data.folder)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    for out, words in ((data.folder / "in", "lies in the data set"), (tmp_path / "there", "not an empty folder")):
        with pytest.raises(FcosError, match=words):
            mend.write(found, out)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine.txt"] and not (data.folder / "in").exists()


def test_the_counts_are_those_of_reading(tmp_path: Path, clean_catalog: None) -> None:
    """What the check says of a file that training reads is what training does with it."""
    from detectron2.data import MetadataCatalog

    from fcos_d2.data import find_dataset

    data = Data(tmp_path / "data")
    rows(data, "train", 3, 7, bbox=[5, 5, 0, 9])
    rows(data, "train", 8, bbox=None)
    rows(data, "train", 9, iscrowd=1)
    rows(data, "train", 10, bbox=[WIDTH - 30, 5, 38, 30])
    data.save()
    ledger = check(data.folder).ledger["train"]
    names = register(find_dataset(data.folder), "ledger")
    report = MetadataCatalog.get(names.train).fcos_report
    assert {**report["left_out"], "crowd": report["crowds"]} == ledger["dropped"]
    assert ledger["clipped"] == 1
    assert report["objects"] == ledger["used"] + ledger["clipped"] + ledger["unassignable"]
    assert isinstance(find_dataset(data.folder).splits["train"], Split)
