"""A detector for FiftyOne, which shows data sets and what detectors find in them.

import fiftyone

dataset = fiftyone.Dataset.from_images_dir("new_images")
dataset.apply_model(FiftyOneModel("output/mine/model_best.pth"), label_field="fcos")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fiftyone
import numpy as np

from ..predict import Predictor
from ..visualize import Drawable

__all__ = ["FiftyOneModel", "to_fiftyone"]


class FiftyOneModel(fiftyone.Model):
    """A `Predictor` as FiftyOne's `Model`.

    Args:
        predictor: of what is to be found, or what `Predictor` takes: a checkpoint, the name of a variant.
        options: of `Predictor`, where one is made.
    Raises:
        FcosError: the weights do not exist, or do not fit.
    """

    media_type = "image"
    ragged_batches = False  # images of several sizes may come together
    transforms = None
    preprocess = False

    def __init__(self, predictor: Predictor | str | Path, **options: Any) -> None:
        self.predictor = predictor if isinstance(predictor, Predictor) else Predictor(predictor, **options)

    def predict(self, arg: np.ndarray) -> fiftyone.Detections:
        """Look at one (H, W, 3) uint8 RGB image."""
        return self.predict_all([arg])[0]

    def predict_all(self, args: Iterable[np.ndarray]) -> list[fiftyone.Detections]:
        """Look at several, those of one size together."""
        images = list(args)
        found = self.predictor.predict(images, len(images), "RGB")
        names = self.predictor.class_names
        return [to_fiftyone(result["instances"], names, image.shape[:2]) for result, image in zip(found, images)]


def to_fiftyone(found: Any, class_names: Sequence[str], size: tuple[int, int]) -> fiftyone.Detections:
    """Detections of one image.

    Args:
        found: what `Predictor` gives as "instances", or (boxes, classes, scores), see `visualize.Drawable`.
        class_names: of the detector, `predictor.class_names`.
        size: (height, width) of the image in pixels.
    Returns:
        `fiftyone.Detections`: labels, scores, and boxes [left, top, width, height] as shares of the image.
    """
    boxes, classes, scores = Drawable.of(found).arrays()
    height, width = size
    shares = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) / [width, height, width, height]
    said = [None] * len(boxes) if scores is None else scores.tolist()
    return fiftyone.Detections(
        detections=[
            fiftyone.Detection(label=class_names[label], bounding_box=box, confidence=score)
            for box, label, score in zip(shares.tolist(), classes.tolist(), said)
        ]
    )
