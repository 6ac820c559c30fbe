"""COCO's numbers of detections for parts of a data set: sizes, classes, images with overlapping objects; one class.

What is told apart are the objects or the images; the numbers are COCO's, from 0 to 1, `None` where there is no object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..data.coco import read
from ..data.layout import Split
from ..errors import FcosError
from .coco import evaluate_any
from .matching import Found, Truth, match, object_overlaps
from .scores import distinct

__all__ = ["OVERLAPS", "SIZES", "Numbers", "Objects", "class_agnostic", "evaluated", "recall_by_overlap", "summary"]

SIZES = ("small", "medium", "large")  # areas below 32², 96² and above
# Ranges of the largest IoU of an object with another one of its image: name -> from, to (excluded).
OVERLAPS = {"none": (-1.0, 1e-9), "below 0.2": (1e-9, 0.2), "0.2 to 0.5": (0.2, 0.5), "from 0.5": (0.5, 2.0)}

_IOUS = {0.5: 0, 0.75: 5, 0.9: 8}  # COCO's IoU thresholds that have a name -> which one it is
_LIMITS = (1, 10, 100)


@dataclass(frozen=True)
class Objects:
    """The objects of a registered data set.

    Attributes:
        dataset: its name in Detectron2's catalog.
        records: its images in Detectron2's format.
        class_names: of the K classes, none twice.
        truth: the objects; `image` is a place in `records`, labels are class indices.
        area: (G,) float64 of each object in squared pixels, as the annotations have it.
    """

    dataset: str
    records: Sequence[Mapping[str, Any]]
    class_names: tuple[str, ...]
    truth: Truth
    area: np.ndarray

    @classmethod
    def of(cls, dataset: str) -> Objects:
        """Of what its annotation file says.

        Raises:
            FcosError: that has no annotations.
        """
        metadata, records = MetadataCatalog.get(dataset), DatasetCatalog.get(dataset)
        place = {record["image_id"]: i for i, record in enumerate(records)}
        file = Path(PathManager.get_local_path(metadata.json_file))
        rows = read(Split(file, file.parent)).get("annotations")
        if rows is None:
            raise FcosError(f"{file} has no annotations, so there is nothing to compare detections with.")
        known = metadata.get("thing_dataset_id_to_contiguous_id") or {k: k for k in range(len(metadata.thing_classes))}
        rows = [row for row in rows if row["image_id"] in place and row["category_id"] in known]
        own = [{**row, "image_id": place[row["image_id"]], "category_id": known[row["category_id"]]} for row in rows]
        area = np.array([row.get("area", row["bbox"][2] * row["bbox"][3]) for row in own], np.float64)
        return cls(dataset, records, tuple(distinct(metadata.thing_classes)), Truth.of(own), area)

    @property
    def count(self) -> int:
        """How many there are, crowd regions left out."""
        return int((~self.truth.crowd).sum())

    def overlapping(self) -> np.ndarray:
        """Places of the images in which two objects share an area (arXiv:1904.01355, Table 6), rising."""
        return np.unique(self.truth.image[object_overlaps(self.truth) > 0])


@dataclass(frozen=True)
class Numbers:
    """What COCO's evaluation computes.

    Attributes:
        precision: (10, 101, K, 4, limits) float64 at IoU 0.5 to 0.95, recall 0 to 1, for all objects and those of each
            of `SIZES`; -1 without objects.
        recall: (10, K, 4, limits).
    """

    precision: np.ndarray
    recall: np.ndarray

    def ap(self, iou: float | None = None, label: int | None = None, size: str | None = None) -> float | None:
        """Average precision at one IoU or the mean over all ten, of one class or the mean over all."""
        at = slice(None) if iou is None else _IOUS[iou]
        of = slice(None) if label is None else label
        return _mean(self.precision[at][..., of, 0 if size is None else 1 + SIZES.index(size), -1])

    def ar(self, limit: int = 100, size: str | None = None) -> float | None:
        """Average recall, with at most 1, 10 or 100 detections of an image and class."""
        return _mean(self.recall[..., 0 if size is None else 1 + SIZES.index(size), _LIMITS.index(limit)])

    def curve(self, iou: float) -> np.ndarray:
        """(101,) mean precision of the classes at recall 0, 0.01, ..., 1; not a number without objects."""
        rows = self.precision[_IOUS[iou], :, :, 0, -1]
        known = rows[:, (rows > -1).all(axis=0)]
        return known.mean(axis=1) if known.size else np.full(len(rows), np.nan)

    def most_recall(self, iou: float) -> float | None:
        """The largest recall that detections reach, the mean of the classes."""
        return _mean(self.recall[_IOUS[iou], :, 0, -1])


def evaluated(objects: Objects, found: Found, images: Sequence[int] | np.ndarray | None = None) -> Numbers:
    """Evaluate detections as COCO does, on all images or on some.

    Args:
        found: detections; `image` is a place in `objects.records`.
        images: such places.
    Raises:
        FcosError: the annotations cannot be evaluated.
    """
    truth, count = objects.truth, len(objects.class_names)
    if not len(found.scores):
        return _nothing_found(objects, images)
    ids = range(len(objects.records))
    given = {
        "images": [{"id": i} for i in ids], "categories": [{"id": k, "name": str(k)} for k in range(count)],
        "annotations": [
            {"id": n + 1, "image_id": i, "category_id": k, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for n, (i, k, box, area, crowd) in enumerate(zip(
                truth.image.tolist(), truth.label.tolist(), truth.boxes.tolist(), objects.area.tolist(),
                truth.crowd.tolist(),
            ))
        ],
    }  # fmt: skip
    columns = (found.image.tolist(), found.label.tolist(), found.boxes.tolist(), found.scores.tolist())
    rows = [{"image_id": i, "category_id": k, "bbox": box, "score": score} for i, k, box, score in zip(*columns)]
    some = None if images is None else [int(i) for i in images]
    curves = evaluate_any(given, rows, objects.dataset, some, _LIMITS).eval
    return Numbers(np.asarray(curves["precision"]), np.asarray(curves["recall"]))


def _nothing_found(objects: Objects, images: Sequence[int] | np.ndarray | None) -> Numbers:
    """Zeros where there are objects."""
    truth, count = objects.truth, len(objects.class_names)
    counts = ~truth.crowd if images is None else ~truth.crowd & np.isin(truth.image, images)
    edges = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
    inside = [counts & (objects.area >= low) & (objects.area <= high) for low, high in edges]
    there = np.stack([np.bincount(truth.label[some], minlength=count) > 0 for some in inside], axis=1)
    shape = (*there.shape, len(_LIMITS))
    cells = np.broadcast_to(np.where(there, 0.0, -1.0)[..., None], shape)
    return Numbers(np.broadcast_to(cells, (10, 101, *shape)), np.broadcast_to(cells, (10, *shape)))


def class_agnostic(objects: Objects, found: Found) -> Numbers:
    """The same with all classes taken for one (arXiv:1904.01355, Table 9)."""
    truth = replace(objects.truth, label=np.zeros_like(objects.truth.label))
    return evaluated(
        replace(objects, class_names=("object",), truth=truth), replace(found, label=np.zeros_like(found.label))
    )


def recall_by_overlap(objects: Objects, found: Found, iou: float = 0.5) -> dict[str, tuple[int, int]]:
    """Objects, and those that a detection of their class found, for each range of `OVERLAPS`."""
    truth, shares = objects.truth, object_overlaps(objects.truth)
    matches = match(found, truth, iou)
    hit = np.zeros(len(truth.crowd), bool)
    hit[matches.gt[matches.right]] = True
    result = {}
    for name, (low, high) in OVERLAPS.items():
        those = ~truth.crowd & (shares >= low) & (shares < high)
        result[name] = int(those.sum()), int((those & hit).sum())
    return result


def summary(numbers: Numbers) -> dict[str, float | None]:
    """The numbers that COCO's summary has, by Detectron2's names, from 0 to 1."""
    return {
        "AP": numbers.ap(), "AP50": numbers.ap(0.5), "AP75": numbers.ap(0.75),
        **{f"AP_{size}": numbers.ap(size=size) for size in SIZES},
        **{f"AR{limit}": numbers.ar(limit) for limit in _LIMITS},
    }  # fmt: skip


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
