"""The ledger of errors of a data set, kept while a detector is evaluated on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from torch import nn

from ..errors import FcosError
from ..modeling.record import Record, recording
from .causes import account
from .evidence import Evidence, objects_of
from .ledger import ErrorLedger
from .scores import distinct

__all__ = ["marked", "tallying"]


@contextmanager
def tallying(model: nn.Module, dataset: str, thresholds: Sequence[float], iou: float = 0.5) -> Iterator[ErrorLedger]:
    """While it lasts, each image of the data set that the detector sees is entered into the ledger that is yielded.

    Args:
        model: an `FCOS`, which is not training.
        dataset: name in Detectron2's catalog; its class indices are the model's.
        thresholds: (K) score of each class that a detection must exceed to be reported.
        iou: that a detection needs to find an object.
    Raises:
        FcosError: the model is another one, or an image is seen twice.
    """
    dense: Any = getattr(model, "dense", None)
    names = tuple(distinct(MetadataCatalog.get(dataset).thing_classes))
    records = {record["image_id"]: record for record in DatasetCatalog.get(dataset)}
    least = np.array(thresholds, np.float64)
    ledger = ErrorLedger(dataset, names, float(iou), dict(zip(names, least.tolist())))

    def enter(given: Mapping[str, Any], record: Record, place: int) -> None:
        if (there := records.pop(given.get("image_id"), None)) is None:
            raise FcosError(f"Image {given.get('image_id')} is not in {dataset}, or was seen before.")
        objects = objects_of(record, place, dense.assigner, *marked(there))
        ledger.add(account(str(there["file_name"]), Evidence(record, place, least), objects, names, iou))

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
