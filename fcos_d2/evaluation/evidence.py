"""What a detector saw in one image, from its record: its candidates, and what it saw of each object, without the maps.

Boxes are in pixels of the image. Which scores are reported is not part of it: see `Evidence.reporting`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..modeling.fates import KEPT
from ..modeling.meta_arch import empty_stay, of_original
from ..modeling.record import Record
from ..modeling.reserved import by_location
from ..modeling.selector import Selector
from ..structures import GroundTruth, Level
from .matching import overlaps

__all__ = ["Evidence", "Objects", "Voice", "objects_of", "xywh"]

_FAR = 2.0**24  # pixels


@dataclass(frozen=True)
class Evidence:
    """The P candidates of an image, those of `modeling.fates.Fates`, and which of them are reported.

    Attributes:
        selector: what chose among them.
        levels: of the locations.
        columns: (P,) "classes", "scores", "location" and the fields of `Fates`; "by" is a place among these candidates.
        corners: (P, 4) float32 xyxy.
        in_input: (P, 4) float32 xyxy, pixels of the network input.
        points: (P, 2) float64 location of each.
        empty_stay: whether boxes without area are reported.
        least: (K,) float64 score of each class that a detection must exceed to be reported; `None` where all are.
    """

    selector: Selector
    levels: tuple[Level, ...]
    columns: Mapping[str, np.ndarray]
    corners: np.ndarray
    in_input: np.ndarray
    points: np.ndarray
    empty_stay: bool
    least: np.ndarray | None = None

    @classmethod
    def of(cls, record: Record, place: int) -> Evidence:
        """Of one image of a record, by its place there; nothing of it holds the record's maps."""
        fates, where = record.fates, record.predictions.locations
        rows = (fates.candidates.image == place).nonzero().squeeze(1)
        of_candidates = {name: getattr(fates.candidates, name) for name in ("classes", "scores", "location")}
        of_fates = {name: getattr(fates, name) for name in ("class_score", "quality", "level", "rank", "of", "fate")}
        columns = {name: _small(x[rows]) for name, x in (of_candidates | of_fates).items()}
        by = fates.by[rows]
        columns["by"] = _small(torch.where(by >= 0, torch.searchsorted(rows, by), -1))
        boxes = fates.candidates.boxes[rows]
        (height, width), (in_height, in_width) = record.output_sizes[place], record.image_sizes[place]
        points = where.xy[fates.candidates.location[rows]].double().numpy() * (width / in_width, height / in_height)
        return cls(
            record.selector, where.levels, columns, _in_image(record, place, boxes).numpy(), boxes.numpy(), points,
            empty_stay(record.inclusive_far_corner, record.keep_empty),
        )  # fmt: skip

    def reporting(self, least: Sequence[float]) -> Evidence:
        """The same where only scores that exceed (K,) others, one for each class, are reported."""
        return dataclasses.replace(self, least=np.array(least, np.float64))

    def __len__(self) -> int:
        return len(self.corners)

    @cached_property
    def labels(self) -> np.ndarray:
        """(P,) int64 class indices."""
        return self.columns["classes"].astype(np.int64)

    @cached_property
    def scores(self) -> np.ndarray:
        """(P,) float64 final scores."""
        return self.columns["scores"].astype(np.float64)

    @cached_property
    def boxes(self) -> np.ndarray:
        """(P, 4) float64 xyxy."""
        return self.corners.astype(np.float64)

    @cached_property
    def bbox(self) -> np.ndarray:
        """(P, 4) float64 left, top, width, height, as COCO's result files have them to the bit."""
        return xywh(self.corners).astype(np.float64)

    @cached_property
    def enough(self) -> np.ndarray:
        """(P,) bool, candidates with scores that are reported."""
        if self.least is None:
            return np.ones(len(self), bool)
        return self.columns["scores"] > self.least.astype(np.float32)[self.labels]

    @cached_property
    def reported(self) -> np.ndarray:
        """(D,) int64 places among the candidates of those that are reported, best first."""
        stays = self.enough & (self.columns["fate"] == KEPT)
        if not self.empty_stay:
            stays &= (self.bbox[:, 2:] > 0).all(1)
        rows = np.flatnonzero(stays)
        return rows[np.argsort(-self.scores[rows], kind="stable")]

    @cached_property
    def is_reported(self) -> np.ndarray:
        """(P,) bool."""
        return np.isin(np.arange(len(self)), self.reported)

    def lost(self, fate: int) -> np.ndarray:
        """(P,) bool, candidates with scores that are reported, which one step has lost."""
        return self.enough & (self.columns["fate"] == fate)

    def between(self, row: int, other: int) -> float:
        """IoU of two candidates, of the boxes that suppression compares."""
        boxes = self.selector._measured(torch.from_numpy(self.in_input[[row, other]])).numpy()
        return float(overlaps(xywh(boxes[:1]), xywh(boxes[1:]))[0, 0])


@dataclass(frozen=True)
class Voice:
    """The location that speaks for an object: its box's IoU with it, the score of the object's class, its level."""

    iou: float
    score: float
    level: int


