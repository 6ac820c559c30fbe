"""What a detector saw in one image, from its record: candidates and all locations, in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..modeling.fates import KEPT
from ..modeling.meta_arch import of_original
from ..modeling.record import Record
from ..modeling.reserved import by_location
from ..structures import GroundTruth

__all__ = ["Evidence", "Objects", "objects_of"]

_FAR = 2.0**24  # pixels


@dataclass(frozen=True)
class Objects:
    """What is marked in an image, M rows.

    Attributes:
        boxes: (M, 4) float64 xyxy, pixels of the image.
        labels: (M,) int64 class indices.
        crowd: (M,) bool, regions in which detections count as neither right nor wrong.
        owner: (R,) int64 row of the object that each location answers for; -1 for none.
        alone: (M,) int64 for an object without a location those that it would have, were it the only one; else 0.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    owner: np.ndarray
    alone: np.ndarray

    @cached_property
    def taken(self) -> np.ndarray:
        """(M,) int64 locations that answer for each object."""
        return np.bincount(self.owner[self.owner >= 0], minlength=len(self.boxes))


@dataclass(frozen=True)
class Evidence:
    """One image of a record. Its P candidates are those of `modeling.fates.Fates`, boxes xyxy in pixels of the image.

    Attributes:
        record, place: the record, and which of its images this is.
        least: (K,) float64 score of each class that a detection must exceed to be reported.
    """

    record: Record
    place: int
    least: np.ndarray

    @cached_property
    def rows(self) -> np.ndarray:
        """(P,) int64 rows of the record's candidates that are of this image."""
        return (self.record.fates.candidates.image == self.place).nonzero().squeeze(1).numpy()

    def column(self, name: str) -> np.ndarray:
        """(P,) a field of `Fates`, or of its candidates."""
        fates = self.record.fates
        found = getattr(fates, name) if hasattr(fates, name) else getattr(fates.candidates, name)
        return found.numpy()[self.rows]

    @cached_property
    def labels(self) -> np.ndarray:
        return self.column("classes")

    @cached_property
    def scores(self) -> np.ndarray:
        return self.column("scores").astype(np.float64)

    @cached_property
    def by(self) -> np.ndarray:
        """(P,) int64 place among these candidates of the one that suppressed each; -1 for none."""
        by = self.column("by")
        return np.where(by >= 0, np.searchsorted(self.rows, by), -1)

    @cached_property
    def boxes(self) -> np.ndarray:
        """(P, 4) float64."""
        return self._in_image(self.record.fates.candidates.boxes[self.rows]).double().numpy()

    @cached_property
    def bbox(self) -> np.ndarray:
        """(P, 4) float64 left, top, width, height, as COCO's result files have them to the bit."""
        boxes = self._in_image(self.record.fates.candidates.boxes[self.rows])
        return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1).double().numpy()

    @cached_property
    def enough(self) -> np.ndarray:
        """(P,) bool, candidates with scores that are reported."""
        return self.column("scores") > self.least.astype(np.float32)[self.labels]

    @cached_property
    def reported(self) -> np.ndarray:
        """(D,) int64 places among the candidates of those that are reported, best first."""
        stays = self.enough & (self.column("fate") == KEPT)
        if not (self.record.keep_empty or self.record.inclusive_far_corner):
            stays &= (self.bbox[:, 2:] > 0).all(1)
        rows = np.flatnonzero(stays)
        return rows[np.argsort(-self.scores[rows], kind="stable")]

    @cached_property
    def is_reported(self) -> np.ndarray:
        """(P,) bool."""
        return np.isin(np.arange(len(self.rows)), self.reported)

    def lost(self, fate: int) -> np.ndarray:
        """(P,) bool, candidates with scores that are reported, which one step has lost."""
        return self.enough & (self.column("fate") == fate)

    @cached_property
    def points(self) -> np.ndarray:
        """(P, 2) float64 location of each candidate, pixels of the image."""
        (height, width), (rows, columns) = self.record.output_sizes[self.place], self.record.image_sizes[self.place]
        xy = self.record.predictions.locations.xy[self.record.fates.candidates.location[self.rows]].double().numpy()
        return xy * (width / columns, height / rows)

    @cached_property
    def everywhere(self) -> np.ndarray:
        """(R, 4) float64 boxes of all locations, pixels of the image."""
        predictions, where = self.record.predictions, self.record.predictions.locations
        ltrb = self.record.coder.activate(self._of_locations(predictions.raw_ltrb))
        return self._in_image(self.record.coder.decode(where.xy, where.stride, ltrb)).double().numpy()

    def scores_everywhere(self, label: int) -> np.ndarray:
        """(R,) float64 final scores of a class at all locations."""
        quality = self._of_locations(self.record.predictions.quality)[:, 0].sigmoid()
        class_score = self._of_locations(self.record.predictions.logits)[:, label].sigmoid()
        return self.record.selector._score(class_score * quality).double().numpy()

    def level_of(self, location: int) -> int:
        """The level of a location, 0 the finest."""
        return sum(location >= level.end for level in self.record.predictions.locations.levels)

    def _of_locations(self, maps: Sequence[Tensor]) -> Tensor:
        points = self.record.predictions.locations.points_per_cell
        return torch.cat([by_location(x[self.place : self.place + 1], points)[0] for x in maps])

    def _in_image(self, boxes: Tensor) -> Tensor:
        """(n, 4) boxes of the network input -> float32 of the original image, as detections are."""
        record, size = self.record, self.record.image_sizes[self.place]
        boxes = boxes.nan_to_num(0.0, _FAR, -_FAR)  # of locations that have learned nothing
        if record.selector.clip == "before":
            height, width = (side - record.selector.clip_margin for side in size)
            boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor((width, height, width, height)))
        found = Instances(size, pred_boxes=Boxes(boxes.clone()))
        return of_original(found, record.output_sizes[self.place], record.inclusive_far_corner).pred_boxes.tensor


def objects_of(
    record: Record, place: int, assigner: Any, boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray
) -> Objects:
    """The objects of an image, with the locations that answer for them at the size that the detector saw it in.

    Args:
        record, place: of the image.
        assigner: of the detector, see `PointAssigner`; crowd regions are not assigned, as in training.
        boxes, labels, crowd: as of `Objects`.
    """
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
    return Objects(boxes, labels, crowd, owner, alone)
