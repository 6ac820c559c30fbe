"""What became of every object and of every detection of a data set: each stands in one place, with one cause.

    objects = found + misses          detections = right + in crowd regions + false alarms

The causes are data: `causes` says how they are told. Nothing here needs PyTorch.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FALSE_ALARMS", "MISSES", "Box", "ErrorLedger", "FalseAlarm", "Miss", "Seen", "shares"]

# Cause of a miss -> what it means. Told from the top: the first one that holds is the cause.
MISSES: dict[str, str] = {
    "cut by the limit": "found, but better detections filled the limit of the image (max_detections)",
    "suppressed": "found, but non-maximum suppression took its box for another one's (nms_threshold)",
    "dropped as too small": "found, but with a box smaller than min_size",
    "cut by top-k": "found, but better candidates filled its level (topk)",
    "duplicate": "a detection of its class overlaps it enough, but counts for another object there",
    "wrong class": "a detection of another class lies on it",
    "poor overlap": "a detection of its class lies on it, but overlaps it too little",
    "never assignable": "no location answers for it at this size of input, so none can learn it",
    "below the score threshold": "no score of its class was high enough there",
}
# Cause of a false alarm -> what it means, told in the same way.
FALSE_ALARMS: dict[str, str] = {
    "duplicate": "a better detection has found that object already",
    "wrong class": "there is an object, of another class",
    "poor overlap": "there is an object of that class, but the box overlaps it too little",
    "wrong class and poor overlap": "there is an object of another class, and the box overlaps it too little",
    "background": "no object is marked there",
}


@dataclass(frozen=True)
class Box:
    """A box of an image, of an object or of a detection.

    Attributes:
        label: class index.
        box: left, top, right, bottom in pixels of the image.
        score: of a detection, 0..1; `None` for an object.
    """

    label: int
    box: tuple[float, float, float, float]
    score: float | None = None


@dataclass(frozen=True)
class Miss:
    """An object that no detection found.

    Attributes:
        image: name of the file.
        object: what was missed.
        cause: a key of `MISSES`.
        detail: what was seen there, in words.
        by: the detection that stands in its place: what suppressed its box, counts for its neighbour, has the wrong
            class or a box that is off; `None` where there is none.
        iou: of the object with the box in question, 0..1; 0 for none.
        score: highest final score that speaks for the object, 0..1; `None` for none.
        level: from 0, the finest, of the location of that score; -1 for none.
    """

    image: str
    object: Box
    cause: str
    detail: str = ""
    by: Box | None = None
    iou: float = 0.0
    score: float | None = None
    level: int = -1


@dataclass(frozen=True)
class FalseAlarm:
    """A detection that found nothing.

    Attributes:
        image: name of the file.
        detection: what was reported.
        cause: a key of `FALSE_ALARMS`.
        detail: what is there, in words.
        object: the object that it was taken for, or overlaps; `None` for none.
        iou: with that object, 0..1.
        level: from 0, the finest, of the location that it was predicted at; -1 if that is not known.
    """

    image: str
    detection: Box
    cause: str
    detail: str = ""
    object: Box | None = None
    iou: float = 0.0
    level: int = -1


@dataclass(frozen=True)
class Seen:
    """The account of one image.

    Attributes:
        pairs: place of each detection that found an object among the reported ones, best first -> row of the object.
        in_crowds: places of those in crowd regions, which count neither as right nor as wrong.
        misses: the objects that none found.
        false_alarms: the other detections, best first.
    """

    pairs: Mapping[int, int]
    in_crowds: tuple[int, ...]
    misses: tuple[Miss, ...]
    false_alarms: tuple[FalseAlarm, ...]

    @property
    def found(self) -> int:
        """Objects that were found, which are as many as the detections that are right."""
        return len(self.pairs)

    @property
    def ignored(self) -> int:
        return len(self.in_crowds)


@dataclass
class ErrorLedger:
    """The accounts of all images of a data set.

    Attributes:
        dataset: its name.
        class_names: of its classes.
        iou: overlap from which on a detection finds an object.
        thresholds: class -> score that a detection must exceed to be reported.
    """

    dataset: str
    class_names: tuple[str, ...]
    iou: float
    thresholds: dict[str, float]
    images: int = 0
    found: int = 0
    ignored: int = 0
    misses: list[Miss] = field(default_factory=list)
    false_alarms: list[FalseAlarm] = field(default_factory=list)

    @property
    def objects(self) -> int:
        """All of them, crowd regions aside."""
        return self.found + len(self.misses)

    @property
    def detections(self) -> int:
        """Those that are reported."""
        return self.found + self.ignored + len(self.false_alarms)

    def add(self, seen: Seen) -> None:
        """Enter one more image."""
        self.images += 1
        self.found += seen.found
        self.ignored += seen.ignored
        self.misses += seen.misses
        self.false_alarms += seen.false_alarms

    def misses_by_cause(self) -> dict[str, int]:
        """Every cause, those without a miss as well."""
        return _counted(MISSES, (one.cause for one in self.misses))

    def false_alarms_by_cause(self) -> dict[str, int]:
        """Every cause, those without a false alarm as well."""
        return _counted(FALSE_ALARMS, (one.cause for one in self.false_alarms))

    def summary(self) -> dict[str, Any]:
        """The counts, with the share of each cause in percent; those of the misses, or false alarms, make 100."""
        missed, wrong = self.misses_by_cause(), self.false_alarms_by_cause()
        return {
            "dataset": self.dataset, "images": self.images, "iou": self.iou, "thresholds": self.thresholds,
            "objects": self.objects, "found": self.found, "missed": len(self.misses), "misses": missed,
            "misses_percent": shares(missed), "detections": self.detections, "right": self.found,
            "in_crowds": self.ignored, "wrong": len(self.false_alarms), "false_alarms": wrong,
            "false_alarms_percent": shares(wrong), "per_class": self._per_class(),
        }  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """All of it as JSON has it: the summary, and a row for each miss and each false alarm."""
        rows = {
            "misses": [dataclasses.asdict(one) for one in self.misses],
            "false_alarms": [dataclasses.asdict(one) for one in self.false_alarms],
        }
        return {**self.summary(), "classes": list(self.class_names), "rows": rows}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ErrorLedger:
        """What `plain` gave, read from JSON.

        Raises:
            KeyError, TypeError: it is something else.
        """
        rows = data["rows"]
        return cls(
            data["dataset"], tuple(data["classes"]), data["iou"], dict(data["thresholds"]), data["images"],
            data["found"], data["in_crowds"],
            [Miss(**{**row, "object": _box(row["object"]), "by": _box(row["by"])}) for row in rows["misses"]],
            [
                FalseAlarm(**{**row, "detection": _box(row["detection"]), "object": _box(row["object"])})
                for row in rows["false_alarms"]
            ],
        )  # fmt: skip

    def _per_class(self) -> dict[str, dict[str, dict[str, int]]]:
        """Class -> its misses and false alarms by cause, the causes that there are."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for index, name in enumerate(self.class_names):
            missed = Counter(one.cause for one in self.misses if one.object.label == index)
            wrong = Counter(one.cause for one in self.false_alarms if one.detection.label == index)
            if missed or wrong:
                found[name] = {"misses": dict(missed), "false_alarms": dict(wrong)}
        return found


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Shares in percent, to a tenth, whose sum is 100 (or 0 where there is nothing): the largest rests are rounded up.

    Args:
        counts: what is to be divided, by name.
    """
    total = sum(counts.values())
    if not total:
        return dict.fromkeys(counts, 0.0)
    tenths = {name: divmod(1000 * count, total) for name, count in counts.items()}
    left = 1000 - sum(whole for whole, _ in tenths.values())
    largest = sorted(tenths, key=lambda name: -tenths[name][1])[:left]
    return {name: (whole + (name in largest)) / 10 for name, (whole, _) in tenths.items()}


def _counted(causes: Mapping[str, str], found: Iterable[str]) -> dict[str, int]:
    counts = Counter(found)
    return {cause: counts[cause] for cause in causes}


def _box(row: Mapping[str, Any] | None) -> Any:
    if row is None:
        return None
    corners: Sequence[float] = row["box"]
    return Box(row["label"], (corners[0], corners[1], corners[2], corners[3]), row["score"])
