"""A data set on disk -> what was found in it, and what becomes of each of its annotations in training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...errors import FcosError
from ..clean import clean, require_lists
from ..layout import DatasetLayout, Split
from ..pictures import fit_to_files
from . import labels, photos
from .columns import REASONS, Table
from .confusion import Reading, Verdict, judge, to_pixels
from .kinds import LEVELS, Finding
from .reach import Rule

__all__ = ["Audit", "Part", "audit", "brief", "counts_of"]

# How the boxes of a format are written, for formats in which that is not COCO's way.
_STATED = {
    "yolo": Reading("cxcywh", "shares"),
    "voc": Reading("xyxy", "pixels"),
    "labelme": Reading("xyxy", "pixels"),
    "cvat": Reading("xyxy", "pixels"),
    "labelstudio": Reading("xywh", "percent"),
}


@dataclass
class Part:
    """One part of a data set, and what was seen of it."""

    split: Split
    table: Table
    verdict: Verdict  # how its boxes are written
    seen: list[photos.Look] = field(default_factory=list)  # of its pictures; empty where these were not looked at
    refusal: str = ""  # why training refuses the file


@dataclass
class Audit:
    """What a check found."""

    layout: DatasetLayout
    parts: dict[str, Part]
    findings: list[Finding]
    ledger: dict[str, dict[str, Any]]  # part -> counts; in = used + clipped + the sum of dropped + unassignable
    rule: Rule
    moves: dict[str, int] = field(default_factory=dict)  # part -> what to add to its class ids
    alike: list[tuple[str, int, int, bool, float]] = field(default_factory=list)  # part, row in train, row in it, ...
    size_from: str = ""  # who says the size of the input: an option, or a model; empty if it is assumed

    @property
    def clean(self) -> bool:
        """Whether there is nothing but advice."""
        return all(finding.level == "advice" for finding in self.findings)

    @property
    def size_text(self) -> str:
        """The size of the input, and where it is from."""
        most = f", {self.rule.max_size} px at most for the longer one" if self.rule.max_size else ""
        said = f"as {self.size_from} says" if self.size_from else "assumed: --model or --image-size says what yours is"
        return f"{self.rule.image_size} px for the shorter side{most} ({said})"

    def plain(self, names: Mapping[str, str]) -> dict[str, Any]:
        """As data for JSON."""
        return {
            "data": str(self.layout.root), "format": self.layout.format, "clean": self.clean,
            "images": {name: len(part.table.images) for name, part in self.parts.items()},
            "labels": self.ledger, "image_size": self.rule.image_size,
            "max_size": self.rule.max_size, "image_size_from": self.size_from or None,
            "box_format": {
                name: {
                    "reading": str(part.verdict.reading), "boxes": part.verdict.boxes,
                    "odds": part.verdict.odds if part.verdict.confused else None,
                }
                for name, part in self.parts.items()
            },
            "findings": [finding.plain(names) for finding in self.findings],
        }  # fmt: skip


def audit(
    layout: DatasetLayout, reader: Callable[[Split], dict], rule: Rule = Rule(), pictures: bool = True,  # noqa: B008
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> Audit:  # fmt: skip
    """Look for what is wrong with a data set.

    Args:
        layout: what `find_dataset` returned.
        reader: of its format.
        rule: the size of the network's input and what it assigns, which tell what boxes are too small.
        pictures: whether the files of the pictures are opened; without, what is wrong with them is not found.
        progress: called with the number of pictures that are done, and of all.
    Raises:
        FcosError: an annotation file cannot be read at all, or is none.
    """
    with _quiet():
        raw = {name: reader(split) for name, split in layout.splits.items()}
        for name, split in layout.splits.items():
            require_lists(raw[name], split.annotations)
        total, done = sum(len(coco["images"]) for coco in raw.values()), iter(range(1, 1 << 60))
        parts, found = {}, []
        for name, split in layout.splits.items():
            part, those = _part(
                name, split, raw[name], _STATED.get(layout.format), pictures, lambda: progress(next(done), total)
            )
            parts[name] = part
            found += those
        shifts, moves = labels.off_by_one({name: part.table for name, part in parts.items()})
        found += shifts
        ledger: dict[str, dict[str, Any]] = {}
        for name, part in parts.items():
            those, ledger[name] = _look_at_labels(part, rule)
            found += those
            found += _refusal(part, raw[name], found)
        found += labels.classes({name: part.table for name, part in parts.items()})
        alike = list(_alike(parts))
        found += _copies(parts, alike)
    order = {level: place for place, level in enumerate(LEVELS)}
    return Audit(layout, parts, sorted(found, key=lambda one: order[one.level]), ledger, rule, moves, alike)


def _part(
    name: str, split: Split, coco: dict, stated: Reading | None, pictures: bool, tick: Callable[[], Any]
) -> tuple[Part, list[Finding]]:
    """One part as it is, but for the names and sizes of its pictures, which are those of the files."""
    images: list[dict] = coco["images"]
    before = labels.entries(Table.of(name, split.annotations, coco))
    seen = photos.look_at_all(split.images, [row.get("file_name") for row in images], tick) if pictures else []
    found = [*before, *(photos.findings(name, images, seen) if pictures else [])]
    refusal = ""
    if pictures:
        try:
            fit_to_files(coco, split.images, split.annotations)
        except FcosError as error:
            refusal = str(error)
    table = Table.of(name, split.annotations, coco)
    objects = table.state == 0
    verdict = judge(table.box[objects], table.frame[objects], stated or Reading("xywh", "pixels"))
    if verdict.confused:
        text = f"they seem to be {verdict.reading} instead of {verdict.stated}: odds {verdict.odds}"
        rows = np.flatnonzero(objects)
        examples = [labels.example(table, int(row)) for row in rows[: labels.EXAMPLES]]
        for one, box in zip(examples, to_pixels(table.box[rows], table.frame[rows], verdict)):
            one["meant"] = [round(float(x), 2) for x in box]
        found.append(Finding("box format", name, len(rows), len(table.rows), examples, text))
    return Part(split, table, verdict, seen, refusal=refusal), found


def _look_at_labels(part: Part, rule: Rule) -> tuple[list[Finding], dict[str, Any]]:
    """What is wrong with the boxes of a part, and the counts of its annotations."""
    table, verdict = part.table, part.verdict
    meant = replace(table, box=to_pixels(table.box, table.frame, verdict)) if verdict.confused else table
    unfit, lost, clipped = labels.fits(meant, rule)
    if verdict.confused:  # as it is written nothing fits: the counts are of that, the findings of what is meant
        lost, clipped = 0, int(table.clipped().sum())
    return [*labels.boxes(meant), *labels.duplicates(meant)[0], *unfit], counts_of(table, lost, clipped)


def counts_of(table: Table, lost: int, clipped: int) -> dict[str, Any]:
    """The counts of a part; `in` = `used` + `clipped` + the sum of `dropped` + `unassignable`."""
    reasons = {reason: int(those.sum()) for reason, those in table.reasons().items()}
    dropped = {reason: reasons[reason] for reason in REASONS if reasons[reason] or reason in REASONS[:3]}
    used = int(table.objects().sum()) - lost - clipped
    return {"in": len(table.rows), "used": used, "clipped": clipped, "dropped": dropped, "unassignable": lost}


_TOLD = ("not four numbers", "unknown image", "unknown category", "no flag", "image ids", "category ids", "box format")


def _refusal(part: Part, coco: dict, found: Sequence[Finding]) -> list[Finding]:
    """Why training refuses a file, unless that has been told."""
    name = part.table.name
    if not part.refusal:
        if any(one.part == name and one.kind in _TOLD for one in found):
            return []
        try:
            clean(coco, part.split.annotations)
        except FcosError as error:
            part.refusal = str(error)
    return [Finding("refused", name, 1, 1, [], part.refusal)] if part.refusal else []


def _alike(parts: Mapping[str, Part]) -> Iterator[tuple[str, int, int, bool, float]]:
    """Pictures of train that are in another part, too."""
    for name, part in parts.items():
        if name != "train" and "train" in parts:
            for one, other, exact, agreement in photos.pairs_alike(parts["train"].seen, part.seen):
                yield name, one, other, exact, agreement


def _copies(parts: Mapping[str, Part], alike: Sequence[tuple[str, int, int, bool, float]]) -> list[Finding]:
    found = []
    for name in dict.fromkeys(one[0] for one in alike):
        for kind, exactly in (("in train and val", True), ("near in train and val", False)):
            pairs = [one for one in alike if one[0] == name and one[3] is exactly]
            examples = [
                {"image": parts["train"].seen[one].file, "other": parts[name].seen[other].file,
                 "agreement": round(agreement, 3)}
                for _, one, other, _, agreement in pairs[: labels.EXAMPLES]
            ]  # fmt: skip
            if pairs:
                found.append(Finding(kind, name, len(pairs), len(parts[name].table.images), examples))
    for name, part in parts.items():
        files: dict[bytes, list[str]] = {}
        for one in part.seen:
            if one.digest and one.file not in files.setdefault(one.digest, []):
                files[one.digest].append(one.file)
        groups = [group for group in files.values() if len(group) > 1]
        if groups:
            count = sum(len(group) - 1 for group in groups)
            examples = [{"image": group[0], "other": group[1]} for group in groups[: labels.EXAMPLES]]
            found.append(Finding("copies", name, count, len(part.table.images), examples))
    return found


def brief(tables: Mapping[str, Table], rule: Rule) -> tuple[list[Finding], dict[str, tuple[int, int]]]:
    """The short form before a training, of parts that have been cleaned: what is worth a line, and two counts.

    Returns:
        Findings; of each part how many objects no location takes, and how many are clipped.
    """
    found, numbers = labels.classes(tables), {}
    for name, table in tables.items():
        unfit, lost, clipped = labels.fits(table, rule)
        found += [*labels.duplicates(table)[0], *unfit]
        numbers[name] = lost, clipped
    return found, numbers


@contextmanager
def _quiet() -> Iterator[None]:
    """While it lasts, what reading warns of is not told: it stands among the findings."""
    logger = logging.getLogger("fcos_d2")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
