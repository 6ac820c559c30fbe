"""One pass over a data set that keeps what analyses need: detections in several rankings, their scores' parts, maps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import inference_context
from detectron2.structures import Boxes, BoxMode, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling.inputs import ground_truth
from ..modeling.meta_arch import FCOS
from ..modeling.record import Record, recording
from ..structures import GroundTruth
from .breakdown import Objects
from .matching import Found
from .ranking import Ranking, at_locations, reranked, target_quality

__all__ = ["Observed", "QualityMaps", "observe"]


@dataclass(frozen=True)
class QualityMaps:
    """What the quality branch says of one image, all levels in one picture.

    Attributes:
        size: (height, width) of the image, pixels.
        quality: (h, w) float32 in 0..1, in the size of the network input: of the level whose class score is highest.
        class_score: (h, w) float32 in 0..1, that score.
        target: (h, w) float32 in 0..1: what it should be, where training would assign an object, else 0.
    """

    size: tuple[int, int]
    quality: np.ndarray
    class_score: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Observed:
    """What a detector did.

    Attributes:
        found: its detections; `image` is a place in the records.
        by_ranking: name of a ranking -> the detections that it gives.
        class_scores, quality: (D,) float64 in 0..1, the parts of the scores of `found`; `None` for other models.
        maps: place -> maps of some images.
        kind: what the quality branch predicts: "centerness" or "iou"; "" for models without one.
    """

    found: Found
    by_ranking: dict[str, Found] = field(default_factory=dict)
    class_scores: np.ndarray | None = None
    quality: np.ndarray | None = None
    maps: dict[int, QualityMaps] = field(default_factory=dict)
    kind: str = ""


class _Columns:
    """Detections of many images, collected."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []

    def add(self, place: int, found: Instances) -> None:
        boxes = BoxMode.convert(found.pred_boxes.tensor.cpu(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).double().numpy()
        columns = found.pred_classes.cpu().numpy(), boxes, found.scores.cpu().double().numpy()
        self.parts.append((np.full(len(boxes), place, np.int64), *columns))

    def table(self) -> Found:
        nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
        return Found(*(np.concatenate(column) for column in zip(nothing, *self.parts)))


class _Pass:
    """What is kept of an `FCOS`, image by image, while it is recorded."""

    def __init__(self, model: FCOS, objects: Objects, rankings: Sequence[Ranking], maps_of: Collection[int]) -> None:
        self.model, self.objects, self.rankings, self.maps_of = model, objects, rankings, maps_of
        self.place = {record["image_id"]: i for i, record in enumerate(objects.records)}
        self.own, self.class_scores, self.quality = _Columns(), _Columns(), _Columns()
        self.others = {one.name: _Columns() for one in rankings}
        self.maps: dict[int, QualityMaps] = {}

    def see(self, inputs: Mapping[str, Any], record: Record, _: int) -> None:
        """Keep what is asked for of one image, which is all of the record."""
        i, dense = self.place[inputs["image_id"]], self.model.dense
        self.own.add(i, record.reported(record.found)[0])
        for scores, columns in zip(_parts(record), (self.class_scores, self.quality)):
            columns.add(i, record.reported(replace(record.found, scores=scores))[0])
        truth = _truth(self.model, inputs, self.objects, i)
        for one in self.rankings:
            ranked = reranked(one, dense, record.predictions, truth)
            again = dense.detect(ranked, list(record.image_sizes), record.selector)
            self.others[one.name].add(i, record.reported(again)[0])
        if i in self.maps_of:
            self.maps[i] = _maps(self.model, record, truth)

    def observed(self) -> Observed:
        return Observed(
            self.own.table(), {name: columns.table() for name, columns in self.others.items()},
            self.class_scores.table().scores, self.quality.table().scores, self.maps,
            getattr(self.model.dense.loss, "quality", "centerness"),
        )  # fmt: skip


@torch.inference_mode()
def observe(
    model: nn.Module, loader: Iterable[Sequence[dict[str, Any]]], objects: Objects, rankings: Sequence[Ranking] = (),
    maps_of: Collection[int] = (), progress: Callable[[int], Any] = lambda done: None,
    each: Callable[[Mapping[str, Any], Record, int], Any] = lambda inputs, record, place: None,
) -> Observed:  # fmt: skip
    """Run a detector over all images of a data set, one at a time.

    Args:
        model: of any kind; of an `FCOS` there are rankings, parts of scores and maps.
        loader: of test inputs, which have "image_id".
        objects: of the same data set.
        rankings: further ones to select by.
        maps_of: places of the images whose maps are kept.
        progress: called with the number of images that are done.
        each: of an `FCOS`, called as `modeling.record.recording` calls it: with each image, its record and its place.
    """
    place = {record["image_id"]: i for i, record in enumerate(objects.records)}
    columns, kept = _Columns(), _Pass(model, objects, rankings, maps_of) if isinstance(model, FCOS) else None

    def see(inputs: Mapping[str, Any], record: Record, of_batch: int) -> None:
        assert kept is not None
        kept.see(inputs, record, of_batch)
        each(inputs, record, of_batch)

    with inference_context(model), recording(model, see) if kept else nullcontext():
        for done, inputs in enumerate(one for batch in loader for one in batch):
            found = model([inputs])[0]["instances"]
            if kept is None:
                columns.add(place[inputs["image_id"]], found)
            progress(done + 1)
    return Observed(columns.table()) if kept is None else kept.observed()


def _parts(record: Record) -> tuple[Tensor, Tensor]:
    """(P,) class scores and (P,) qualities of what was found, float32 in 0..1."""
    predictions, found = record.predictions, record.found
    logits = predictions.gather(predictions.logits, found.image, found.location)
    quality = predictions.gather(predictions.quality, found.image, found.location)
    return logits.gather(1, found.classes[:, None]).squeeze(1).sigmoid(), quality.squeeze(1).sigmoid()


def _truth(model: FCOS, inputs: Mapping[str, Any], objects: Objects, place: int) -> GroundTruth:
    """The objects of one image in pixels of the network input, crowd regions left out; on the CPU, as records are."""
    rows = (objects.truth.image == place) & ~objects.truth.crowd
    height, width = inputs["image"].shape[-2:]
    instances = Instances((height, width))
    boxes = torch.from_numpy(objects.truth.boxes[rows]).float()
    boxes = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)
    instances.gt_boxes = Boxes(boxes)
    instances.gt_boxes.scale(width / inputs.get("width", width), height / inputs.get("height", height))
    instances.gt_classes = torch.from_numpy(objects.truth.label[rows])
    instances = instances[instances.gt_boxes.nonempty()]
    given = [{**inputs, "instances": instances}]
    return ground_truth(given, model.num_classes, torch.device("cpu"), model.inclusive_far_corner)


