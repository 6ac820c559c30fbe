"""From options to the files of a report: the page, its numbers as JSON, and its pictures where they are asked for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import fcos_d2

from ..errors import FcosError
from ..files import require_own_json, write_atomically, write_json
from ..visualize.charts import alone
from ..webpage import require_own_page
from . import page
from .material import Material, gather
from .parts import Section
from .sections import SECTIONS, Row

__all__ = ["make_report", "require_free", "write_pictures"]

_WITH_MAPS, _WITH_ERRORS = "centerness", "errors"  # the sections that show maps, and causes of errors


def require_free(output: Path, pictures: Path | None) -> None:
    """Raise FcosError if something else is where a report would be written."""
    require_own_page(output, page.GENERATOR, "--output")
    require_own_json(output.with_suffix(".json"), page.GENERATOR, "--output")
    if pictures is not None and (pictures.is_file() or (pictures.is_dir() and any(pictures.iterdir()))):
        raise FcosError(f"{pictures} is there already and not empty: choose another folder for --pictures.")


def make_report(
    output: Path, command: Sequence[str], options: Mapping[str, Any], audience: Any, only: Sequence[str] = (),
    pictures: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a detector over a data set, and write what it does there.

    Args:
        output: the page, whose numbers are written beside it with the suffix .json.
        command: words of the command line, without those that choose sections and pictures.
        options: those of `fcos eval`, by their names.
        audience: who is told how it goes, see `train.job.Audience`.
        only: keys of sections; all by default.
        pictures: a new folder for each picture as a file.
    Returns:
        What the JSON file says.
    Raises:
        FcosError: something else is there, the detector or the data cannot be used, or a file cannot be written.
    """
    require_free(output, pictures)
    rows = [row for row in SECTIONS if not only or row.key in only]
    keys = [row.key for row in rows]
    material = gather(output.parent, command, options, audience, _WITH_MAPS in keys, _WITH_ERRORS in keys)
    with audience.waiting("writing the report"), audience.no_tables():
        sections = {row: row.make(material) for row in rows}
    found = _numbers(material, sections)
    if pictures is not None:
        write_pictures(pictures, sections)
    page.write(output, _title(material), _told(material, found), sections, command)
    write_json(output.with_suffix(".json"), found)
    return found


def _title(m: Material) -> str:
    where = m.data.resolve().name if m.data is not None else m.objects.dataset
    return f"{Path(m.weights).name} on {where}" + (f", {m.split}" if m.split else "")


def _told(m: Material, found: Mapping[str, Any]) -> str:
    images = f"{len(m.objects.records):,} images, {m.objects.count:,} objects"
    if m.tta is not None:
        images += f", {len(list(m.tta.views()))} views of each image"
    return f"{images}. fcos_d2 {found['version']}, {found['made'].replace('T', ' ')}."


def _numbers(m: Material, sections: Mapping[Row, Section]) -> dict[str, Any]:
    """All numbers, and of each picture the command that makes it."""
    told: dict[str, dict[str, Any]] = {}
    for row, section in sections.items():
        how = shlex.join([*m.command, "--only", row.key, "--pictures", "pictures"])
        told[row.key] = {
            "title": row.title, **section.numbers, **({"left_out": list(section.absent)} if section.absent else {}),
            "pictures": {_file(row, one): {"caption": one.caption, "command": how} for one in section.pictures},
        }  # fmt: skip
    return {
        "generator": page.GENERATOR, "version": fcos_d2.__version__, "command": shlex.join(m.command),
        "made": datetime.now().astimezone().isoformat(timespec="seconds"), "weights": m.weights, "data": m.data,
        "split": m.split or None, "dataset": m.objects.dataset, "tta": m.tta and vars(m.tta),
        "sections": told,
    }  # fmt: skip


def _file(row: Row, picture: Any) -> str:
    return f"{row.key}-{picture.name}.{'svg' if picture.svg else 'jpg'}"


def write_pictures(folder: Path, sections: Mapping[Row, Section]) -> list[Path]:
    """Write each picture as a file; the paths."""
    written = []
    for row, section in sections.items():
        for picture in section.pictures:
            data = alone(picture.svg).encode() if picture.svg else picture.photo
            written.append(folder / _file(row, picture))
            write_atomically(written[-1], lambda file, data=data: file.write(data))
    return written
