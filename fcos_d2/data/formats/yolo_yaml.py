"""What describes a YOLO data set: Ultralytics' data.yaml and Darknet's obj.data, and the folders that they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import FcosError
from ..layout import PART_NAMES
from ..meant import number, shown
from ..texts import lines_of, read_yaml
from .listing import first_files, part_of

__all__ = ["DESCRIPTIONS", "Description", "described", "description_in"]

_USUAL = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "obj.data")
DESCRIPTIONS = (".yaml", ".yml", ".data")


@dataclass(frozen=True)
class Description:
    """What a file says about a data set."""

    path: Path
    parts: dict[str, list[str]]  # part -> folders, lists and images, as they are written
    names: dict[int, str] | None  # of the classes, by their numbers; None where they are not listed
    key_point_values: int = 0  # numbers of a line after the box
    base: str = ""  # folder that paths are relative to, as it is written

    def places(self, root: Path, part: str) -> Iterator[Path]:
        """The folders and files of a part, below the root; raises FcosError where there is none that is meant."""
        for written in self.parts[part]:
            found = next((root / way for way in self._ways(written, part) if os.path.exists(root / way)), None)
            if found is None:
                raise FcosError(
                    f"{self.path} says {part}: {shown(written)}, and there is no such folder or list in {root}, which "
                    "is all that is read: put it there, or correct the path."
                )
            yield found

    def _ways(self, written: str, part: str) -> Iterator[str]:
        """Paths below the root that may be meant: as written, else what is left of the path of another machine."""
        base, words = _words(self.base), _words(written)
        yield from ("/".join(base + words), "/".join(words))
        elsewhere = _is_absolute(written) or self.path.suffix.lower() == ".data"  # Darknet's are from where it runs
        whole = words if elsewhere else base + words
        shortest = 1 if whole and (part_of(whole[-1]) == part or whole[-1].endswith(".txt")) else 2
        least = shortest if elsewhere else len(words)
        for start in range(1, len(whole) - least + 1):
            yield "/".join(whole[start:])


def description_in(root: Path) -> Path | None:
    """The file that describes the data set in a folder.

    Raises:
        FcosError: several may.
    """
    files = {path.name.lower(): path for suffix in DESCRIPTIONS for path in first_files(root, suffix, 50)}
    for name in _USUAL:
        if name in files and _describes(files[name], sure=True):
            return files[name]
    others = [path for path in files.values() if _describes(path, sure=False)]
    if len(others) > 1:
        names = " and ".join(path.name for path in others[:2])
        raise FcosError(
            f"Of {names} in {root}, either may describe the data set: name the one that is meant data.yaml."
        )
    return others[0] if others else None


def described(path: Path) -> Description:
    """Read a description; raises FcosError if it is wrong."""
    said = _darknet(path) if path.suffix.lower() == ".data" else read_yaml(path)
    parts: dict[str, list[str]] = {}
    for part, keys in PART_NAMES.items():
        value = next((said[key] for key in keys if said.get(key)), None)
        if value is None:
            continue
        parts[part] = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) and one.strip() for one in parts[part]):
            raise FcosError(f"{path} says {part}: {shown(value)}; it must be a folder, a list in a .txt, or several.")
    shape = said.get("kpt_shape")
    sound = isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and 0 < side < 1000 for side in shape)
    base = said.get("path")
    points = shape[0] * shape[1] if sound and isinstance(shape, list) else 0
    return Description(path, parts, _names(path, said), points, base if isinstance(base, str) else "")


def _describes(path: Path, sure: bool) -> bool:
    """Whether a file names classes and images; one of a usual name must be right."""
    try:
        said = _darknet(path) if path.suffix.lower() == ".data" else read_yaml(path)
    except FcosError:
        if sure:
            raise
        return False
    parts = [said[key] for keys in PART_NAMES.values() for key in keys if said.get(key)]
    return ("names" in said or "nc" in said) and any(isinstance(value, (str, list)) for value in parts)


def _darknet(path: Path) -> dict[str, Any]:
    """Lines `key = value`."""
    pairs = [line.partition("=") for line in lines_of(path) if "=" in line and not line.startswith("#")]
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _names(path: Path, said: Mapping[str, Any]) -> dict[int, str] | None:
    """Classes by their numbers, from a list, from keys and values, or from a file with a name a line."""
    names, count = said.get("names"), number(said.get("classes" if path.suffix.lower() == ".data" else "nc"))
    if isinstance(names, str):
        words = _words(names)
        files = [path.parent.joinpath(*words[start:]) for start in range(len(words))]
        file = next((file for file in files if os.path.isfile(file)), None)
        if file is None:
            raise FcosError(f"{path} says names: {shown(names)}, and there is no such file beside it.")
        names = lines_of(file)
    if names is None:
        if count is None or not 0 < count <= 100_000:
            return None
        return {index: f"class_{index}" for index in range(int(count))}
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(listed, dict) or not listed:
        raise FcosError(f"{path} says names: {shown(names)}; it must list the classes.")
    found = {}
    for key, name in listed.items():
        index = number(key)
        if (
            index is None
            or index != index
            or index < 0
            or not float(index).is_integer()
            or not isinstance(name, (str, int, float))
        ):
            raise FcosError(f"{path} has the class {shown(key)}: {shown(name)}; it must be a number and a name.")
        found[int(index)] = str(name).strip()
    if count is not None and count == count and count != len(found):
        raise FcosError(f"{path} says nc: {count}, and names {len(found)} classes: correct the one that is wrong.")
    return found


def _is_absolute(written: str) -> bool:
    return bool(re.match(r"[A-Za-z]:|[/\\]", written))


def _words(written: str) -> list[str]:
    """The parts of a path, without what leads out of a folder."""
    path = PurePosixPath(re.sub(r"^[A-Za-z]:", "", written.strip()).replace("\\", "/"))
    return [word for word in path.parts if word not in ("/", "//", ".", "..")]
