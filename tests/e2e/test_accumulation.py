"""Two processes that compute their share of a batch in parts give the gradients of the batch, with one all-reduce."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import warm
import workers
from scenes import relative

# Normalizers that are averages over workers; a worker's own; and a moving average.
pytestmark = pytest.mark.slow  # tests/train has parts in one process, and processes that train

RECIPES = ("improved", "fcos_plus", "detectron2")
CASES = [("improved", kind) for kind in workers.BATCHES]
CASES += [(name, "one process without boxes") for name in RECIPES[1:]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, str, int], dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("processes")
    warm.processes("accumulate", 2, CASES, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_parts_add_up(name: str, kind: str, results: list[dict[tuple[str, str, int], Any]]) -> None:
    for result in results:
        whole, parts = result[name, kind, 1], result[name, kind, 2]
        assert parts["losses"] == pytest.approx(whole["losses"], rel=1e-5)
        assert relative(list(parts["gradients"].values()), list(whole["gradients"].values())) < 1e-6
        assert parts["reduced"] == whole["reduced"] == [(2,)]
        if whole["average"] is not None:
            assert parts["average"].item() == whole["average"].item() != 300


@pytest.mark.parametrize("kind", [kind for kind in workers.BATCHES if kind != "no boxes at all"])
def test_two_processes_in_parts_are_one_at_once(kind: str, results: list[dict[tuple[str, str, int], Any]]) -> None:
    expected = workers.gradients("improved", kind, torch.float64)
    for result in results:
        found = result["improved", kind, 2]["gradients"]
        assert relative([found[key] for key in expected], list(expected.values())) < 1e-6
