"""A command of `fcos` in this process, as the console script runs it: exit code, standard output, standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fcos_d2.cli import main
from fcos_d2.data.synthetic import generate


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def fcos(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, tmp_path: Path) -> Callable[..., Outcome]:
    """Run `fcos *words` in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["fcos", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Outcome(ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three classes; not to be changed."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    generate(folder, {"train": 8, "val": 4}, (96, 64), min_size=10, classes=("circle", "square", "star"))
    return folder
