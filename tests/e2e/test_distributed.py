"""Two processes give the gradients of one, whatever their shares of the boxes, with one all-reduce besides DDP's."""

from __future__ import annotations

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
CASES = [(name, kind) for name in SYNCED for kind in workers.BATCHES]
LOCAL = [(name, "one process without boxes") for name in OWN]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, str], dict[str, Any]]]:
    """All cases in one pair of processes: starting them takes longer than the work."""
    folder: Path = tmp_path_factory.mktemp("processes")
    warm.processes("work", 2, CASES + LOCAL, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_gradients_are_those_of_one_process(name: str, kind: str, results: list[dict[tuple[str, str], Any]]) -> None:
    expected = workers.gradients(name, kind)
    for result in results:
        found = result[name, kind]["gradients"]
        assert found.keys() == expected.keys()
        assert all(v is not None and v.isfinite().all() for v in found.values())
        if kind == "no boxes at all":
            # No positives count as 1 on average, so two processes divide by 2 together, one by 1.
            found = {key: v * 2 for key, v in found.items()}
        assert relative(list(found.values()), list(expected.values())) < 1e-5


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_one_all_reduce_of_two_numbers(name: str, kind: str, results: list[dict[tuple[str, str], Any]]) -> None:
    """Positives and the sum of their weights travel together; gradients are DDP's business."""
    for result in results:
        assert result[name, kind]["reduced"] == [(2,)]


@pytest.mark.parametrize(("name", "kind"), LOCAL)
def test_local_normalizers_train_as_well(name: str, kind: str, results: list[dict[tuple[str, str], Any]]) -> None:
    """A process without boxes takes part: equal gradients afterwards, and no more than one all-reduce."""
    first, second = (result[name, kind] for result in results)
    assert len(first["reduced"]) == len(second["reduced"]) <= 1
    for key, value in first["gradients"].items():
        assert value.isfinite().all()
        assert torch.equal(value, second["gradients"][key])
    assert second["losses"]["loss_fcos_loc"] == 0
    if first["average"] is not None:  # Detectron2's average is of a process's own positives
        assert second["average"].item() == pytest.approx(300 * 0.9 + 0.1)
        assert first["average"].item() > 300 * 0.9 + 0.1
