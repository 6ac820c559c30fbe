"""Why an object was missed, and why a detection is wrong: one cause each, told from what the detector saw.

The causes of a miss stand in the order of how near the object came to being found: what a single step took away first,
then what was reported in its place, then that it cannot be learned, and in the end that no score was high enough. So a
cause says what would have to change. The tables here have the causes of `ledger`, in its order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..modeling.fates import FATES, LIMIT, SMALL, SUPPRESSED, TOPK
from .evidence import Evidence, Objects, Voice, xywh
from .ledger import Box, FalseAlarm, Miss, Seen
from .matching import LEAST_GAP, Found, Matches, Truth, match, overlaps

__all__ = ["NEAR", "account"]

NEAR = 0.1  # IoU from which on a box lies on an object, if not well enough (arXiv:2008.08115)
_ALL = 1 << 40  # detections of an image that are looked at


@dataclass(frozen=True)
class _Scene:
    """An image with what was reported, and what that found."""

    image: str
    names: tuple[str, ...]
    iou: float
    seen: Evidence
    objects: Objects
    matches: Matches  # of the reported ones, best first

    @cached_property
    def bbox(self) -> np.ndarray:
        """(M, 4) objects as left, top, width, height."""
        return xywh(self.objects.boxes)

    @cached_property
    def overlap(self) -> np.ndarray:
        """(P, M) IoU of candidates and objects."""
        return overlaps(self.seen.bbox, self.bbox)

    @cached_property
    def finds(self) -> np.ndarray:
        """(P,) int64 object that each candidate found; -1 for none."""
        finds, right = np.full(len(self.seen), -1), self.matches.right
        finds[self.seen.reported[right]] = self.matches.gt[right]
        return finds

    @cached_property
    def idle(self) -> np.ndarray:
        """(P,) bool, reported candidates that found nothing."""
        mask = np.zeros(len(self.seen), bool)
        mask[self.seen.reported[~self.matches.right & ~self.matches.ignored]] = True
        return mask

    def detection(self, row: int) -> Box:
        """A candidate."""
        return Box(int(self.seen.labels[row]), _four(self.seen.boxes[row]), round(float(self.seen.scores[row]), 6))

    def object(self, row: int) -> Box:
        return Box(int(self.objects.labels[row]), _four(self.objects.boxes[row]))

    def told(self, row: int) -> str:
        """A candidate in words."""
        return f"{self.names[self.seen.labels[row]]} {self.seen.scores[row]:.2f}"


def account(image: str, seen: Evidence, objects: Objects, class_names: tuple[str, ...], iou: float = 0.5) -> Seen:
    """Account for every object and every reported detection of an image.

    Args:
        image: name of the file.
        seen: what the detector saw.
        objects: what there is; in crowd regions detections count as neither right nor wrong.
        class_names: of the labels.
        iou: that a detection needs to find an object of its class, by COCO's rules (see `matching.match`).
    """
    rows, iou = seen.reported, min(iou, 1 - LEAST_GAP)
    found = Found(np.zeros(len(rows), np.int64), seen.labels[rows], seen.bbox[rows], seen.scores[rows])
    truth = Truth(np.zeros(len(objects.labels), np.int64), objects.labels, xywh(objects.boxes), objects.crowd)
    matches = match(found, truth, iou, limit=_ALL)
    scene = _Scene(image, class_names, iou, seen, objects, matches)
    taken = np.zeros(len(objects.labels), bool)
    taken[matches.gt[matches.right]] = True
    misses = [_miss(scene, int(row)) for row in np.flatnonzero(~taken & ~objects.crowd)]
    alarms = [_false_alarm(scene, int(row)) for row in rows[scene.idle[rows]]]
    pairs = {int(row): int(matches.gt[row]) for row in np.flatnonzero(matches.right)}
    in_crowds = tuple(np.flatnonzero(matches.ignored).tolist())
    return Seen(pairs, in_crowds, tuple(misses), tuple(alarms))


# --------------------------------------------------------------------------------------------------- why it was missed
@dataclass(frozen=True)
class _Case:
    """A missed object."""

    scene: _Scene
    row: int

    @property
    def label(self) -> int:
        return int(self.scene.objects.labels[self.row])

    @property
    def overlap(self) -> np.ndarray:
        """(P,) IoU of the candidates with it."""
        return self.scene.overlap[:, self.row]

    @property
    def covers(self) -> np.ndarray:
        """(P,) bool, candidates that overlap it enough."""
        return self.overlap >= self.scene.iou

    @property
    def same(self) -> np.ndarray:
        """(P,) bool, candidates of its class."""
        return self.scene.seen.labels == self.label

    @property
    def owned(self) -> np.ndarray:
        """(P,) bool, candidates of locations that answer for it."""
        return self.scene.objects.owner == self.row

    @property
    def voice(self) -> Voice:
        """What speaks for it."""
        voice = self.scene.objects.voices[self.row]
        assert voice is not None  # a crowd region is never missed
        return voice

    def best(self, some: np.ndarray) -> int | None:
        """The candidate of the highest score among some (P,), a mask."""
        rows = np.flatnonzero(some)
        return int(rows[self.scene.seen.scores[rows].argmax()]) if len(rows) else None

    def miss(self, row: int | None, detail: str, by: int | None = None) -> Miss:
        """With the candidate that speaks for the object, and the one that stands in its place."""
        seen, scene = self.scene.seen, self.scene
        made = Miss(scene.image, scene.object(self.row), "", detail, None if by is None else scene.detection(by))
        if row is None:
            return made
        level, score = int(seen.columns["level"][row]), round(float(seen.scores[row]), 6)
        return replace(made, iou=round(float(self.overlap[row]), 4), score=score, level=level)


def _lost(fate: int) -> Callable[[_Case], Miss | None]:
    """A box of its class on it, on no other object of that class more, with a score that is reported, was lost there.

    What suppressed it did not find an object that it overlaps as much: such a box is the winner's own, a little off.
    """

    def find(case: _Case) -> Miss | None:
        seen, scene = case.scene.seen, case.scene
        rivals = scene.overlap[:, (scene.objects.labels == case.label) & ~scene.objects.crowd]
        suppressor = seen.columns["by"]
        winner = np.where(suppressor >= 0, scene.finds[suppressor], -1)  # the object that it found
        theirs = np.where(winner >= 0, scene.overlap[np.arange(len(winner)), winner], -1.0)
        own = (case.overlap >= rivals.max(axis=1)) & (case.overlap > theirs)
        if (row := case.best(case.same & case.covers & own & seen.lost(fate))) is None:
            return None
        by = int(suppressor[row])
        return case.miss(row, _LOST[fate](case.scene, row, by), by if by >= 0 else None)

    return find


_LOST: dict[int, Callable[[_Scene, int, int], str]] = {
    TOPK: lambda scene, row, _: (
        f"{scene.told(row)} is number {scene.seen.columns['rank'][row]} of {scene.seen.columns['of'][row]} on its "
        f"level, which has room for {scene.seen.selector.topk}"
    ),
    SMALL: lambda scene, row, _: f"{scene.told(row)} has a side of {scene.seen.selector.min_size:g} pixels or less",
    SUPPRESSED: lambda scene, row, by: (
        f"{scene.told(row)} was suppressed by {scene.told(by)}, which it overlaps by {scene.seen.between(row, by):.2f}"
    ),
    LIMIT: lambda scene, row, _: (
        f"{scene.told(row)} comes after the {scene.seen.selector.max_detections} best of the image"
    ),
}


def _counts_for_another(case: _Case) -> Miss | None:
    row = case.best(case.same & case.covers & case.scene.seen.is_reported)
    return None if row is None else case.miss(row, f"{case.scene.told(row)} counts for another object", row)


def _another_class(case: _Case) -> Miss | None:
    row = case.best(~case.same & case.covers & case.scene.idle)
    return None if row is None else case.miss(row, f"taken for {case.scene.told(row)}", row)


def _badly_placed(case: _Case) -> Miss | None:
    """Reported near it without having found anything; or found by a location that answers for it, and badly placed."""
    seen = case.scene.seen
    row = case.best(case.same & (case.overlap >= NEAR) & case.scene.idle)
    if row is None:
        row = case.best(case.same & case.owned & seen.enough)
    if row is None:
        return None
    text = f"{case.scene.told(row)} overlaps it by {case.overlap[row]:.2f}"
    return case.miss(row, text, row if seen.is_reported[row] else None)


def _unassigned(case: _Case) -> Miss | None:
    objects = case.scene.objects
    if objects.taken[case.row]:
        return None
    alone = objects.alone[case.row]
    reason = "no location lies near enough to its middle, on a level of its size"
    if alone:
        reason = f"smaller objects take {'its only location' if alone == 1 else f'all of its {alone} locations'}"
    return replace(case.miss(None, reason), **vars(case.voice))


def _too_low(case: _Case) -> Miss:
    name, least = case.scene.names[case.label], case.scene.seen.least
    what = "the best score of a box on it"
    if case.voice.iou < case.scene.iou:
        what = f"the best score of its locations, and no box overlaps it by {case.scene.iou:g}"
    exceeded = 0.0 if least is None else least[case.label]
    text = f"{name} {case.voice.score:.3f} is {what}; {exceeded:.3f} is to be exceeded"
    return replace(case.miss(None, text), **vars(case.voice))


_MISSES: tuple[tuple[str, Callable[[_Case], Miss | None]], ...] = (
    *((FATES[fate], _lost(fate)) for fate in (LIMIT, SUPPRESSED, SMALL, TOPK)),
    ("duplicate", _counts_for_another),
    ("wrong class", _another_class),
    ("poor overlap", _badly_placed),
    ("never assignable", _unassigned),
    ("below the score threshold", _too_low),
)


def _miss(scene: _Scene, row: int) -> Miss:
    case = _Case(scene, row)
    return next(replace(found, cause=cause) for cause, find in _MISSES if (found := find(case)) is not None)


# --------------------------------------------------------------------------------------------- why a detection is wrong
# Cause of a false alarm: whether the object is of the detection's class, and whether it is overlapped enough.
_ALARMS: tuple[tuple[str, bool, bool], ...] = (
    ("duplicate", True, True),
    ("wrong class", False, True),
    ("poor overlap", True, False),
    ("wrong class and poor overlap", False, False),
)


def _false_alarm(scene: _Scene, row: int) -> FalseAlarm:
    overlap = np.where(scene.objects.crowd, 0.0, scene.overlap[row])
    same = scene.objects.labels == scene.seen.labels[row]
    made = FalseAlarm(
        scene.image, scene.detection(row), "background", level=int(scene.seen.columns["level"][row])
    )  # fmt: skip
    for cause, of_class, enough in _ALARMS:
        fits = (same == of_class) & (overlap >= (scene.iou if enough else NEAR))
        if fits.any():
            gt = int(np.where(fits, overlap, -1.0).argmax())
            text = f"overlaps {scene.names[scene.objects.labels[gt]]} by {overlap[gt]:.2f}"
            if cause == "duplicate":
                text = _winner(scene, row, gt)
            share = round(float(overlap[gt]), 4)
            return replace(made, cause=cause, detail=text, object=scene.object(gt), iou=share)
    most = float(overlap.max(initial=0.0))
    return replace(made, detail=f"overlaps no object by more than {most:.2f}" if most else "overlaps no object")


def _winner(scene: _Scene, row: int, gt: int) -> str:
    """What found the object of a duplicate, and why the duplicate was not suppressed."""
    place = int(np.flatnonzero((scene.matches.gt == gt) & scene.matches.right)[0])
    by = int(scene.seen.reported[place])
    share, most = scene.seen.between(row, by), scene.seen.selector.nms_threshold
    return f"{scene.told(by)} found it; the two overlap by {share:.2f}, and more than {most:g} is suppressed"


def _four(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(x), 3) for x in box)
    return left, top, right, bottom
