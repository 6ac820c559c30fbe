"""Detections in the hands of the real supervision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcos_d2 import Predictor
from fcos_d2.bridges.supervision import to_supervision

supervision = pytest.importorskip("supervision")


def test_detections_are_supervisions_own(weights: Path) -> None:
    predictor = Predictor(
        weights, device="cpu", score_threshold=0.3, overrides=["model.dense.selector.max_detections=40"]
    )
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    instances = predictor(image)["instances"]
    found = to_supervision(instances, predictor.class_names)
    theirs = supervision.Detections.from_detectron2({"instances": instances})
    assert len(found) == len(instances) > 0
    for name in ("xyxy", "confidence", "class_id"):
        np.testing.assert_array_equal(getattr(found, name), getattr(theirs, name))
    assert (
        list(found["class_name"]) == [row["class"] for row in predictor.describe(instances)]
        or len(set(found.class_id)) > 1
    )
    assert list(found["class_name"]) == [predictor.class_names[label] for label in found.class_id]
    drawn = supervision.BoxAnnotator().annotate(image[:, :, ::-1].copy(), found)
    labelled = supervision.LabelAnnotator().annotate(drawn, found)
    assert labelled.shape == image.shape and not np.array_equal(labelled, image)
    best = found[found.confidence >= found.confidence.max()]
    assert len(best) == 1 and best["class_name"][0] in predictor.class_names
    nothing = to_supervision(instances[:0], predictor.class_names)
    assert len(nothing) == 0 and nothing.xyxy.shape == (0, 4)
    assert len(supervision.Detections.merge([found, nothing])) == len(found)
