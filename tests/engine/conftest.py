"""A small synthetic data set and the smallest variant, set up to train on it in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from fcos_d2.data import DatasetNames, register
from fcos_d2.data.synthetic import generate
from fcos_d2.engine import load_config

IMAGE_SIZES = ((96, 80), (80, 96))  # wide and tall, so that grouping by aspect ratio has something to do


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetNames:
    layout = generate(tmp_path_factory.mktemp("engine") / "set", {"train": 12, "val": 4}, image_size=IMAGE_SIZES)
    return register(layout, "engine_tests")


@pytest.fixture
def small(data: DatasetNames, tmp_path: Path) -> Callable[..., DictConfig]:
    """`small(output, *overrides)`: a config that trains for six iterations of two images, on the CPU."""

    def config(output: str = "out", *overrides: str) -> DictConfig:
        fixed = (
            "model.num_classes=5",
            f"dataloader.train.dataset.names={data.train}",
            f"dataloader.test.dataset.names={data.val}",
            "dataloader.train.total_batch_size=2",
            "dataloader.train.num_workers=0",
            "dataloader.test.num_workers=0",
            "dataloader.train.mapper.augmentations[0].short_edge_length=[48,64]",
            "dataloader.test.mapper.augmentations[0].short_edge_length=64",
            "train.max_iter=6",
            "train.log_period=1",
            "train.device=cpu",
            "train.seed=1",
            f"train.output_dir={tmp_path / output}",
        )
        return load_config("fcos_R_18_slim_FPN_small", [*fixed, *overrides])

    return config
