"""Which tool wrote a JSON file, by the keys near its beginning; it may be large, or cut off."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

__all__ = ["kind_of"]

_HEAD = 1 << 16  # bytes that are looked at

# Kind -> first sign of the file, and keys of which one of each group is there, or none of a group with "!"; the first
# row that fits goes.
_KINDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("lvis", "{", ("neg_category_ids|not_exhaustive_category_ids", "!file_name")),
    ("via", "{", ("_via_settings|_via_img_metadata|region_attributes",)),
    ("labelme", "{", ("shapes", "imagePath|imageData|imageHeight|flags|version")),
    ("datumaro", "{", ("categories", "items|dm_format_version")),
    ("supervisely", "{", ("objects", "size", "tags|description")),
    ("coco", "{", ("images|annotations|categories|info|licenses",)),
    ("createml", "[", ("coordinates", "image|imagefilename")),
    ("labelstudio", "[", ("annotations|completions", "data")),
    (
        "labelstudio",
        "[",
        ("label|bbox|polygon|rectangle", "image|img|photo|url", "original_width|annotation_id|annotator"),
    ),
)


def kind_of(path: Path) -> str:
    """A name of the table above; "unknown" where nothing fits, "" where the file cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD).replace(b"\0", b"").decode("utf-8", "replace").lstrip("\ufeff\ufffd \t\r\n")
        keys = set(re.findall(r'"([A-Za-z_]{1,40})"\s*:', head))
        for kind, first, groups in _KINDS:
            if head.startswith(first) and all(_fits(keys, group) for group in groups):
                return kind
        return "unknown"
    return ""


def _fits(keys: set[str], group: str) -> bool:
    return keys.isdisjoint(group.lstrip("!").split("|")) == group.startswith("!")
