"""What a detector saw of a data set, kept while it is recorded, and the ledger of errors that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from torch import nn

from ..errors import FcosError
from ..modeling.record import Record, recording, require_followed
from .causes import account
from .evidence import Evidence, Objects, objects_of
from .ledger import ErrorLedger, Seen
from .scores import distinct

__all__ = ["Sight", "Sights", "marked", "tallying"]


@dataclass(frozen=True)
class Sight:
    """An image as a detector saw it: the name of its file, its candidates, its objects."""

    image: str
    seen: Evidence
    objects: Objects

    @classmethod
    def of(cls, record: Record, place: int, assigner: Any, there: Mapping[str, Any], iou: float) -> Sight:
        """From the record of an image, by its place in it, and what Detectron2 knows of the image.

        Args:
            record, place, assigner, iou: see `evidence.objects_of`.
            there: "file_name" and "annotations", whose class indices are the detector's.
        """
        seen = Evidence.of(record, place)
        return cls(str(there["file_name"]), seen, objects_of(record, place, seen, assigner, marked(there), iou))

    def account(self, least: Sequence[float], class_names: tuple[str, ...], iou: float) -> Seen:
        """What became of its objects and detections where scores that exceed (K,) others are reported."""
        return account(self.image, self.seen.reporting(least), self.objects, class_names, iou)


class Sights:
    """The images of a data set as a detector saw them, without maps, so that they may be many: 100 bytes a candidate.

    Args:
        model: an `FCOS` with our selector.
        dataset: name in Detectron2's catalog; its class indices are the model's.
        iou: that a detection needs to find an object.
    Raises:
        FcosError: the model is another one.
    """

    def __init__(self, model: nn.Module, dataset: str, iou: float = 0.5) -> None:
        require_followed(model)
        dense: Any = model.dense
        self._assigner, self._dataset, self._iou = dense.assigner, dataset, float(iou)
        self._names = tuple(distinct(MetadataCatalog.get(dataset).thing_classes))
        self._records = {record["image_id"]: record for record in DatasetCatalog.get(dataset)}
        self._sights: list[Sight] = []

    def look(self, given: Mapping[str, Any], record: Record, place: int) -> Sight:
        """An image, from what `recording` tells; raises FcosError if it is not in the data set, or was seen before."""
        if (there := self._records.pop(given.get("image_id"), None)) is None:
            raise FcosError(f"Image {given.get('image_id')} is not in {self._dataset}, or was seen before.")
        return Sight.of(record, place, self._assigner, there, self._iou)

    def keep(self, given: Mapping[str, Any], record: Record, place: int) -> None:
        """Look at an image, and keep it for `ledger`."""
        self._sights.append(self.look(given, record, place))

    def ledger(self, thresholds: Sequence[float]) -> ErrorLedger:
        """What became of all that was kept, by (K) scores that a detection of each class must exceed to be reported."""
        least = [float(x) for x in thresholds]
        made = ErrorLedger(self._dataset, self._names, self._iou, dict(zip(self._names, least)))
        for sight in self._sights:
            made.add(sight.account(least, self._names, self._iou))
        return made


@contextmanager
def tallying(model: nn.Module, dataset: str, thresholds: Sequence[float], iou: float = 0.5) -> Iterator[ErrorLedger]:
    """While it lasts, each image of the data set that the detector sees is entered into the ledger that is yielded.

    Args:
        model, dataset, iou: see `Sights`; the model is not training.
        thresholds: see `Sights.ledger`.
    Raises:
        FcosError: the model is another one, or an image is seen twice.
    """
    sights = Sights(model, dataset, iou)
    ledger = sights.ledger(thresholds)  # of nothing yet

    def enter(given: Mapping[str, Any], record: Record, place: int) -> None:
        least = list(ledger.thresholds.values())
        ledger.add(sights.look(given, record, place).account(least, ledger.class_names, ledger.iou))

    with recording(model, enter):
        yield ledger


def marked(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (M, 4) float64 xyxy, class indices (M,) and crowd regions (M,) of an image in Detectron2's format."""
    rows = record.get("annotations", ())
    boxes = [BoxMode.convert(list(row["bbox"]), row["bbox_mode"], BoxMode.XYXY_ABS) for row in rows]
    crowd = [bool(row.get("iscrowd", 0)) for row in rows]
    return (
        np.array(boxes, np.float64).reshape(-1, 4), np.array([row["category_id"] for row in rows], np.int64),
        np.array(crowd, bool),
    )  # fmt: skip
