"""Faulty label files of each kind: each is read or refused in one sentence, and no label is lost."""

from __future__ import annotations

import logging
import random
import re
import zipfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from label_files import in_csv, in_cvat, in_labelme, in_labelstudio, in_voc, in_yolo, picture, write

from fcos_d2.data import coco as coco_room
from fcos_d2.data import find_dataset, format_named, read_parts, require_parts
from fcos_d2.errors import FcosError

FILES = 150  # of a kind
SIZE = (32, 24)
BOXES = [("cat", [0.5, 0.25, 3.75, 9.5]), ("dog", [4, 6, 8, 3]), ("dog", [30, 22, 1, 1]), ("eel", [2, 3, 7, 10])]
NUMBERED = [(["cat", "dog", "eel"].index(kind), box) for kind, box in BOXES]
YAML = "path: .\ntrain: images\nval: images/val\nnc: 3\nnames: [cat, dog, eel]\n"
TOKENS = (
    b"", b"-1", b"nan", b"inf", b"1e400", b"1e5", b"0", b"a", b"3.0", b"\xff", b"\0", b"9" * 5000, b"null", b"[]",
    b"{}", "\u732b".encode(), b"<", b"&x;", b'"', b",", b"\n", b"..", b"/etc/passwd", b"../../x.png", b"C:\\x.png",
)  # fmt: skip
WHOLE = (
    lambda data: b"", lambda data: b"\xef\xbb\xbf" + data,
    lambda data: data.decode("utf-8", "replace").encode("utf-16"),
    lambda data: b"\x89PNG\r\n", lambda data: b"[" * 50_000, lambda data: b"<a>" * 50_000, lambda data: data * 3,
    lambda data: data + b"\xff\xfe", lambda data: data.replace(b"\n", b"\r\n"), lambda data: data[::-1],
    lambda data: b"<!DOCTYPE a [<!ENTITY x 'y'>]>" + data,
)  # fmt: skip
KINDS = {
    "yolo": ("labels/0.txt", in_yolo(SIZE, NUMBERED)),
    "yaml": ("data.yaml", YAML),
    "voc": ("0.xml", in_voc("0.png", SIZE, BOXES, "<difficult>0</difficult>")),
    "lists": ("ImageSets/Main/train.txt", "0\n1\n"),
    "csv": ("train.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n" + "".join(
        f"0.png,32,24,{kind},{x},{y},{x + w},{y + h}\n" for kind, (x, y, w, h) in BOXES)),
    "rows": ("train.csv", in_csv(BOXES)),
    "labelstudio": ("export.json", in_labelstudio(SIZE, BOXES)),
    "labelme": ("0.json", in_labelme(BOXES)),
    "cvat": ("annotations.xml", in_cvat(SIZE, BOXES)),
}  # fmt: skip


def mutated(draw: random.Random, data: bytes) -> bytes:
    """One to three faults of bytes, words or lines, or the whole file written in another way."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        spans = [found.span() for found in re.finditer(rb"[\w.+-]+", data)] or [(0, 0)]
        start, end = draw.choice(spans)
        change = draw.random()
        if change < 0.6:
            data = data[:start] + draw.choice(TOKENS) + data[end:]
        elif change < 0.75:
            lines = re.split(rb"(?<=[\n>,])", data)
            at = draw.randrange(len(lines))
            data = b"".join(lines[:at] + lines[at : at + 1] * draw.choice((0, 2)) + lines[at + 1 :])
        elif change < 0.85:
            data = data[: draw.randrange(len(data) + 1)]
        else:
            data = draw.choice(WHOLE)(data)
    return data


def labels_in(kind: str, data: bytes) -> int | None:
    """How many labels a file that was read has, counted in another way; None where that is not easy."""
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    if kind == "yolo":
        return sum(bool(line.strip()) for line in text.splitlines())
    if kind == "voc":
        return len(ElementTree.fromstring(data).findall("object"))
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_no_traceback_and_no_label_lost(kind, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    name, text = KINDS[kind]
    for image in ("0.png", "images/0.png") if kind in ("yolo", "yaml") else ("0.png",):
        picture(tmp_path / image, SIZE)
    if kind in ("yolo", "yaml"):
        write(tmp_path / "data.yaml", YAML)
        write(tmp_path / "labels" / "0.txt", in_yolo(SIZE, NUMBERED))
    if kind == "lists":
        for stem in "01":
            picture(tmp_path / "JPEGImages" / f"{stem}.png", SIZE)
            write(tmp_path / "Annotations" / f"{stem}.xml", KINDS["voc"][1])
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    if kind == "voc":  # so that the folder is one of VOC whatever becomes of the other file
        picture(tmp_path / "1.png", SIZE)
        write(tmp_path / "1.xml", text)
    ends: Counter[str] = Counter()
    for number in range(FILES):
        data = mutated(random.Random(f"{kind} {number}"), text.encode())
        (tmp_path / name).write_bytes(data)
        ends["refused" if _refused(kind, tmp_path, data) else "read"] += 1
    assert min(ends["read"], ends["refused"]) > 5, ends


def _refused(kind: str, root: Path, data: bytes) -> bool:
    """Whether a data set is refused, in one sentence; where it is not, all of its labels are accounted for."""
    format = {"yaml": "yolo", "rows": "csv", "lists": "voc"}.get(kind, kind)
    try:
        layout = find_dataset(root, format)
        require_parts(root, layout.splits, ("train",))
        coco = read_parts(layout, ("train",))["train"]
        rows = len(coco["annotations"])
        report = coco_room.prepare(layout.splits["train"], format_named(format).read, coco).report
    except FcosError as error:
        message = str(error)
    else:
        assert rows == report.annotations == report.objects + report.crowds + sum(report.left_out.values())
        assert labels_in(kind, data) in (None, rows - 4 * (kind == "voc"))
        return False
    assert "\n" not in message and len(message) < 1500 and str(root) in message
    return True


@pytest.mark.parametrize("number", range(60))
def test_damaged_archives(number, tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("0.xml", KINDS["voc"][1])
        file.writestr("0.png", picture(tmp_path / "0.png", SIZE).read_bytes())
    draw, data = random.Random(number), bytearray((tmp_path / "a.zip").read_bytes())
    for _ in range(draw.choice((1, 2, 4))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    (tmp_path / "a.zip").write_bytes(data[: draw.randrange(len(data))] if number % 7 == 0 else data)
    try:
        end = find_dataset(tmp_path / "a.zip").format
    except FcosError as error:
        end = str(error)
    assert end == "voc" or ("\n" not in end and str(tmp_path) in end)
    assert {path.name for path in tmp_path.iterdir()} <= {"a.zip", "0.png", "cache"}
