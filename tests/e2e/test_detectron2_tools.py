"""Detectron2's own trainers, predictors and scripts with the configs of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.evaluation import COCOEvaluator

from fcos_d2 import LazyTrainer, _compat
from fcos_d2.config.load import load_config
from fcos_d2.data import register
from fcos_d2.data.synthetic import generate
from fcos_d2.paths import config_root
from fcos_d2.weights.read import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("d2") / "set"
    return register(generate(folder, {"train": 8, "val": 3}, image_size=((96, 80), (80, 96))), "d2_tools")


@pytest.fixture
def cfg(names, tmp_path):
    overrides = [
        "MODEL.DEVICE=cpu", "MODEL.WEIGHTS=", "MODEL.FCOS.NUM_CLASSES=5", f"DATASETS.TRAIN=('{names.train}',)",
        f"DATASETS.TEST=('{names.val}',)", "DATALOADER.NUM_WORKERS=0", "SOLVER.IMS_PER_BATCH=2", "SOLVER.MAX_ITER=3",
        "SOLVER.STEPS=()", "INPUT.MIN_SIZE_TRAIN=(64,)", "INPUT.MIN_SIZE_TEST=64", f"OUTPUT_DIR={tmp_path}",
    ]  # fmt: skip
    return load_config(config_root() / "yaml" / "small" / "fcos_R_18_slim_FPN_small.yaml", overrides)


@pytest.fixture(scope="session")
def source():
    """A checkout of Detectron2: its scripts are in no package."""
    folder = os.environ.get("DETECTRON2_SOURCE")
    if not folder:
        pytest.skip("set DETECTRON2_SOURCE to a checkout of Detectron2 for its own scripts")
    return Path(folder)


def test_default_trainer_and_default_predictor(cfg, tmp_path):
    class Trainer(DefaultTrainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR)

    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.iter == 3
    assert Trainer.test(cfg, trainer.model)["bbox"].keys() >= {"AP", "AP50"}
    cfg.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
    cfg.MODEL.FCOS.INFERENCE_TH_TEST = 0.0
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    found = DefaultPredictor(cfg)(picture)["instances"]
    assert len(found) > 0 and found.image_size == (40, 60)
    state = load(cfg.MODEL.WEIGHTS)["model"]  # Detectron2's file, read by us
    assert torch.equal(state["dense.head.scales"], trainer.model.dense.head.scales)


def test_detectron2_resumes_from_our_checkpoint(cfg):
    trainer = LazyTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    cfg.SOLVER.MAX_ITER = 5
    cfg.DATASETS.TEST = ()
    theirs = DefaultTrainer(cfg)
    theirs.resume_or_load(resume=True)
    assert theirs.start_iter == 3
    theirs.train()
    assert theirs.iter == 5


def call(*words, cwd, datasets):
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DETECTRON2_DATASETS": str(datasets), "PYTHONPATH": paths}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_their_lazyconfig_script_unmodified(source, shared, tmp_path):
    if _compat.DETECTRON2_FLAVOUR != "main":
        pytest.skip("the script imports Detectron2 first, which 0.6 without its compiled part does not survive")
    train, test = "dataloader.train.mapper.augmentations.0", "dataloader.test.mapper.augmentations.0"
    small = [
        "train.init_checkpoint=", "train.device=cpu", "train.max_iter=3", "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0", "dataloader.test.num_workers=0", f"train.output_dir={tmp_path}",
        f"{train}.short_edge_length=[96]", f"{train}.max_size=128", f"{test}.short_edge_length=96",
        f"{test}.max_size=128", "model.dense.selector.score_threshold=0.0",
    ]  # fmt: skip
    script = source / "tools" / "lazyconfig_train_net.py"
    config = config_root() / "fcos" / "fcos_imprv_R_50_FPN_1x.py"
    out = call(script, "--config-file", config, *small, cwd=tmp_path, datasets=shared / "data")
    assert "Average Precision" in out and (tmp_path / "model_final.pth").is_file()
    weights = f"train.init_checkpoint={tmp_path / 'model_final.pth'}"
    out = call(script, "--config-file", config, "--eval-only", *small, weights, cwd=tmp_path, datasets=shared / "data")
    assert "copypaste: AP,AP50" in out


def test_their_demo(source, cfg, monkeypatch):
    """`VisualizationDemo` of demo/predictor.py, which demo/demo.py runs on each image."""
    monkeypatch.syspath_prepend(str(source / "demo"))
    from predictor import VisualizationDemo

    cfg.MODEL.FCOS.INFERENCE_TH_TEST = 0.0
    picture = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    predictions, drawn = VisualizationDemo(cfg).run_on_image(picture)
    assert len(predictions["instances"]) > 0
    assert drawn.get_image().shape == (80, 120, 3)
    sys.modules.pop("predictor")
