"""One image explained as plain data: where detections come from, what they suppressed, what was missed and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..modeling.fates import FATES
from .evidence import Evidence
from .ledger import Box, Seen

__all__ = ["IN_CROWD", "RIGHT", "explanation"]

RIGHT, IN_CROWD = "right", "in a crowd region"  # what a detection is that is no false alarm


def explanation(seen: Evidence, names: Sequence[str], account: Seen | None = None) -> dict[str, Any]:
    """What a detector reported in an image, and how it came to it.

    Args:
        seen: what it saw.
        names: of its classes.
        account: of the image, where it is known what is in it; class indices are the detector's.
    Returns:
        "detections", best first: class, score, box (left, top, right, bottom in pixels of the image), class_score and
        quality, which the score is made of, level (0 is the finest), its stride, the location (x, y in pixels of the
        image), rank among the candidates of that level (`of` so many), and the boxes that it `suppressed`, with their
        IoU. "candidates": how many passed the score threshold, and what became of them. "levels": the same for each
        level. With an account, each detection has a "verdict" (right, in a crowd region, or the cause of a false alarm)
        and what it is about, and there are "objects", "found" and "missed".
    """
    rows = seen.reported.tolist()
    fate, level = seen.columns["fate"], seen.columns["level"]
    found: dict[str, Any] = {
        "detections": [{**_candidate(seen, names, row), "suppressed": _suppressed(seen, names, row)} for row in rows],
        "candidates": {"passed": len(fate), **_counts(fate)},
        "levels": [
            {"stride": one.stride, "locations": one.size, "passed": int((level == i).sum()),
             **_counts(fate[level == i])}
            for i, one in enumerate(seen.levels)
        ],
    }  # fmt: skip
    if account is not None:
        for row, verdict in zip(found["detections"], _verdicts(account, len(rows), names)):
            row.update(verdict)
        found |= {"objects": account.found + len(account.misses), "found": account.found, "missed": [
            {**_box(one.object, names), "cause": one.cause, "detail": one.detail, "iou": one.iou, "score": one.score,
             "level": one.level, "by": None if one.by is None else _box(one.by, names)}
            for one in account.misses
        ]}  # fmt: skip
    return found


def _candidate(seen: Evidence, names: Sequence[str], row: int) -> dict[str, Any]:
    columns = seen.columns
    level = int(columns["level"][row])
    return {
        "class": names[seen.labels[row]], "score": round(float(seen.scores[row]), 6),
        "box": [round(float(x), 3) for x in seen.boxes[row]],
        "class_score": round(float(columns["class_score"][row]), 6),
        "quality": round(float(columns["quality"][row]), 6), "level": level,
        "stride": seen.levels[level].stride,
        "location": [round(float(x), 2) for x in seen.points[row]],
        "rank": int(columns["rank"][row]), "of": int(columns["of"][row]),
    }  # fmt: skip


def _suppressed(seen: Evidence, names: Sequence[str], row: int) -> list[dict[str, Any]]:
    """The candidates that a detection suppressed, best first."""
    others = np.flatnonzero(seen.columns["by"] == row)
    others = others[np.argsort(-seen.scores[others], kind="stable")]
    return [{**_candidate(seen, names, other), "iou": round(seen.between(other, row), 4)} for other in others.tolist()]


def _counts(fate: np.ndarray) -> dict[str, int]:
    return dict(zip(FATES, np.bincount(fate, minlength=len(FATES)).tolist()))


def _verdicts(account: Seen, count: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    alarms = iter(account.false_alarms)
    for place in range(count):
        if place in account.pairs:
            yield {"verdict": RIGHT}
        elif place in account.in_crowds:
            yield {"verdict": IN_CROWD}
        else:
            one = next(alarms)
            thing = None if one.object is None else _box(one.object, names)
            yield {"verdict": one.cause, "detail": one.detail, "object": thing, "iou_with_object": one.iou}


def _box(box: Box, names: Sequence[str]) -> dict[str, Any]:
    score = {} if box.score is None else {"score": box.score}
    return {"class": names[box.label], "box": list(box.box), **score}
