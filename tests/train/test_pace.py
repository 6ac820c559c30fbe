"""Measuring a few steps tells a time, and changes nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fcos_d2.train import LazyTrainer
from fcos_d2.train.advice import advice
from fcos_d2.train.pace import Pace, measure


@pytest.mark.slow
def test_measuring_changes_neither_weights_nor_random_numbers_nor_files(small, tmp_path, data):
    def trained(output: str, first: bool) -> dict[str, torch.Tensor]:
        cfg = small(output, "train.max_iter=2", "train.seed=4")
        if first:
            before, text = cfg.copy(), sorted(tmp_path.iterdir())
            states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
            pace = measure(cfg)
            assert pace.step > 0 and pace.image > 0 and pace.images == 4
            assert cfg == before and sorted(tmp_path.iterdir()) == text
            assert states[0] == random.getstate() and torch.equal(states[2], torch.get_rng_state())
            assert states[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
        trainer = LazyTrainer(cfg, console=False)
        trainer.train()
        return trainer.model.state_dict()

    one, other = trained("measured", True), trained("plain", False)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_data_without_evaluation_is_measured(small):
    cfg = small("out")
    del cfg.dataloader["evaluator"]
    pace = measure(cfg)
    assert pace.step > 0 and pace.evaluation == 0


@pytest.mark.parametrize(
    ("period", "done", "evaluations"), [(10, 0, 3), (10, 10, 2), (10, 29, 1), (8, 0, 4), (0, 0, 1), (100, 0, 1)]
)
def test_time_is_that_of_iterations_and_evaluations(small, period, done, evaluations):
    cfg = small("out", "train.max_iter=30", f"train.eval_period={period}")
    assert Pace(0.5, 0.1, 20).seconds(cfg, done) == pytest.approx((30 - done) * 0.5 + evaluations * 2.0)


def test_advice_names_what_would_help(small):
    cfg = small("out", "train.max_iter=30000", "train.device=cpu")
    found = advice(cfg, Pace(1.0, 0.0, 0), "fcos_resnet50_fpn", 800)
    text = "; ".join(found)
    assert "--minutes 60" in found[0] and "--image-size 576 (4 h 19 min)" in text
    assert "--model fcos_R_18_slim_FPN_small" in text and "--iterations 15000 (4 h 10 min)" in text
    assert "a machine with a GPU" in text
    least = advice(cfg, Pace(0.13, 0.0, 0), "fcos_R_18_slim_FPN_small", 160)
    assert not any("--model" in line or "--image-size" in line for line in least)
