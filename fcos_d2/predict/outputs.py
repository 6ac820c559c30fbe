"""Detections in the formats of other tools, a row of `FORMATS` each: for reading, and as labels to correct."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from ..files import numbered, write_atomically

__all__ = ["FORMATS", "Results", "write"]

Row = Mapping[str, Any]
_COLUMNS = (
    "image", "frame", "time", "width", "height", "class", "score", "left", "top", "right", "bottom", "track",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """What was found: rows of a journal, with the names of all classes in the order of the detector."""

    rows: Iterable[Row]  # read anew by each writer
    classes: Sequence[str]
    threshold: Any
    model: str = ""  # which detector it was

    def images(self) -> Iterator[Row]:
        """Rows of images and frames, those of videos left out."""
        return (row for row in self.rows if "image" in row)


@dataclass(frozen=True)
class Format:
    """How results are written in one format.

    `files` gives names (added to the stem of the results, "/" for below a folder) and contents.
    """

    help: str
    files: Callable[[Results], Iterator[tuple[str, str]]]


def write(folder: Path, stem: str, formats: Sequence[str], results: Results, new: bool = True) -> dict[str, Path]:
    """Write results; no file that is there is replaced.

    Args:
        folder: where to.
        stem: beginning of the files' names.
        formats: names of `FORMATS`; "jsonl" is what the journal is already.
        results: to write.
        new: whether there are more than when they were last written; else a file that is there is left at that.
    Returns:
        For each format its file or folder.
    Raises:
        FcosError: a file cannot be written.
    """
    made: dict[str, Path] = {}
    for name in formats:
        files = list(FORMATS[name].files(results))
        endings = list(dict.fromkeys(ending.partition("/")[0] for ending, _ in files))
        for free in numbered(folder, stem):
            roots = {ending: _with_number(free.name, stem, ending) for ending in endings}
            there = any(os.path.lexists(folder / root) for root in roots.values())
            if not there or not new:
                break
        for ending, text in files if new or not there else ():
            first, _, below = ending.partition("/")
            data = text.encode("utf-8", "backslashreplace")
            write_atomically(folder / roots[first] / below, lambda file, data=data: file.write(data))
        if endings:
            made[name] = folder / roots[endings[0]]
    return made


def _with_number(name: str, stem: str, ending: str) -> str:
    """detections-2.csv, and of a folder detections-yolo-2."""
    return f"{name}{ending}" if "." in ending else f"{stem}{ending}{name.removeprefix(stem)}"


def name_of(row: Row) -> str:
    """The image of a row; of a video's frame, a name with its number."""
    where = str(row["image"])
    return f"{PurePath(where).with_suffix('')}_{row['frame']:06d}.jpg" if "frame" in row else where


def _json(results: Results) -> Iterator[tuple[str, str]]:
    data = {"images": list(results.images()), "classes": list(results.classes), "threshold": results.threshold}
    yield ".json", json.dumps(data, ensure_ascii=False, indent=1) + "\n"


def _csv(results: Results) -> Iterator[tuple[str, str]]:
    file = io.StringIO(newline="")
    table = csv.writer(file, lineterminator="\n")
    table.writerow(_COLUMNS)
    for row in results.images():
        start = [row["image"], row.get("frame", ""), row.get("time", ""), row["width"], row["height"]]
        for found in row["detections"]:
            table.writerow([*start, found["class"], found["score"], *found["box"], found.get("track") or ""])
    yield ".csv", file.getvalue()


def _coco(results: Results) -> Iterator[tuple[str, str]]:
    """COCO's JSON object of a data set; each annotation has its score, too."""
    ids = {name: number for number, name in enumerate(results.classes, start=1)}
    images: list[Row] = []
    annotations: list[Row] = []
    for number, row in enumerate(results.images(), start=1):
        images.append({"id": number, "file_name": name_of(row), "width": row["width"], "height": row["height"]})
        for found in row["detections"]:
            x0, y0, x1, y1 = found["box"]
            width, height = round(x1 - x0, 3), round(y1 - y0, 3)
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": ids[found["class"]],
                "bbox": [x0, y0, width, height], "area": round(width * height, 3), "iscrowd": 0,
                "score": found["score"], **({"track_id": found["track"]} if found.get("track") else {}),
            })  # fmt: skip
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    data = {"images": images, "annotations": annotations, "categories": categories}
    yield ".coco.json", json.dumps(data, ensure_ascii=False) + "\n"


