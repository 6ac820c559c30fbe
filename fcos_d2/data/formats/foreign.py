"""Formats that are recognised but not read, with what converts them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..meant import number
from .json_kinds import kind_of
from .listing import child, first_files, part_folders

__all__ = ["FOREIGN", "Foreign", "name_of_foreign"]


@dataclass(frozen=True)
class Foreign:
    """A format of others."""

    name: str
    is_in: Callable[[Path], bool]  # whether a folder has it
    advice: str  # what to do, in words that end a sentence


def _files(root: Path, suffix: str, most: int = 5) -> list[Path]:
    """Some files of a kind in a folder, in those of its parts and of its labels."""
    places = [
        root,
        child(root, "annotations", "labels", "label", "ann", "label_2", "labeltxt"),
        *part_folders(root).values(),
    ]
    places += [inner for place in places[1:] if place for inner in part_folders(place).values()]
    places += [
        inner for place in places[2:] if place and (inner := child(place, "ann", "labels", "label_2", "labeltxt"))
    ]
    training = child(root, "training")
    places += [child(training, "label_2")] if training else []
    return [file for place in places if place for file in first_files(place, suffix, most)]


def _any_name(*endings: str) -> Callable[[Path], bool]:
    return lambda root: any(_files(root, ending) for ending in endings)


def _json(kind: str) -> Callable[[Path], bool]:
    return lambda root: any(kind_of(path) == kind for path in _files(root, ".json"))


def _words(path: Path) -> list[str]:
    """The words of the first line with more than a few, of a text file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = [file.readline(1000).split() for _ in range(4)]
    except OSError:
        return []
    return next((words for words in lines if len(words) > 4), [])


def _is_kitti(path: Path) -> bool:
    words = _words(path)
    numbers = [number(word) for word in words[1:]]
    return len(words) in (15, 16) and number(words[0]) is None and None not in numbers


def _is_dota(path: Path) -> bool:
    words = _words(path)
    numbers = [number(word) for word in words[:8]]
    return len(words) in (9, 10) and None not in numbers and number(words[8]) is None


def _text(test: Callable[[Path], bool]) -> Callable[[Path], bool]:
    return lambda root: any(test(path) for path in _files(root, ".txt"))


def _supervisely(root: Path) -> bool:
    places = [root, *[path for path in sorted(root.iterdir()) if path.is_dir()]]
    return (root / "meta.json").is_file() and any(child(place, "ann") for place in places)


def _via_table(root: Path) -> bool:
    for path in _files(root, ".csv"):
        with path.open(encoding="utf-8", errors="replace") as file:
            if "region_shape_attributes" in file.readline(1000):
                return True
    return False


_DATUMARO = "convert it, for example with: datum convert -i {root} -f coco_instances -o NEW -- --save-media"

FOREIGN: tuple[Foreign, ...] = (
    Foreign("TFRecord", _any_name(".tfrecord", ".tfrecords", ".record"), _DATUMARO),
    Foreign("Supervisely", _supervisely, "export it as COCO with Supervisely's app 'Export to COCO'"),
    Foreign("VGG Image Annotator (VIA)", lambda root: _json("via")(root) or _via_table(root),
            "in VIA, choose Annotation > Export Annotations (COCO format)"),
    Foreign("LVIS", _json("lvis"),
            "give each of its images a 'file_name', the last part of its 'coco_url', which makes it COCO JSON"),
    Foreign("Datumaro", _json("datumaro"), _DATUMARO),
    Foreign("Create ML", _json("createml"), _DATUMARO),
    Foreign("FiftyOne", lambda root: (root / "samples.json").is_file() and (root / "metadata.json").is_file(),
            "convert it with: fiftyone convert --input-dir {root} --input-type fiftyone.types.FiftyOneDataset "
            "--output-dir NEW --output-type fiftyone.types.COCODetectionDataset"),
    Foreign("Ultralytics' NDJSON", _any_name(".ndjson"),
            "convert it to YOLO with convert_ndjson_to_yolo of ultralytics.data.converter"),
    Foreign("KITTI", _text(_is_kitti), _DATUMARO),
    Foreign("DOTA", _text(_is_dota), "convert it to YOLO with convert_dota_to_yolo_obb of ultralytics.data.converter"),
)  # fmt: skip


def name_of_foreign(root: Path) -> str:
    """What a folder seems to hold and what converts it, in a sentence; empty where it is nothing known."""
    for row in FOREIGN:
        if row.is_in(root):
            advice = row.advice.format(root=shlex.quote(str(root)))
            return f"{root} seems to hold data of {row.name}, which is not read here: {advice}."
    return ""
