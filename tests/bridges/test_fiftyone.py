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


@pytest.fixture
def predictor(weights: Path) -> Predictor:
    wanted = ["model.dense.selector.max_detections=40"]
    return Predictor(weights, device="cpu", score_threshold=0.3, overrides=wanted)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number, size in enumerate(((48, 64), (48, 64), (60, 60))):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def check(predictor: Predictor, path: str, labels: fiftyone.Detections) -> None:
    wanted = predictor.describe(predictor(path)["instances"])
    with Image.open(path) as image:
        width, height = image.size
    found = sorted(labels.detections, key=lambda row: -row.confidence)
    assert len(found) == len(wanted) > 0 and {row.label for row in found} <= set(predictor.class_names)
    np.testing.assert_allclose([row.confidence for row in found], [row["score"] for row in wanted], atol=1e-5)
    left, top, wide, high = np.array([row.bounding_box for row in found]).T
    corners = np.stack([left * width, top * height, (left + wide) * width, (top + high) * height], axis=1)
    np.testing.assert_allclose(corners, [row["box"] for row in wanted], atol=2e-3)


def test_samples_get_labels(predictor: Predictor, folder: Path) -> None:
    """As `apply_model` does it; no database is needed."""
    model = FiftyOneModel(predictor)
    assert isinstance(model, fiftyone.Model) and model.media_type == "image"
    samples = [fiftyone.Sample(filepath=str(path)) for path in sorted(folder.glob("*.png"))]
    images = [np.asarray(Image.open(sample.filepath)) for sample in samples]
    for sample, labels in zip(samples, model.predict_all(images)):
        sample.add_labels(labels, label_field="fcos")
        check(predictor, sample.filepath, sample["fcos"])
    check(predictor, samples[0].filepath, model.predict(images[0]))


def test_a_data_set_is_looked_at(predictor: Predictor, folder: Path) -> None:
    try:
        dataset = fiftyone.Dataset.from_images_dir(str(folder))
    except fiftyone.core.config.FiftyOneConfigError:
        pytest.skip("FiftyOne finds no database here")
    try:
        for field, batch in (("one", None), ("batch", 2)):
            dataset.apply_model(FiftyOneModel(predictor), label_field=field, batch_size=batch, progress=False)
            for sample in dataset:
                check(predictor, sample.filepath, sample[field])
    finally:
        dataset.delete()


def test_nothing_is_an_empty_list(weights: Path) -> None:
    predictor = Predictor(weights, device="cpu", score_threshold=0.99)
    image = np.zeros((48, 64, 3), np.uint8)
    assert FiftyOneModel(predictor).predict(image).detections == []
    assert to_fiftyone((np.zeros((0, 4)), [], []), ["a"], (48, 64)).detections == []
