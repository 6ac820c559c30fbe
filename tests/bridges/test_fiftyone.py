"""A detector in the hands of the real FiftyOne, where that is installed: it brings a database and its own OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_d2 import Predictor

pytest.importorskip("fiftyone")
import fiftyone

from fcos_d2.bridges.fiftyone import FiftyOneModel, to_fiftyone


def test_a_data_set_is_looked_at(weights: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number, size in enumerate(((48, 64), (48, 64), (60, 60))):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{number}.png")
    predictor = Predictor(
        weights, device="cpu", score_threshold=0.3, overrides=["model.dense.selector.max_detections=40"]
    )
    dataset = fiftyone.Dataset.from_images_dir(str(tmp_path))
    try:
        for field, batch in (("one", None), ("batch", 2)):
            dataset.apply_model(FiftyOneModel(predictor), label_field=field, batch_size=batch, progress=False)
        for sample in dataset:
            wanted = predictor.describe(predictor(sample.filepath)["instances"])
            with Image.open(sample.filepath) as image:
                width, height = image.size
            for field in ("one", "batch"):
                found = sorted(sample[field].detections, key=lambda row: -row.confidence)
                assert [row.label for row in found] == [row["class"] for row in wanted] and wanted
                np.testing.assert_allclose(
                    [row.confidence for row in found], [row["score"] for row in wanted], atol=1e-5
                )
                left, top, wide, high = np.array([row.bounding_box for row in found]).T
                corners = np.stack([left * width, top * height, (left + wide) * width, (top + high) * height], axis=1)
                np.testing.assert_allclose(corners, [row["box"] for row in wanted], atol=2e-3)
    finally:
        dataset.delete()


def test_nothing_is_an_empty_list(weights: Path) -> None:
    predictor = Predictor(weights, device="cpu", score_threshold=0.99)
    image = np.zeros((48, 64, 3), np.uint8)
    assert FiftyOneModel(predictor).predict(image).detections == []
    assert to_fiftyone((np.zeros((0, 4)), [], []), ["a"], (48, 64)).detections == []
