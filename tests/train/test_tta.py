"""Test-time augmentation in evaluations: when a config asks for it, and what training does with it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fcos_d2.predict.tta import DetectorWithTTA
from fcos_d2.train import LazyTrainer
from fcos_d2.zoo.tta import TTA


@pytest.mark.parametrize("kind", ["lazy", "yacs"])
def test_an_evaluation_looks_at_the_views_of_the_config(small, yaml, caplog, monkeypatch, kind) -> None:
    """Training does not, and says so; what it leaves knows the views."""
    looked: list[int] = []
    own = DetectorWithTTA.forward

    def forward(self, batched_inputs):
        looked.append(len(batched_inputs))
        return own(self, batched_inputs)

    monkeypatch.setattr(DetectorWithTTA, "forward", forward)
    if kind == "lazy":
        cfg = small("out", "train.max_iter=1", "model.dense.selector.score_threshold=0.001")
        cfg.tta = {"scales": [0.5], "flip": True}
    else:
        cfg = yaml(
            "out", "SOLVER.MAX_ITER=1", "MODEL.FCOS.INFERENCE_TH_TEST=0.001", "TEST.AUG.ENABLED=True",
            "TEST.AUG.MIN_SIZES=()", "TEST.AUG.SCALES=(0.5,)",
        )  # fmt: skip
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        logging.getLogger("fcos_d2").propagate = True
        trainer = LazyTrainer(cfg, console=False)
        trainer.train()
    assert trainer.tta == TTA(scales=(0.5,), flip=True) and not looked
    assert "Test-time augmentation counts once training is over" in caplog.text
    weights = Path(trainer.output_dir) / "model_final.pth"
    key = "train.init_checkpoint" if kind == "lazy" else "MODEL.WEIGHTS"
    if kind == "lazy":
        cfg.train.init_checkpoint = str(weights)
    else:
        cfg.MODEL.WEIGHTS = str(weights)
    tested = LazyTrainer(cfg, console=False, eval_only=True)
    results = tested.test()
    assert sum(looked) == 4 and results["bbox"].keys() >= {"AP"}, key
    assert tested.bare_model.training is trainer.bare_model.training
