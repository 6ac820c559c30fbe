"""Pictures of a training: what they come from, when they are drawn, and that they stop nothing."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from PIL import Image

from fcos_d2.evaluation.scores import true_boxes
from fcos_d2.train import LazyTrainer, gallery

PICTURES = ("curves.png", "confusion.png", "misses.jpg", "hits.jpg")


def trained(config) -> Path:
    trainer = LazyTrainer(config, console=False)
    trainer.train()
    return Path(trainer.output_dir)


def test_pictures_and_counts_of_the_last_evaluation(small, data):
    folder = trained(small("out", "train.pictures=true", "train.max_iter=2", "train.eval_period=1"))
    for name in PICTURES:
        with Image.open(folder / name) as image:
            assert min(image.size) > 100
    found = json.loads((folder / "confusion.json").read_text())
    objects = [box["category_id"] for record in DatasetCatalog.get(data.val) for box in true_boxes(record)]
    assert np.sum(found["matrix"], 1)[:-1].tolist() == np.bincount(objects, minlength=5).tolist()
    assert (found["iteration"], found["dataset"], found["iou"], found["score"]) == (1, data.val, 0.5, 0.5)
    assert found["classes"] == ["circle", "square", "triangle", "star", "ring", "background"]


@pytest.mark.slow
def test_of_several_data_sets_the_first_whose_evaluator_tells_is_drawn(yaml, data):
    class Trainer(LazyTrainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            if dataset_name == data.val:
                return COCOEvaluator(dataset_name, output_dir=f"{cfg.OUTPUT_DIR}/inference")
            return super().build_evaluator(cfg, dataset_name)

    sets = f"DATASETS.TEST=('{data.val}','{data.train}')"
    trainer = Trainer(yaml("sets", "SOLVER.MAX_ITER=1", "TRAIN.PICTURES=True", sets), console=False)
    assert list(trainer.train()) == [data.val, data.train] and trainer.detected.dataset == data.train
    folder = Path(trainer.output_dir)
    assert json.loads((folder / "confusion.json").read_text())["dataset"] == data.train
    assert (folder / "hits.jpg").is_file() and trainer.thresholds is None  # of images that it was trained on


def test_none_unless_asked_for(small):
    folder = trained(small("out", "train.max_iter=1"))
    assert not any((folder / name).exists() for name in PICTURES)


@pytest.mark.slow
def test_drawn_while_training_runs_within_a_share_of_its_time(small, monkeypatch):
    drawn = []
    monkeypatch.setattr(gallery, "draw_findings", lambda tables, folder, title, iteration: drawn.append(iteration))
    monkeypatch.setattr(gallery, "_SHARE", 1e9)
    folder = trained(small("eager", "train.pictures=true", "train.max_iter=3", "train.eval_period=1"))
    assert drawn == [0, 1, 2]
    pattern = r"Pictures took (\d+\.\d) s of \d+ s while training ran, and (\d+\.\d) s in the end\."
    (told,) = re.findall(pattern, (folder / "log.txt").read_text(encoding="utf-8"))
    assert float(told[0]) > 0
    drawn.clear()
    monkeypatch.setattr(gallery, "_SHARE", 0.0)
    folder = trained(small("frugal", "train.pictures=true", "train.max_iter=3", "train.eval_period=1"))
    assert drawn == [2]
    (told,) = re.findall(pattern, (folder / "log.txt").read_text(encoding="utf-8"))
    assert float(told[0]) == 0 < float(told[1])


def test_a_full_disk_is_a_warning(small, monkeypatch, caplog):
    """While pictures are drawn; checkpoints go to another folder here, and that has room."""
    replace = os.replace

    def full(source, destination):
        if Path(destination).suffix in (".png", ".jpg"):
            raise OSError(28, "No space left on device")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        folder = trained(small("out", "train.pictures=true", "train.max_iter=1"))
    said = [record.getMessage() for record in caplog.records if "not drawn" in record.getMessage()]
    assert [text.partition(" ")[0] for text in said] == ["curves.png", "confusion.png"]
    assert all("No space left on device" in text and "training goes on" in text for text in said)
    assert (folder / "model_final.pth").is_file() and not list(folder.glob(".*.part"))


@pytest.mark.parametrize("override", ["dataloader.evaluator.tasks=[segm]", "train.eval_period=0"])
def test_without_boxes_or_evaluations_between(small, override):
    folder = trained(small("out", "train.pictures=true", "train.max_iter=1", override))
    assert (folder / "curves.png").is_file()
