"""A detector that looks at several views of each image: sizes and mirror images, merged into one list of detections.

Detectron2's own (`GeneralizedRCNNWithTTA`) is for R-CNN. Of FCOS, what passes the threshold and the top-k of each view
is merged before anything is suppressed, as the original FCOS and ATSS do; of another dense detector of Detectron2, such
as RetinaNet, what it reports of each view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import FcosError
from ..modeling import FCOS, Selector
from ..modeling.inputs import check_images
from ..modeling.voting import merge_views
from ..structures import Detections
from ..zoo.tta import TTA
from .batches import batches
from .views import Look, brought_back, looks_at, original_pixels, pixels_of

__all__ = ["DetectorWithTTA"]

_ALL = 1 << 40  # more than there are
# Fields that one view of an object cannot speak for all.
_SEVERAL = ("pred_masks", "pred_keypoints")


class DetectorWithTTA(nn.Module):
    """A detector with test-time augmentation, called as the detector is.

        inference_on_dataset(DetectorWithTTA(model, PRESETS["original"].tta), loader, evaluator)

    It never holds more network inputs than a batch has: views go through the network in turn, equal sizes together, and
    of each only its detections stay. With the identity alone it is the detector.

    Args:
        model: `FCOS`, or another detector of boxes whose results are Detectron2's `Instances`.
        tta: views, and how they are merged.
        input_format: order of channels of its images; by default the model's own, else "BGR".
        tell: called before each batch of views with the images that are done since construction, the number of the
            view, and how many there are, of the first image of a call; and with (images, 0, 0) when a call ends.
        selector: of FCOS, instead of its own.

    Raises:
        FcosError: a detector of masks or keypoints, for which there is Detectron2's `GeneralizedRCNNWithTTA`.
    """

    def __init__(
        self, model: nn.Module, tta: TTA, input_format: str | None = None,
        tell: Callable[[int, int, int], None] = lambda images, view, views: None, selector: Selector | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        model = model.module if isinstance(model, DistributedDataParallel) else model
        self.model, self.tta, self.tell, self.selector = model, tta, tell, selector
        self.input_format = input_format or str(getattr(model, "input_format", "BGR"))
        self.train(model.training)
        self._images = 0

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Detections in the pixels of the original images.

        Args:
            batched_inputs: what Detectron2's `DatasetMapper` gives; views are made of the file "file_name", or of the
                key `views.ORIGINAL`, else of "image", see `views.original_pixels`.
        Returns:
            What the model returns: for each image {"instances": `Instances` with pred_boxes, scores, pred_classes, and
            of FCOS locations}, best first.
        Raises:
            FcosError: an image is too narrow for a view.
        """
        if self.tta.is_identity or self.training:
            found = self.model(batched_inputs)
        else:
            found = self._merged(batched_inputs)
        self._images += len(batched_inputs)
        self.tell(self._images, 0, 0)
        return found

    def _merged(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        check_images(batched_inputs)
        detector = _detector(self.model, self.selector)
        looks = [look for row, inputs in enumerate(batched_inputs) for look in looks_at(self.tta, row, inputs)]
        found: list[Any] = [None] * len(looks)
        originals = [original_pixels(inputs, self.input_format) for inputs in batched_inputs]
        size = max(len(batched_inputs), self.tta.batch_size)
        done = 0
        for numbers in batches([look.size for look in looks], size):
            self.tell(self._images, done // len(batched_inputs) + 1, -(-len(looks) // len(batched_inputs)))
            shown = self._inputs([looks[number] for number in numbers], batched_inputs, originals)
            for number, instances in zip(numbers, detector.find(shown)):
                of = batched_inputs[looks[number].row]
                frame, corner = detector.frame(of), detector.corner(of, instances)
                found[number] = brought_back(instances, looks[number], frame, corner, detector.selector)
            done += len(numbers)
        merged = []
        for row, inputs in enumerate(batched_inputs):
            parts = [part for part, look in zip(found, looks) if look.row == row]
            merged.append(self._one(parts, detector, detector.frame(inputs)))
        return detector.report(merged, batched_inputs)

    def _inputs(
        self, looks: list[Look], batched_inputs: list[dict[str, Any]], originals: list[Any]
    ) -> list[dict[str, Any]]:
        """Network inputs of views that have one size; a view and its mirror image are resized once."""
        inputs: list[dict[str, Any]] = []
        made: dict[Any, Tensor] = {}
        for look in looks:
            of, what = batched_inputs[look.row], (look.row, look.view.size, look.view.scale)
            if what not in made:
                made[what] = pixels_of(look, of, originals[look.row])
            image = made[what].flip(-1) if look.view.flip else made[what]
            inputs.append({**{key: of[key] for key in ("height", "width") if key in of}, "image": image})
        return inputs

    def _one(self, parts: list[Any], detector: _Detector, frame: tuple[int, int]) -> Instances:
        """What is left of the detections of all views of one image."""
        columns = zip(*((x.image, x.boxes, x.scores, x.classes) for x, _ in parts))
        image, boxes, scores, classes = map(torch.cat, columns)
        xy = torch.cat([at for _, at in parts])
        joined = Detections(image, boxes, scores, classes, torch.arange(len(boxes)))
        tta = self.tta
        kept = merge_views(joined, detector.selector, tta.merge, tta.vote_threshold, tta.soft_threshold)
        found = Instances(tuple(frame), pred_boxes=Boxes(kept.boxes), scores=kept.scores, pred_classes=kept.classes)
        if not xy.isnan().any():
            found.locations = xy[kept.location]
        return found


class _Detector(Protocol):
    """What is asked of a detector: detections of views, and a report of those that are left, in pixels of a frame."""

    selector: Selector

    def find(self, inputs: list[dict[str, Any]]) -> list[Instances]: ...

    def frame(self, inputs: dict[str, Any]) -> tuple[int, int]:
        """(height, width) of the pixels that detections are merged in."""

    def corner(self, inputs: dict[str, Any], found: Instances) -> float:
        """Pixels that boxes end before their far border, of those that detections are in."""

    def report(self, merged: list[Instances], batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]: ...


class _Open:
    """FCOS: nothing is suppressed in a view. Merged in pixels of the network input that there is without augmentation,
    so that suppression compares the numbers that it would compare then."""

    def __init__(self, model: FCOS, selector: Selector) -> None:
        self.model, self.selector = model, selector
        self._every = replace(self.selector, nms_threshold=1.0, max_detections=_ALL, max_detections_ties="cut")

    def find(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        return self.model.found(inputs, self._every)

    def frame(self, inputs: dict[str, Any]) -> tuple[int, int]:
        height, width = inputs["image"].shape[-2:]
        return height, width

    def corner(self, inputs: dict[str, Any], found: Instances) -> float:
        width = found.image_size[1]
        return width / inputs.get("width", width) if self.model.inclusive_far_corner else 0.0

    def report(self, merged: list[Instances], batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.model.reported([found.to(self.model.device) for found in merged], batched_inputs)


class _Closed:
    """Another detector: what it reports, in pixels of the original image. Merged as it suppresses, if it says how."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.selector = Selector(
            nms_threshold=float(getattr(model, "test_nms_thresh", 0.5)), max_detections_ties="cut",
            max_detections=int(getattr(model, "max_detections_per_image", 100)),
        )  # fmt: skip

    def find(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        results = self.model(inputs)
        for result in results:
            fields = result["instances"].get_fields() if "instances" in result else {}
            if "pred_boxes" not in fields or any(name in fields for name in _SEVERAL):
                raise FcosError(
                    f"Test-time augmentation is for detectors of boxes, but {type(self.model).__name__} finds "
                    "something else: set tta=False; for masks there is Detectron2's GeneralizedRCNNWithTTA."
                )
        return [result["instances"] for result in results]

    def frame(self, inputs: dict[str, Any]) -> tuple[int, int]:
        height, width = inputs["image"].shape[-2:]
        return int(inputs.get("height", height)), int(inputs.get("width", width))

    def corner(self, inputs: dict[str, Any], found: Instances) -> float:
        return 0.0

    def report(self, merged: list[Instances], batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"instances": found} for found in merged]


def _detector(model: Any, selector: Selector | None) -> _Detector:
    own = selector or (model.dense.selector if isinstance(model, FCOS) else None)
    return _Open(model, own) if isinstance(model, FCOS) and isinstance(own, Selector) else _Closed(model)
