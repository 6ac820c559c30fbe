"""A command of `fcos` in this process, as the console script runs it: exit code, standard output, standard error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from console import Outcome, in_process
from detectron2.config import instantiate

from fcos_d2.config import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.data.synthetic import generate
from fcos_d2.weights.write import save


@pytest.fixture
def fcos(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, tmp_path: Path) -> Callable[..., Outcome]:
    """Run `fcos *words` in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))

    return in_process(monkeypatch, capfd)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three classes; not to be changed."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    generate(folder, {"train": 8, "val": 4}, (96, 64), min_size=10, classes=("circle", "square", "star"))
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose boxes are those of a model that was never trained, but always the same."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.manual_seed(0)
    cfg = load_config(
        "fcos_R_18_slim_FPN_small",
        [
            "model.num_classes=3",
            "dataloader.test.mapper.augmentations[0].short_edge_length=64",
            "train.device=cpu",
            "model.dense.selector.max_detections=4",
        ],
    )
    model = instantiate(cfg.model).state_dict()
    model["dense.head.cls_logits.bias"] = torch.tensor([0.0, 0.1, 0.2])
    save(path, {"model": model, "class_names": ["circle", "square", "star"], "config": dump_config(cfg)})
    return path
