"""`--minutes`: the largest model and image of which enough fits, and the length that fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fcos_d2.data.synthetic import generate
from fcos_d2.train.plan import TrainingJob
from fcos_d2.train.presets import LADDERS, choose_preset

SLIM = "fcos_R_18_slim_FPN_small"


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> TrainingJob:
    folder = tmp_path_factory.mktemp("budget") / "timed"
    generate(folder, {"train": 4, "val": 2}, (96, 64), min_size=10)
    return TrainingJob(data=folder, minutes=1e5, image_size=64, batch_size=2, workers=0, device="cpu")


@pytest.mark.slow
def test_much_time_is_for_the_largest_and_not_for_more_than_its_recipe(job, tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_D2_OFFLINE", "1")
    plan = job.plan(tmp_path / "out")
    assert (
        plan.model == LADDERS["cpu"][0] and plan.cfg.train.max_iter == choose_preset("scratch", 4)[1].least_iterations
    )
    assert plan.pace is not None and "all 600 of the recipe's iterations" in plan.said
    assert plan.cfg.train.eval_period == 100


def test_little_time_is_for_the_fastest_and_says_if_it_is_too_little(job, tmp_path):
    plan = replace(job, minutes=1e-4, model=SLIM, image_size=None).plan(tmp_path / "out")
    assert plan.said.startswith("Nothing fits into 0 s; the fastest is fcos_R_18_slim_FPN_small at 160 pixels, 20")
    assert plan.cfg.train.max_iter == 20 and plan.image_size == 160
    assert plan.cfg.train.eval_period == plan.cfg.train.checkpointer.period == 20


def test_what_the_user_says_stays(job, tmp_path):
    mine = replace(job, model=SLIM, overrides=["train.eval_period=7", "optimizer.lr=0.5"], iterations=None)
    plan = mine.plan(tmp_path / "out")
    assert (plan.model, plan.image_size, plan.cfg.train.eval_period, plan.cfg.optimizer.lr) == (SLIM, 64, 7, 0.5)


def test_a_training_that_goes_on_keeps_its_plan(job, tmp_path):
    """What was chosen for a time is not chosen again; another length may be asked for."""
    first = replace(job, minutes=1e-4, model=SLIM, image_size=None).plan(tmp_path)
    Path(tmp_path, "recipe.json").write_text('{"model": "gone"', encoding="utf-8")
    assert replace(job, resume=True).as_before(tmp_path) == replace(job, resume=True)  # cut off: as if there was none
    first.write(tmp_path)
    again = replace(job, image_size=None, batch_size=None, resume=True).as_before(tmp_path)
    assert (again.minutes, again.model, again.image_size, again.batch_size) == (None, SLIM, 160, 2)
    second = again.plan(tmp_path)
    assert second.cfg.train.max_iter == 20 and second.cfg.dataloader == first.cfg.dataloader
    assert second.start is not None and second.start.said == "Training goes on, which started from scratch."