def _maps(model: FCOS, record: Record, truth: GroundTruth) -> QualityMaps:
    """See `QualityMaps`; of several points in a cell the one with the highest class score counts."""
    predictions, locations, size = record.predictions, record.predictions.locations, record.image_sizes[0]
    class_score = at_locations(predictions.logits, locations)[0].amax(dim=1).sigmoid()
    quality = at_locations(predictions.quality, locations)[0, :, 0].sigmoid()
    target = torch.zeros_like(quality)
    _, location, wanted = target_quality(model.dense, predictions, truth)
    target[location] = wanted
    best: list[Tensor] = []
    for level in locations.levels:
        rows = torch.stack([x[level.start : level.end] for x in (class_score, quality, target)])
        cells = rows.view(3, level.height, level.width, -1)
        point = cells[0].argmax(dim=2, keepdim=True)
        flat = torch.stack([x.gather(2, point).squeeze(2) for x in cells])
        large = F.interpolate(flat[None], scale_factor=level.stride, mode="bilinear", align_corners=False)[0]
        best.append(large[:, : size[0], : size[1]])
    height, width = (min(x.shape[k] for x in best) for k in (1, 2))
    stacked = torch.stack([x[:, :height, :width] for x in best])  # (L, 3, h, w)
    level_of = stacked[:, 0].argmax(dim=0, keepdim=True)
    score, own = (stacked[:, k].gather(0, level_of)[0].numpy() for k in (0, 1))
    return QualityMaps(record.output_sizes[0], own, score, stacked[:, 2].amax(dim=0).numpy())