def _yolo(results: Results) -> Iterator[tuple[str, str]]:
    """A text file for each image, in folders as the images are; to lie as `labels` beside `images`."""
    ids = {name: number for number, name in enumerate(results.classes)}
    names = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for name, number in ids.items())
    yield "-yolo/data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}"
    yield "-yolo/classes.txt", "".join(f"{' '.join(name.split())}\n" for name in results.classes)
    places = [str(row["image"]) for row in results.images() if "://" not in str(row["image"])]
    root = os.path.commonpath([os.path.dirname(os.path.abspath(place)) for place in places]) if places else ""
    taken: set[str] = set()
    for row in results.images():
        place = name_of(row)
        beside = PurePath(place.rpartition("/")[2]) if "://" in place else PurePath(os.path.relpath(place, root))
        paths = numbered(Path(beside.parent), beside.stem, ".txt")
        path = next(path.as_posix() for path in paths if path.as_posix() not in taken)
        taken.add(path)
        lines = []
        for found in row["detections"]:
            x0, y0, x1, y1 = found["box"]
            width, height = row["width"], row["height"]
            numbers = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            lines.append(" ".join([str(ids[found["class"]]), *(f"{number:.8f}" for number in numbers)]))
        yield f"-yolo/labels/{path}", "".join(f"{line}\n" for line in lines)


def _labelstudio(results: Results) -> Iterator[tuple[str, str]]:
    """Tasks with predictions, and the labelling interface that they need. Label Studio reads no frames of a video."""
    from xml.sax.saxutils import quoteattr  # which imports what reads addresses

    tasks = []
    for number, row in enumerate(row for row in results.images() if "frame" not in row):
        boxes = [_box(found, row, f"{number}-{i}") for i, found in enumerate(row["detections"])]
        scores = [found["score"] for found in row["detections"]]
        prediction = {"model_version": results.model, "score": max(scores, default=0.0), "result": boxes}
        tasks.append({"data": {"image": _served(str(row["image"]))}, "predictions": [prediction]})
    yield ".labelstudio.json", json.dumps(tasks, ensure_ascii=False) + "\n"
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in results.classes)
    yield (
        ".labelstudio.xml",
        (
            '<View>\n  <Image name="image" value="$image"/>\n'
            f'  <RectangleLabels name="label" toName="image">\n{labels}  </RectangleLabels>\n</View>\n'
        ),
    )


def _box(found: Row, row: Row, name: str) -> dict[str, Any]:
    """A detection as Label Studio has it: in percent of the image."""
    x0, y0, x1, y1 = found["box"]
    x, y = 100 / row["width"], 100 / row["height"]
    value = {
        "x": x0 * x, "y": y0 * y, "width": (x1 - x0) * x, "height": (y1 - y0) * y, "rotation": 0,
        "rectanglelabels": [found["class"]],
    }  # fmt: skip
    return {
        "id": name, "type": "rectanglelabels", "from_name": "label", "to_name": "image", "image_rotation": 0,
        "original_width": row["width"], "original_height": row["height"], "value": value, "score": found["score"],
    }  # fmt: skip


def _served(where: str) -> str:
    """The address at which Label Studio shows a file below its LOCAL_FILES_DOCUMENT_ROOT, the working directory."""
    if "://" in where:
        return where
    path = os.path.relpath(where)
    return "/data/local-files/?d=" + quote(Path(path).as_posix())


FORMATS: dict[str, Format] = {
    "jsonl": Format("one JSON object a line, written as it goes", lambda results: iter(())),
    "json": Format("one JSON object", _json),
    "csv": Format("a table with a line for each box", _csv),
    "coco": Format("COCO's JSON of a data set, with scores", _coco),
    "yolo": Format("a text file for each image, with data.yaml", _yolo),
    "labelstudio": Format("tasks with predictions for Label Studio", _labelstudio),
}
