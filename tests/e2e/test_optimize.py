"""`Predictor(..., optimize=True)` detects what the plain model detects, on 160 real images."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from detectron2.structures import Instances

from fcos_d2 import Predictor
from fcos_d2.errors import FcosError
from projects_tools.bench.peers import calibrated
from projects_tools.bench.workload import SCORE_THRESHOLD, Setting

BOXES, SCORES = 0.01, 1e-4  # pixels, and score


@pytest.fixture(scope="module")
def files(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "coco").glob("*2017/*.jpg"))


@pytest.fixture(scope="module")
def checkpoint(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with scores on real images as of a trained model."""
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    images = [torch.from_numpy(cv2.imread(str(file))[::4, ::4].copy()).permute(2, 0, 1).float() for file in files[:8]]
    torch.save({"model": calibrated("detectron2", Setting("forward"), images).state_dict()}, path)
    return path


def predictor(checkpoint: Path, **options) -> Predictor:
    overrides = [
        "dataloader.test.mapper.augmentations.0.short_edge_length=112",
        f"model.dense.selector.score_threshold={SCORE_THRESHOLD}",
    ]
    return Predictor("detectron2/fcos_R_50_FPN_1x", weights=checkpoint, overrides=overrides, device="cpu", **options)


def missing(found: Instances, wanted: Instances) -> int:
    """Detections that have no equal."""
    lost = 0
    for box, score, kind in zip(wanted.pred_boxes.tensor, wanted.scores, wanted.pred_classes):
        near = (found.pred_boxes.tensor - box).abs().amax(dim=1) <= BOXES
        near &= (found.scores - score).abs() <= SCORES
        lost += not bool((near & (found.pred_classes == kind)).any())
    return lost


@pytest.mark.slow
def test_equal_detections_on_real_images(files: list[Path], checkpoint: Path) -> None:
    assert len(files) == 160
    plain, fast = predictor(checkpoint), predictor(checkpoint, optimize=True)
    total = 0
    for file in files:
        wanted, found = plain(file)["instances"], fast(file)["instances"]
        assert missing(found, wanted) == missing(wanted, found) == 0, file.name
        total += len(wanted)
    assert total > 160 * 10


def test_precision_that_there_is_not() -> None:
    with pytest.raises(FcosError, match=r"'int8'.*'bf16'"):
        Predictor("detectron2/fcos_R_50_FPN_1x", weights="random", device="cpu", optimize="int8")
