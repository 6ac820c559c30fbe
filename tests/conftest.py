"""What every test may ask for, and what every test gets without asking: fixed seeds and at most two threads."""

from __future__ import annotations

import os
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

import fcos_d2  # noqa: F401  # before detectron2, whose 0.6 needs mending

ROOT = Path(__file__).resolve().parent.parent

# Training and first calls of a compiled function take seconds: hypothesis must not call that a failure.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run beside each other, so everything they start gets one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 2))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The same random numbers in each test, whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # Detectron2's augmentations draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and reference files; a test that asks for it is skipped where there is none.

    It is the environment variable `FCOS_D2_SHARED`, else `shared` beside the repository.
    """
    folder = Path(os.environ.get("FCOS_D2_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set FCOS_D2_SHARED to the folder that holds data/coco and data/bccd")
    return folder


@pytest.fixture
def tmp_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory while the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
