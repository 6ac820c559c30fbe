"""COCO JSON: a file for each part, beside `images/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write"]


def write(folder: Path, parts: Mapping[str, dict]) -> None:
    """Write train.json, val.json and test.json, as far as there are such parts."""
    for part, coco in parts.items():
        (folder / f"{part}.json").write_text(json.dumps(coco), encoding="utf-8")
