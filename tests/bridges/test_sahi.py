"""A detector in the hands of the real SAHI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sahi")
from sahi.predict import get_prediction, get_sliced_prediction

from fcos_d2 import Predictor
from fcos_d2.bridges.sahi import FCOSDetectionModel
from fcos_d2.errors import FcosError


def rows(result: object) -> list[tuple[str, float, list[float]]]:
    found = [(o.category.name, o.score.value, o.bbox.to_xyxy()) for o in result.object_prediction_list]  # type: ignore[attr-defined]
    return sorted(found, key=lambda row: -row[1])


def test_whole_and_in_slices(weights: Path) -> None:
    predictor = Predictor(
        weights, device="cpu", score_threshold=0.3, overrides=["model.dense.selector.max_detections=40"]
    )
    model = FCOSDetectionModel(model=predictor, confidence_threshold=0.3, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    wanted = predictor.describe(predictor(image, "RGB")["instances"])
    found = rows(get_prediction(image, model))
    assert [row[0] for row in found] == [row["class"] for row in wanted] and wanted
    np.testing.assert_allclose([row[1] for row in found], [row["score"] for row in wanted], atol=1e-6)
    np.testing.assert_allclose([row[2] for row in found], [row["box"] for row in wanted], atol=1e-2)
    # Slices, two at a time: what each shows, at its place in the image.
    sliced = get_sliced_prediction(
        image, model, slice_height=64, slice_width=64, overlap_height_ratio=0, overlap_width_ratio=0,
        perform_standard_pred=False, postprocess_type="NMS", postprocess_match_threshold=0.99, verbose=0, batch_size=2,
    )  # fmt: skip
    corner = predictor.describe(predictor(np.ascontiguousarray(image[:64, :64]), "RGB")["instances"])
    scores = [row[1] for row in rows(sliced)]
    assert all(min(abs(score - row["score"]) for score in scores) < 1e-4 for row in corner)
    boxes = np.array([row[2] for row in rows(sliced)])
    assert boxes[:, 2].max() > 70 and boxes[:, 3].max() > 70 and (boxes <= [120, 90, 120, 90]).all()


def test_names_thresholds_and_a_predictor_that_is_there(weights: Path) -> None:
    predictor = Predictor(
        weights, device="cpu", score_threshold=0.3, overrides=["model.dense.selector.max_detections=40"]
    )
    model = FCOSDetectionModel(model=predictor, confidence_threshold=0.45, category_remapping={"0": 7, "1": 8, "2": 9})
    assert model.category_names == predictor.class_names and model.num_categories == 3 and not model.has_mask
    result = get_prediction(np.full((64, 64, 3), 128, np.uint8), model)
    assert all(row[1] > 0.45 for row in rows(result))
    assert all(o.category.id in (7, 8, 9) for o in result.object_prediction_list)
    alone = FCOSDetectionModel(model_path=str(weights), confidence_threshold=0.3, device="cpu")
    assert alone.category_names == predictor.class_names
    named = FCOSDetectionModel(model_path=str(weights), config_path="fcos_R_18_slim_FPN_small", device="cpu")
    assert named.model.class_names == predictor.class_names
    with pytest.raises(FcosError, match=r"gone\.pth"):
        FCOSDetectionModel(model_path="gone.pth")
