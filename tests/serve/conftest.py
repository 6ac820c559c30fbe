"""A server with a real detector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served import running

from fcos_d2 import Predictor
from fcos_d2.engines.plain import TorchEngine
from fcos_d2.serve.service import Service


@pytest.fixture(scope="session")
def predictor(weights: Path) -> Predictor:
    return Predictor(weights, device="cpu", score_threshold=0.3, overrides=["model.dense.selector.max_detections=40"])


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[httpx.Client]:
    with running(Service(TorchEngine(predictor), max_batch=4, max_wait=0.02, model="w.pth")) as client:
        yield client
