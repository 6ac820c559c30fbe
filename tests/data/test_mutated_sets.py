"""Faulty data sets of four formats: no traceback, every label is accounted for, also in another format."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_set import balance
from made_set import check as looked_at
from PIL import Image

from fcos_d2.data import find_dataset, format_named, read_parts
from fcos_d2.data.clean import Report
from fcos_d2.data.coco import prepare
from fcos_d2.data.convert import write_set
from fcos_d2.data.parts import open_parts
from fcos_d2.errors import FcosError

SETS, SOME = 125, 60  # of each format, in the slow tests and in the others
SIZE = 64, 48
BOXES = {
    "0": [("cat", [2, 2, 10, 8]), ("dog", [5.5, 6, 9.25, 7.5]), ("cat", [40, 20, 24, 28])],
    "1": [("dog", [0, 0, 64, 48]), ("dog", [50, 30, 30, 30])],
    "2": [],
}
VALUES = (
    "", "0", "-1", "1", "2", "7", "0.5", "-0.25", "1.5", "31", "99", "1e5", "1e300", "nan", "inf", "1e-9", "NaN",
    "null", "x", "1,2", "cat", "dog", "bird", "00", "1.0", "true", "é", "\\", '"', "<", "&", "]", "\n", "  ", "\t",
    "1" * 400,
)  # fmt: skip


def in_coco(folder: Path) -> None:
    names = ["cat", "dog"]
    rows = [(at, *row) for at, there in enumerate(BOXES.values()) for row in there]
    text = {
        "images": [{"id": at, "file_name": f"{name}.png", "width": 64, "height": 48} for at, name in enumerate(BOXES)],
        "annotations": [
            {"id": number, "image_id": at, "category_id": names.index(kind), "bbox": box, "iscrowd": int(number == 2)}
            for number, (at, kind, box) in enumerate(rows, start=1)
        ],
        "categories": [{"id": at, "name": name} for at, name in enumerate(names)],
    }
    (folder / "train.json").write_text(json.dumps(text, indent=1), encoding="utf-8")


def in_csv(folder: Path) -> None:
    rows = [(name, kind, *box) for name, there in BOXES.items() for kind, box in there]
    lines = [f"{name}.png,64,48,{kind},{x},{y},{x + w},{y + h}" for name, kind, x, y, w, h in rows]
    text = "\n".join(["filename,width,height,class,xmin,ymin,xmax,ymax", *lines])
    (folder / "train.csv").write_text(text + "\n", encoding="utf-8")


def in_another(form: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        start = folder / "start"
        (start / "images").mkdir(parents=True)
        for name in BOXES:
            shutil.copy(folder / "images" / f"{name}.png", start / "images")
        in_coco(start)
        write_set(open_parts(find_dataset(start)), folder / "end", form, source=start)
        shutil.rmtree(start)
        shutil.rmtree(folder / "images")
        for path in (folder / "end").iterdir():
            path.rename(folder / path.name)
        (folder / "end").rmdir()

    return write


def lines(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())


# How a set is written, which files are mutated, how many labels one has, and the format that it goes over to.
FORMS: dict[str, tuple[Callable[[Path], None], str, Callable[[Path], int], str]] = {
    "coco": (in_coco, "train.json", lambda path: len(json.loads(path.read_bytes())["annotations"]), "yolo"),
    "yolo": (in_another("yolo"), "*.[ty]*", lambda path: lines(path) if path.suffix == ".txt" else 0, "voc"),
    "voc": (in_another("voc"), "*.[tx]*", lambda path: path.read_text(encoding="utf-8").count("<object"), "coco"),
    "csv": (in_csv, "train.csv", lines, "coco"),
}


def mutate(text: str, draw: random.Random) -> str:
    """A number, a word or a line is another one, twice there, or gone; rarely the file is cut off."""
    change = draw.random()
    if change < 0.6:
        spots = list(re.finditer(r"-?\d+(?:\.\d+)?", text) if draw.random() < 0.8 else re.finditer(r"\w+", text))
        if spots:
            spot = draw.choice(spots)
            return text[: spot.start()] + draw.choice(VALUES) + text[spot.end() :]
    lines = text.splitlines(keepends=True)
    if change < 0.9 and lines:
        at = draw.randrange(len(lines))
        lines[at : at + 1] = draw.choice(([], [lines[at]] * 2, [lines[at], *draw.sample(VALUES, 3), "\n"]))
        return "".join(lines)
    return draw.choice((text[: draw.randrange(len(text) + 1)], "", text + "\0", text.replace(" ", "")))


@pytest.mark.parametrize("sets", [SOME, pytest.param(SETS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", FORMS)
def test_no_traceback_and_no_label_lost(form, sets, tmp_path, clean_catalog):
    write, pattern, count, other = FORMS[form]
    base = tmp_path / "base"
    (base / "images").mkdir(parents=True)
    for name in BOXES:
        Image.new("RGB", SIZE, (90, 120, 60)).save(base / "images" / f"{name}.png")
    write(base)
    files = {path: path.read_text(encoding="utf-8") for path in sorted(base.rglob(pattern)) if path.is_file()}
    ends: Counter[str] = Counter()
    for number in range(sets):
        draw = random.Random(f"{form} {number}")
        changed = draw.choice(list(files))
        for _ in range(draw.choice((1, 1, 2, 3))):
            changed.write_text(mutate(changed.read_text(encoding="utf-8"), draw), encoding="utf-8")
        refused = refusal(base, tmp_path / "end", other, lambda: sum(map(count, files)))
        assert "\n" not in refused and len(refused) < 1500 and not (tmp_path / "end").exists()
        ends["refused" if refused else "read"] += 1
        changed.write_text(files[changed], encoding="utf-8")
    assert min(ends["read"], ends["refused"]) > sets / 10, ends


def refusal(base: Path, end: Path, other: str, count: Callable[[], int]) -> str:
    """What is said of a set that is not read."""
    try:
        check(base, end, other, count)
    except FcosError as error:
        return str(error)
    return ""


def check(base: Path, end: Path, other: str, count: Callable[[], int]) -> None:
    """Every label of a set is accounted for; training finds the same ones after conversion; raises FcosError."""
    layout = find_dataset(base)
    before, ledger = reports(layout), looked_at(base).ledger
    listed = sum(report.annotations for report in before.values())
    assert listed == count() if layout.format == "coco" else listed <= count()
    for part, report in before.items():
        assert_conserved(report)
        assert_trained(report, ledger[part])
    accounts = write_set(open_parts(layout), end, other, "link", source=base)
    after = reports(find_dataset(end))
    assert accounts.keys() == before.keys() == after.keys()
    for part, account in accounts.items():
        assert account.annotations == before[part].annotations == account.written + sum(account.left_out.values())
        assert account.written == after[part].annotations
        assert after[part].objects == before[part].objects
        assert after[part].crowds == (0 if other == "yolo" else before[part].crowds) == account.crowds
        assert_conserved(after[part])
    shutil.rmtree(end)


def reports(layout) -> dict[str, Report]:
    read, objects = format_named(layout.format).read, read_parts(layout, tuple(layout.splits))
    return {part: prepare(layout.splits[part], read, coco).report for part, coco in objects.items()}


def assert_conserved(report: Report) -> None:
    assert report.annotations == report.objects + report.crowds + sum(report.left_out.values())
    assert min(report.objects, report.crowds, *report.left_out.values()) >= 0


def assert_trained(report: Report, counts: dict[str, Any]) -> None:
    """What `fcos check` says of a part is what training reads: in = used + clipped + dropped + unassignable."""
    assert balance(counts) == 0 and counts["in"] == report.annotations
    assert counts["dropped"] == {**report.left_out, "crowd": report.crowds}
    assert counts["used"] + counts["clipped"] + counts["unassignable"] == report.objects
