"""Where the files of a COCO data set lie in a folder, by the names that people and tools give them."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import FcosError
from .layout import PART_NAMES, Split
from .pictures import Pictures

__all__ = ["LOOKS_FOR", "entries", "find", "image_root", "part_of_words", "rename_hint"]

_ANNOTATIONS = (
    "{}.json",
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",  # Roboflow
    "{}/annotations.json",
    "{}/labels.json",  # FiftyOne
    "instances_{}.json",
)
# One file for the whole data set, as annotation tools export it; it counts as the train part.
_UNDIVIDED = (
    "annotations/instances_default.json",  # CVAT
    "_annotations.coco.json",
    "annotations.json",
    "labels.json",
    "result.json",  # Label Studio
)
_IMAGES = ("images/{}", "{}/images", "{}/data", "{}", "images", "data", ".")
# Words that say nothing of the part where another name has them, as in coco_train_v2.json.
_PLAIN_WORDS = {
    "annotation", "annotations", "bbox", "bboxes", "boxes", "coco", "csv", "data", "dataset", "instances", "labels",
    "oidv", "set", "split", "v",
}  # fmt: skip

LOOKS_FOR = (
    "train.json, annotations/train.json, annotations/instances_train2017.json, train/_annotations.coco.json "
    "(the same for val and test), or one annotations.json"
)


def find(root: Path) -> dict[str, Split]:
    """The parts of the COCO data set in a folder, keys among "train", "val" and "test"; empty without COCO JSON.

    Raises:
        FcosError: several files have a name of one part.
    """
    files, folders = entries(root)
    found = {part: _find_part(root, part, files, folders) for part in PART_NAMES}
    if not any(found.values()):
        for path in [files[name] for name in _UNDIVIDED if name in files][:1]:
            found["train"] = Split(path, image_root(_first_file_name(path), ("default", "train"), folders))
    return {part: split for part, split in found.items() if split is not None}


def rename_hint(root: Path) -> str:
    """What to do with a JSON file of another name; empty where there is none."""
    others = [path for path in entries(root)[0].values() if _looks_like_coco(path)]
    move = shlex.join(["mv", str(others[0]), str(root / "train.json")]) if others else ""
    return f"; if {others[0].name} holds the boxes, run: {move}" if others else ""


def entries(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """JSON files and folders, two floors deep, by their names from the folder in lower case."""
    files: dict[str, Path] = {}
    folders = {".": root / "."}
    below = [path for path in root.iterdir() if not path.name.startswith(".")]
    for folder in [path for path in below if path.is_dir() and path.name != "__MACOSX"]:
        with suppress(OSError):  # somebody else's
            below += [path for path in folder.iterdir() if not path.name.startswith(".") and _is_small_step(path)]
    for path in sorted(below, key=lambda path: (path.name != path.name.lower(), str(path))):
        kind = folders if path.is_dir() else files if path.suffix.lower() == ".json" else {}
        kind.setdefault(path.relative_to(root).as_posix().lower(), path)
    return files, folders


def _is_small_step(path: Path) -> bool:
    """Whether an entry may matter; folders of images have many that do not."""
    return not path.suffix or path.suffix.lower() == ".json"


def _find_part(root: Path, part: str, files: Mapping[str, Path], folders: Mapping[str, Path]) -> Split | None:
    aliases = PART_NAMES[part]
    for alias, pattern in itertools.product(aliases, _ANNOTATIONS):
        if path := files.get(pattern.format(alias)):
            return Split(path, image_root(_first_file_name(path), (alias, *aliases), folders))
    others = [path for name, path in files.items() if part_of_words(name) == part and _looks_like_coco(path)]
    if len(others) > 1:
        names = " and ".join(str(path.relative_to(root)) for path in others[:2])
        raise FcosError(
            f"Of {names} in {root}, either may be the {part} part: name the one that is meant {part}.json, for example "
            f"{shlex.join(['mv', str(others[-1]), str(root / f'{part}.json')])}"
        )
    if not others:
        return None
    stem = others[0].stem.lower()
    return Split(
        others[0], image_root(_first_file_name(others[0]), (stem, stem.removeprefix("instances_"), *aliases), folders)
    )


def part_of_words(name: str) -> str | None:
    """The part that the words of a name say, as those of annotations/instances_train_2024.json do."""
    words = set(re.findall(r"[^\W\d_]+", name.lower().removesuffix(".json"))) - _PLAIN_WORDS
    return next((part for part, aliases in PART_NAMES.items() if len(words) == 1 and words <= {*aliases}), None)


def _looks_like_coco(path: Path) -> bool:
    """Whether one of COCO's keys is near the beginning of a file."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(1 << 16).replace(b"\0", b"")  # of UTF-16, too
        return any(key in head for key in (b'"images"', b'"annotations"', b'"categories"', b'"info"', b'"licenses"'))
    return False


def image_root(name: str | None, aliases: tuple[str, ...], folders: Mapping[str, Path]) -> Path:
    """The folder of a part that holds an image, else the first folder that exists.

    Args:
        name: the image's, as annotations have it; None where they name none.
        aliases: names of the part.
        folders: those that there are, by their names in lower case from the folder of the data; "." is that.
    """
    names = dict.fromkeys(pattern.format(alias) for pattern in _IMAGES for alias in aliases)
    there = [Pictures(folders[name]) for name in names if name in folders]
    if name:
        for pictures in there:
            if pictures.holds(name):
                return pictures.root
        for pictures in there:
            if len(pictures.find(name)) == 1:
                return pictures.root
    return there[0].root


def _first_file_name(path: Path) -> str | None:
    """The first `file_name` of a COCO file, without parsing all of it (COCO's own has 450 MB)."""
    tail = ""
    with path.open(encoding="utf-8", errors="replace") as file:
        while chunk := file.read(1 << 20):
            if found := re.search(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)+")', tail + chunk):
                with suppress(json.JSONDecodeError):
                    return json.loads(found[1])
                break
            tail = chunk[-4096:]
    return None
