"""A command of `fcos` in this process, as the console script runs it: exit code, standard output, standard error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from console import Outcome, in_process

from fcos_d2.data.synthetic import generate


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