@dataclass(frozen=True)
class Objects:
    """What is marked in an image, M rows, and what the detector saw of each at the size that it saw the image in.

    Attributes:
        boxes: (M, 4) float64 xyxy.
        labels: (M,) int64 class indices.
        crowd: (M,) bool, regions in which detections count as neither right nor wrong.
        owner: (P,) int64 row of the object that the location of each candidate answers for; -1 for none.
        taken: (M,) int64 locations that answer for each object.
        alone: (M,) int64 for an object without a location those that it would have, were it the only one; else 0.
        voices: of each object; `None` for crowd regions. The location is that of the highest score among those whose
            boxes overlap the object enough; else among those that answer for it; else the one of the largest overlap.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    owner: np.ndarray
    taken: np.ndarray
    alone: np.ndarray
    voices: tuple[Voice | None, ...]


def objects_of(
    record: Record, place: int, seen: Evidence, assigner: Any, marked: tuple[np.ndarray, np.ndarray, np.ndarray],
    iou: float,
) -> Objects:  # fmt: skip
    """The objects of an image.

    Args:
        record, place: of the image.
        seen: its candidates.
        assigner: of the detector, see `PointAssigner`; crowd regions are not assigned, as in training.
        marked: `boxes`, `labels` and `crowd` as of `Objects`.
        iou: that is enough.
    """
    boxes, labels, crowd = marked
    (height, width), size = record.output_sizes[place], record.image_sizes[place]
    scale = np.array([size[1] / width, size[0] / height] * 2)
    scaled = np.clip(boxes * scale, 0, [size[1], size[0]] * 2)
    rows = np.flatnonzero(~crowd & (scaled[:, 2:] - scaled[:, :2] > 0).all(1))
    instances = Instances(size, gt_boxes=Boxes(torch.as_tensor(scaled[rows], dtype=torch.float32)))
    instances.gt_classes = torch.as_tensor(labels[rows], dtype=torch.int64)
    pixels = [(float(scale[0]), float(scale[1]))] if record.inclusive_far_corner else None
    truth = GroundTruth.from_instances([instances], torch.device("cpu"), pixels)
    where = record.predictions.locations
    owner = np.append(rows, -1)[assigner(where, truth.boxes, truth.image, 1)[0].numpy()]
    alone = np.zeros(len(boxes), np.int64)
    for place_of_box in np.flatnonzero(~np.isin(rows, owner)):
        box = truth.boxes[place_of_box : place_of_box + 1]
        alone[rows[place_of_box]] = int((assigner(where, box, truth.image[:1], 1) >= 0).sum())
    taken = np.bincount(owner[owner >= 0], minlength=len(boxes))
    voices = _voices(record, place, boxes, labels, crowd, owner, iou)
    return Objects(boxes, labels, crowd, owner[seen.columns["location"]], taken, alone, voices)


def _voices(
    record: Record, place: int, boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray, owner: np.ndarray, iou: float
) -> tuple[Voice | None, ...]:
    """What speaks for each object, see `Objects`; `owner` is (R,), of all locations."""
    predictions, where = record.predictions, record.predictions.locations

    def everywhere(maps: Sequence[Tensor]) -> Tensor:
        return torch.cat([by_location(x[place : place + 1], where.points_per_cell)[0] for x in maps])

    ltrb = record.coder.detected(everywhere(predictions.raw_ltrb))
    found = _in_image(record, place, record.coder.decode(where.xy, where.stride, ltrb)).double().numpy()
    quality, logits = everywhere(predictions.quality)[:, 0].sigmoid(), everywhere(predictions.logits)
    scores = {
        label: record.selector._score(logits[:, label].sigmoid() * quality).double().numpy()
        for label in np.unique(labels[~crowd]).tolist()
    }
    voices: list[Voice | None] = []
    for row, label in enumerate(labels.tolist()):
        if crowd[row]:
            voices.append(None)
            continue
        overlap = overlaps(xywh(found), xywh(boxes[row : row + 1]))[:, 0]
        groups = overlap >= iou, owner == row, overlap == overlap.max()
        some = next(group for group in groups if group.any())
        best = int(np.where(some, scores[label], -1.0).argmax())
        level = sum(best >= one.end for one in where.levels)
        voices.append(Voice(round(float(overlap[best]), 4), round(float(scores[label][best]), 6), level))
    return tuple(voices)


def _in_image(record: Record, place: int, boxes: Tensor) -> Tensor:
    """(n, 4) boxes of the network input -> float32 of the original image, as detections are."""
    size = record.image_sizes[place]
    boxes = boxes.nan_to_num(0.0, _FAR, -_FAR)  # of locations that have learned nothing
    if record.selector.clip == "before":
        height, width = (side - record.selector.clip_margin for side in size)
        boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor((width, height, width, height)))
    found = Instances(size, pred_boxes=Boxes(boxes.clone()))
    return of_original(found, record.output_sizes[place], record.inclusive_far_corner).pred_boxes.tensor


def _small(values: Tensor) -> np.ndarray:
    """Whole numbers in int32: the candidates of a data set may be many."""
    return (values if values.is_floating_point() else values.int()).numpy()


def xywh(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy -> left, top, width, height."""
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
