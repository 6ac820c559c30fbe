"""What is wrong with boxes, ids and classes of the parts of a data set, told from the annotations alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..layout import PLACE, UNREADABLE
from ..ledger import BEYOND
from ..meant import LARGEST_ID, identity, shown
from .columns import LARGEST_SIDE, Table
from .kinds import Finding
from .reach import Rule, input_boxes, taken

__all__ = ["boxes", "classes", "duplicates", "entries", "fits", "off_by_one"]

EXAMPLES = 5
_RARE = 10
_SAME = 0.5  # pixels between boxes that count as one


def example(table: Table, row: int, **more: Any) -> dict[str, Any]:
    """What is to be said of one annotation."""
    annotation, image, category = table.rows[row], int(table.image[row]), int(table.category[row])
    found = {
        "annotation": shown(annotation.get(PLACE, annotation.get("id"))),
        "image": shown(table.images[image].get("file_name")) if image >= 0 else None,
        "class": shown(table.categories[category].get("name")) if category >= 0 else None,
        "bbox": [None if np.isnan(x) else float(x) for x in table.box[row]] if table.state[row] == 0 else None,
    }
    if table.state[row] == 2:
        found["written"] = shown(annotation.get("bbox"))
    if UNREADABLE in annotation:
        found["why"] = shown(annotation[UNREADABLE])
    return {**found, **more}


def _finding(kind: str, table: Table, those: np.ndarray, detail: str = "", **fill: str) -> list[Finding]:
    """A finding about annotations, (M,) bool or their rows; none where there are none."""
    rows = np.flatnonzero(those) if those.dtype == bool else those
    if not len(rows):
        return []
    shown_rows = [example(table, int(row)) for row in rows[:EXAMPLES]]
    return [Finding(kind, table.name, len(rows), len(table.rows), shown_rows, detail, fill)]


def boxes(table: Table) -> list[Finding]:
    """Boxes that training leaves out, cuts or stumbles over."""
    reasons = table.reasons()
    degenerate = reasons["degenerate"]
    with np.errstate(invalid="ignore"):
        wild = degenerate & ~(np.abs(table.box) < LARGEST_SIDE).all(1)
        sides = table.box[:, 2:].min(1, initial=np.inf)
        negative, zero = degenerate & ~wild & (sides < 0), degenerate & ~wild & (sides == 0)
    found = [
        *_finding("unreadable label", table, reasons["unreadable"]),
        *_finding("not four numbers", table, reasons["not four numbers"]),
        *_finding("no box", table, reasons["no box"]),
        *_finding("not finite", table, wild),
        *_finding("zero size", table, zero),
        *_finding("negative size", table, negative),
        *_finding("outside", table, degenerate & ~(wild | negative | zero)),
    ]
    beyond = table.beyond()
    clipped = np.flatnonzero(table.clipped())
    if len(clipped):
        worst = clipped[np.argsort(-beyond[clipped], kind="stable")]
        far = f"the farthest by {beyond[worst[0]]:.1f} px, {int((beyond[clipped] > 5).sum())} of them by more than 5 px"
        found += _finding("beyond", table, worst, f"more than {BEYOND} px; {far}")
    for kind in ("unknown image", "unknown category", "no flag"):
        those = reasons[kind]
        key = {"unknown image": "image_id", "unknown category": "category_id"}.get(kind)
        ids = Counter(shown(table.rows[row].get(key)) for row in np.flatnonzero(those)) if key else {}
        detail = (
            f"{key} " + ", ".join(f"{name} ({count})" for name, count in Counter(ids).most_common(6)) if key else ""
        )
        found += _finding(kind, table, those, detail)
    return found + _finding("crowd", table, reasons["crowd"])


def duplicates(table: Table) -> tuple[list[Finding], np.ndarray]:
    """Boxes that are there twice, and the rows of all but the first of each."""
    rows = np.flatnonzero(table.objects())
    if not len(rows):
        return [], rows
    box = table.box[rows]
    order = np.lexsort((rows, table.category[rows], *np.round(box.T[::-1], 0), table.image[rows]))
    rows, box = rows[order], box[order]
    near = (table.image[rows][1:] == table.image[rows][:-1]) & (np.abs(np.diff(box, axis=0)) <= _SAME).all(1)
    same = table.category[rows][1:] == table.category[rows][:-1]
    again = np.sort(rows[1:][near & same])
    return [
        *_finding("duplicate", table, again), *_finding("two classes", table, np.sort(rows[1:][near & ~same]))
    ], again  # fmt: skip


def entries(table: Table) -> list[Finding]:
    """Ids and sizes of images, categories and annotations."""
    found = []
    seen: set[Any] = set()
    bad = []
    for row in table.images:
        meant = identity(row.get("id"))
        if meant is None or meant in seen or not isinstance(row.get("file_name"), str) or not row["file_name"]:
            bad.append(row)
        seen.add(meant)
    names = Counter(row["file_name"] for row in table.images if isinstance(row.get("file_name"), str))
    twice = [row for row in table.images if isinstance(row.get("file_name"), str) and names[row["file_name"]] > 1]
    sizes = [row for row, size in zip(table.images, table.size) if np.isnan(size).any()]
    for kind, rows in (("image ids", bad), ("listed twice", twice), ("no size", sizes)):
        if rows:
            examples = [
                {"image": shown(row.get("file_name")), "id": shown(row.get("id")),
                 "size": f"{shown(row.get('width'))} x {shown(row.get('height'))}"}
                for row in rows[:EXAMPLES]
            ]  # fmt: skip
            found.append(Finding(kind, table.name, len(rows), len(table.images), examples))
    ids = [row.get("id") for row in table.rows]
    sound = all(type(one) is int and 0 < one <= LARGEST_ID for one in ids)
    if not sound or len(set(ids)) < len(ids):
        times: Counter[Any] = Counter(one for one in ids if type(one) is int and 0 < one <= LARGEST_ID)
        wrong = [one for one in ids if type(one) is not int or times[one] != 1]
        examples = [{"annotation": shown(one)} for one in wrong[:EXAMPLES]]
        found.append(Finding("annotation ids", table.name, len(wrong), len(ids), examples))
    there: set[Any] = set()
    wrong_rows = []
    for row in table.categories:
        meant, name = identity(row.get("id")), row.get("name")
        if not isinstance(meant, int) or abs(meant) > LARGEST_ID or meant in there or not _is_name(name):
            wrong_rows.append(row)
        there.add(meant if isinstance(meant, int) else None)
    if wrong_rows:
        examples = [{"category": shown(row)} for row in wrong_rows[:EXAMPLES]]
        found.append(Finding("category ids", table.name, len(wrong_rows), len(table.categories), examples))
    empty = len(table.images) - len(np.unique(table.image[table.objects()]))
    if empty and len(table.images):
        share = f"{100 * empty / len(table.images):.0f} % of the pictures"
        found.append(Finding("no objects", table.name, empty, len(table.images), [], share))
    return found


def _is_name(name: Any) -> bool:
    return isinstance(name, str) or (isinstance(name, (int, float)) and not isinstance(name, bool) and name == name)


def counts(table: Table) -> dict[str, int]:
    """Class name -> objects, in the order of the categories."""
    places = table.category[table.objects()]
    number = np.bincount(places, minlength=len(table.categories))
    found: dict[str, int] = {}
    for name, count in zip(table.class_names, number.tolist()):
        found[name] = found.get(name, 0) + count
    return found


def classes(tables: Mapping[str, Table]) -> list[Finding]:
    """Classes that are empty, rare, or in one part only, and names that are nearly one."""
    by_part = {part: counts(table) for part, table in tables.items()}
    names = list(dict.fromkeys(name for found in by_part.values() for name in found))
    total = {name: sum(found.get(name, 0) for found in by_part.values()) for name in names}
    train = by_part.get("train", {})
    lists: dict[str, list[str]] = {"empty class": [name for name in names if not total[name]]}
    if "train" in tables:
        lists["class only in val"] = [name for name in names if total[name] and not train.get(name)]
        lists["rare class"] = [name for name in names if 0 < train.get(name, 0) < _RARE]
        if "val" in tables:
            lists["class not in val"] = [name for name in names if train.get(name) and not by_part["val"].get(name)]
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    lists["names alike"] = [name for group in alike.values() if len(group) > 1 for name in group]
    return [
        Finding(
            kind, "", len(those), len(names),
            [{"class": shown(name), **{part: by_part[part].get(name, 0) for part in tables}} for name in those[:20]],
            ", ".join(map(shown, those[:8])) + (f" and {len(those) - 8} more" if len(those) > 8 else ""),
        )
        for kind, those in lists.items() if those
    ]  # fmt: skip


def off_by_one(tables: Mapping[str, Table]) -> tuple[list[Finding], dict[str, int]]:
    """Class ids that are all off by one, and by how much to move those of a part."""
    found, moves = [], {}
    for part, table in tables.items():
        listed = {meant for row in table.categories if isinstance(meant := identity(row.get("id")), int)}
        used = Counter(meant for row in table.rows if isinstance(meant := identity(row.get("category_id")), int))
        for move in (1, -1):
            if used and not used.keys() <= listed and {one + move for one in used} <= listed:
                text = f"ids {min(used)} to {max(used)} are used, {min(listed)} to {max(listed)} are listed"
                found.append(Finding("shifted classes", part, sum(used.values()), len(table.rows), [], text))
                moves[part] = move
    if "train" in tables and "train" not in moves:
        train = np.array(list(counts(tables["train"]).values()), float)
        for part, table in tables.items():
            other = np.array(list(counts(table).values()), float)
            if part in moves or part == "train" or table.class_names != tables["train"].class_names:
                continue
            if (words := _shift(train, other)) is not None:
                found.append(Finding("shifted val", part, int(other.sum()), len(table.rows), [], words))
    return found, moves


def _shift(train: np.ndarray, other: np.ndarray) -> str | None:
    """Whether a part's classes are as frequent as train's only when moved by one."""
    if len(train) < 4 or min(train.sum(), other.sum()) < 50:
        return None
    p, q = train / train.sum(), other / other.sum()
    apart = 0.5 * np.abs(p - q).sum()
    for move in (1, -1):
        moved = np.zeros_like(q)
        moved[max(move, 0) : len(q) + min(move, 0)] = q[max(-move, 0) : len(q) - max(move, 0)]
        lost = q.sum() - moved.sum()
        if apart > 0.5 and lost == 0 and 0.5 * np.abs(p - moved).sum() < 0.15:
            return f"frequencies differ by {apart:.0%} as they are, by {0.5 * np.abs(p - moved).sum():.0%} moved"
    return None


def fits(table: Table, rule: Rule, without: Sequence[int] = ()) -> tuple[list[Finding], int, int]:
    """Objects that no location takes at an input size.

    Returns:
        Findings, the number of objects that no location takes, and of those that are clipped and taken.
    """
    mask = table.objects() & ~np.isnan(table.frame).any(1)
    mask[list(without)] = False
    rows = np.flatnonzero(mask)
    if not len(rows):
        return [], 0, int(table.clipped().sum())
    alone, wins = _taken(table, rows, rule)
    tiny, covered = rows[~alone], rows[alone & ~wins]
    found = []
    if len(tiny):
        larger = next(
            (size for size in _LADDER if size > rule.image_size and _share(table, rows, rule, size) > 0.995), None
        )
        words = f"at {rule.image_size} px for the shorter side"
        if larger is None:
            words += "; at 1333 px still too small: train on tiles"
        found += _finding("tiny", table, tiny, words, size=str(larger or _LADDER[-1]))
    if len(covered):
        larger = next((size for size in _LADDER if size > rule.image_size), _LADDER[-1])
        found += _finding("covered", table, covered, f"at {rule.image_size} px for the shorter side", size=str(larger))
    lost = np.zeros(len(table.rows), bool)
    lost[tiny] = lost[covered] = True
    return found, int(lost.sum()), int((table.clipped() & ~lost).sum())


_SAMPLE = 5000  # boxes that tell which input size would do
_LADDER = (320, 480, 640, 800, 1000, 1333)


def _taken(table: Table, rows: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    return taken(input_boxes(table.corners[rows], table.frame[rows], rule), table.image[rows], rule)


def _share(table: Table, rows: np.ndarray, rule: Rule, size: int) -> float:
    """Share of boxes that some location takes at another input size."""
    from dataclasses import replace

    some = rows[:: max(1, len(rows) // _SAMPLE)]
    return float(_taken(table, some, replace(rule, image_size=size, max_size=None))[0].mean())
