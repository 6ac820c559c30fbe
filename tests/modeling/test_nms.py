"""Suppression within groups, against one plain suppression for each group."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from fcos_d2.modeling.nms import grouped_nms, spread_nms

BOTH = pytest.mark.parametrize("suppress", [grouped_nms, spread_nms])  # of a CPU and of a GPU


def one_by_one(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float) -> set[int]:
    kept = set()
    for g in group.unique():
        rows = (group == g).nonzero().squeeze(1)
        kept |= set(rows[nms(boxes[rows], scores[rows], threshold)].tolist())
    return kept


def problem(count: int, groups: int, extent: float = 200.0) -> tuple[Tensor, Tensor, Tensor]:
    """float32 boxes that overlap a lot, as doubles."""
    corner = torch.rand(count, 2) * extent - extent / 4
    boxes = torch.cat((corner, corner + torch.rand(count, 2) * extent / 3), dim=1)
    return boxes.double(), torch.rand(count, dtype=torch.float64), torch.randint(0, groups, (count,)) * 7


@pytest.mark.parametrize(
    ("count", "groups"), [(0, 1), (1, 1), (2, 1), (2, 2), (50, 50), (63, 1), (65, 1), (300, 2), (500, 9), (900, 80)]
)
@BOTH
def test_equal_to_one_suppression_for_each_group(suppress: Callable, count: int, groups: int) -> None:
    boxes, scores, group = problem(count, groups)
    kept = suppress(boxes, scores, group, 0.5)
    assert set(kept.tolist()) == one_by_one(boxes, scores, group, 0.5)
    assert len(kept) == len(set(kept.tolist()))
    assert (scores[kept].diff() <= 0).all()


@BOTH
def test_groups_that_lie_on_each_other_do_not_meet(suppress: Callable) -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).double().repeat(40, 1)
    scores = torch.linspace(0.1, 0.9, 40, dtype=torch.float64)
    assert len(suppress(boxes, scores, torch.arange(40), 0.5)) == 40
    assert suppress(boxes, scores, torch.zeros(40, dtype=torch.int64), 0.5).tolist() == [39]


@BOTH
def test_an_overlap_of_exactly_the_threshold_stays(suppress: Callable) -> None:
    """In any group, wherever it lies."""
    pair = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]]).double()
    boxes = torch.cat([pair + 3 * i for i in range(31)])
    group = torch.arange(31).repeat_interleave(2)
    scores = torch.tensor([0.9, 0.8], dtype=torch.float64).repeat(31)
    assert len(suppress(boxes, scores, group, 0.5)) == 62
    assert len(suppress(boxes, scores, group, 0.5 - 1e-12)) == 31


@BOTH
def test_of_equal_scores_the_lower_row_comes_first(suppress: Callable) -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10], [90, 0, 99, 9]]).double()
    kept = suppress(boxes, torch.full((4,), 0.5, dtype=torch.float64), torch.tensor([0, 0, 0, 1]), 0.5)
    assert kept.tolist() == [0, 2, 3]


@pytest.mark.parametrize("far", [1e15, float("inf"), float("nan")])
@BOTH
def test_boxes_far_out(suppress: Callable, far: float) -> None:
    boxes, scores, group = problem(60, 6)
    boxes[0] = torch.tensor([0.0, 0.0, far, far])
    assert set(suppress(boxes, scores, group, 0.5).tolist()) == one_by_one(boxes, scores, group, 0.5)
