"""A detector for SAHI, which looks at large images slice by slice.

    from sahi.predict import get_sliced_prediction

    model = FCOSDetectionModel(model_path="output/mine/model_best.pth", confidence_threshold=0.4)
    result = get_sliced_prediction("aerial.tif", model, slice_height=640, slice_width=640)

`fcos detect --tile` does the like without SAHI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sahi.models.base import DetectionModel
from sahi.prediction import ObjectPrediction

from ..predict import Predictor
from ..visualize import Drawable

__all__ = ["FCOSDetectionModel"]

_Pairs = Sequence[Any] | None  # [[x, y], ...], or [x, y] alone


class FCOSDetectionModel(DetectionModel):
    """A `Predictor` as SAHI's `DetectionModel`.

    Args:
        model_path: the detector's weights, or the name of a variant.
        model: a `Predictor`, instead.
        config_path: config or variant of the weights, where they do not hold it.
        confidence_threshold: least score.
        device, category_mapping, category_remapping, load_at_init: SAHI's.
    Raises:
        FcosError: the weights do not exist, or do not fit.
    """

    def load_model(self) -> None:
        source = self.config_path or self.model_path
        weights = self.model_path if self.config_path else None
        device, least = str(self.device), self.confidence_threshold
        self.set_model(Predictor(str(source), weights=weights, device=device, score_threshold=least))

    def set_model(self, model: Any, **kwargs: Any) -> None:
        self.model = model
        if self.category_mapping is None:
            self.category_mapping = {str(number): name for number, name in enumerate(model.class_names)}

    def perform_inference(self, image: np.ndarray) -> None:
        """Look at one (H, W, 3) uint8 RGB image."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Look at several, those of one size together."""
        pictures = [np.ascontiguousarray(image) for image in images]
        found = self.model.predict(pictures, len(pictures), "RGB")
        self._original_predictions = [result["instances"] for result in found]

    @property
    def num_categories(self) -> int:
        return len(self.category_names)

    @property
    def category_names(self) -> list[str]:
        return list((self.category_mapping or {}).values())

    @property
    def has_mask(self) -> bool:
        return False

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: _Pairs = None, full_shape_list: _Pairs = None
    ) -> None:
        found = self._original_predictions
        shifts = _for_each(shift_amount_list, len(found), [0, 0])
        shapes = _for_each(full_shape_list, len(found), None)
        self._object_prediction_list_per_image = [
            self._of_image(instances, shift, shape) for instances, shift, shape in zip(found, shifts, shapes)
        ]

    def _of_image(self, found: Any, shift: list[int], shape: list[int] | None) -> list[ObjectPrediction]:
        boxes, classes, scores = Drawable.of(found).arrays()
        rows = zip(boxes.tolist(), classes.tolist(), [] if scores is None else scores.tolist())
        return [
            ObjectPrediction(
                bbox=box,
                category_id=label,
                category_name=(self.category_mapping or {})[str(label)],
                score=score,
                shift_amount=shift,
                full_shape=shape,
            )
            for box, label, score in rows
            if score > self.confidence_threshold
        ]


def _for_each(values: _Pairs, count: int, otherwise: Any) -> list[Any]:
    """One pair for each image; SAHI gives a pair alone for one image, and none for all that need none."""
    if not values:
        return [otherwise] * count
    return [values] if isinstance(values[0], (int, float)) else list(values)
