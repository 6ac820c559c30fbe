"""Two processes give the gradients of one, whatever their shares of the boxes, with one all-reduce besides DDP's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
import workers
from scenes import relative

# All normalizers of the first are averages over workers; those of the second are a worker's own.
SYNCED = ("original", "improved", "adelaidet_iou", "mmdet")
OWN = ("fcos_plus", "detectron2", "torchvision")
QUICK = ("improved", "adelaidet_iou", "detectron2")
Results = Callable[[str], list[dict[tuple[str, str], dict[str, Any]]]]


def cases(recipes: Sequence[str], kinds: Sequence[str]) -> list[Any]:
    """Recipe and kind of batch."""
    return [
        pytest.param(name, kind, marks=() if name in QUICK else pytest.mark.slow) for name in recipes for kind in kinds
    ]


CASES, LOCAL = cases(SYNCED, list(workers.BATCHES)), cases(OWN, ["one process without boxes"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What both processes found for a recipe: all kinds of batches in one pair of processes."""

    @cache
    def found(name: str) -> list[dict[tuple[str, str], dict[str, Any]]]:
        folder: Path = tmp_path_factory.mktemp("processes")
        kinds = workers.BATCHES if name in SYNCED else ["one process without boxes"]
        warm.processes("work", 2, [(name, kind) for kind in kinds], str(folder))
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]

    return found


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_gradients_are_those_of_one_process(name: str, kind: str, results: Results) -> None:
    expected = workers.gradients(name, kind)
    for result in results(name):
        found = result[name, kind]["gradients"]
        assert found.keys() == expected.keys()
        assert all(v is not None and v.isfinite().all() for v in found.values())
        if kind == "no boxes at all":
            # No positives count as 1 on average, so two processes divide by 2 together, one by 1.
            found = {key: v * 2 for key, v in found.items()}
        assert relative(list(found.values()), list(expected.values())) < 1e-5


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_one_all_reduce_of_two_numbers(name: str, kind: str, results: Results) -> None:
    """Positives and the sum of their weights travel together; gradients are DDP's business."""
    for result in results(name):
        assert result[name, kind]["reduced"] == [(2,)]


@pytest.mark.parametrize(("name", "kind"), LOCAL)
def test_local_normalizers_train_as_well(name: str, kind: str, results: Results) -> None:
    """A process without boxes takes part: equal gradients afterwards, and no more than one all-reduce."""
    first, second = (result[name, kind] for result in results(name))
    assert len(first["reduced"]) == len(second["reduced"]) <= 1
    for key, value in first["gradients"].items():
        assert value.isfinite().all()
        assert torch.equal(value, second["gradients"][key])
    assert second["losses"]["loss_fcos_loc"] == 0
    if first["average"] is not None:  # Detectron2's average is of a process's own positives
        assert second["average"].item() == pytest.approx(300 * 0.9 + 0.1)
        assert first["average"].item() > 300 * 0.9 + 0.1
