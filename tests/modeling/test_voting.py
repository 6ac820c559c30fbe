"""Merging of the detections of several views, against one box and one cluster after the other."""

from __future__ import annotations

import pytest
import torch
from reference import overlap
from torch import Tensor

from fcos_d2.modeling import Selector
from fcos_d2.modeling.voting import clusters, merge_views
from fcos_d2.structures import Detections


def problem(count: int, classes: int = 3) -> Detections:
    """Boxes of a few objects, as several views would find them, and some that are alone."""
    centers = torch.randint(0, 4, (count, 2)) * 40.0 + torch.randn(count, 2) * 3
    sides = 30 + torch.randn(count, 2).abs() * 6
    boxes = torch.cat((centers - sides / 2, centers + sides / 2), dim=1)
    label = torch.randint(0, classes, (count,))
    return Detections(torch.zeros(count).long(), boxes, torch.rand(count), label, torch.arange(count))


def of(boxes: list[list[float]], scores: list[float], classes: list[int] | None = None) -> Detections:
    count = len(boxes)
    label = torch.tensor(classes or [0] * count)
    return Detections(
        torch.zeros(count).long(), torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), label, torch.arange(count)
    )


def slowly(found: Detections, threshold: float, soft: float | None, one: float) -> list[tuple[list[float], float, int]]:
    """What sfzhang15/ATSS does with the boxes of each class: (box, score, class), best first."""
    rows = zip(found.boxes.double().tolist(), found.scores.double().tolist(), found.classes.tolist())
    left, kept = sorted(rows, key=lambda row: -row[1]), []
    while left:
        best = left[0]
        shares = [overlap(best[0], row[0], one) if row[2] == best[2] else 0.0 for row in left]
        own = [(row, share) for row, share in zip(left, shares) if share >= threshold or row is best]
        left = [row for row in left if all(row is not other for other, _ in own)]
        total = sum(row[1] for row, _ in own)
        kept.append(([sum(row[0][i] * row[1] for row, _ in own) / total for i in range(4)], best[1], best[2]))
        if soft is not None:
            kept += [(row[0], row[1] * (1 - share), row[2]) for row, share in own if row[1] * (1 - share) >= soft]
    return sorted(kept, key=lambda row: -row[1])


@pytest.mark.parametrize("convention", ["plain", "plus_one"])
@pytest.mark.parametrize("merge", ["vote", "soft-vote"])
@pytest.mark.parametrize("count", [1, 2, 40, 400])
def test_equals_the_slow_transcription(count: int, merge: str, convention: str) -> None:
    selector = Selector(max_detections=10**6, nms_convention=convention)
    found = problem(count)
    soft = 0.05 if merge == "soft-vote" else None
    wanted = slowly(found, 0.66, soft, 1.0 if convention == "plus_one" else 0.0)
    merged = merge_views(found, selector, merge, 0.66, 0.05)
    assert len(merged) == len(wanted) and (count < 40 or len(wanted) < count)
    assert merged.classes.tolist() == [row[2] for row in wanted]
    assert torch.allclose(merged.scores, torch.tensor([row[1] for row in wanted]), atol=1e-6)
    assert torch.allclose(merged.boxes, torch.tensor([row[0] for row in wanted]), atol=1e-3)


def test_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problem(300)
    args = found.boxes.double(), found.scores.double(), found.classes, 0.5
    whole = clusters(*args)
    monkeypatch.setattr("fcos_d2.modeling.voting._PAIRS", 50)
    assert all(torch.equal(a, b) for a, b in zip(whole, clusters(*args)))


def test_a_case_on_paper() -> None:
    """IoU 0.8 and 0.5 with the best; a box of another class does not vote."""
    boxes = [[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 10]]
    found = of(boxes, [0.6, 0.3, 0.2, 0.1], [0, 0, 0, 1])
    merged = merge_views(found, Selector(), "vote", 0.66, 0.05)
    assert merged.boxes.tolist() == [[0, 0, 10, pytest.approx((6 + 0.3 * 8) / 0.9)], boxes[2], boxes[3]]
    assert merged.scores.tolist() == pytest.approx([0.6, 0.2, 0.1]) and merged.location.tolist() == [0, 2, 3]
    soft = merge_views(found, Selector(), "soft-vote", 0.66, 0.05)
    assert soft.scores.tolist() == pytest.approx([0.6, 0.2, 0.1, 0.06]) and soft.boxes[3].tolist() == boxes[1]
    assert len(merge_views(found, Selector(), "soft-vote", 0.66, 0.07)) == 3


def test_an_overlap_of_exactly_the_threshold_votes() -> None:
    """As in ATSS; suppression starts above the threshold."""
    found = of([[0.0, 0, 10, 10], [0, 0, 10, 5]], [0.9, 0.8])
    assert len(merge_views(found, Selector(), "vote", 0.5, 0.05)) == 1
    assert len(merge_views(found, Selector(nms_threshold=0.5), "nms", 0.5, 0.05)) == 2


def test_a_box_alone_stays_to_the_bit() -> None:
    boxes = torch.rand(50, 4)
    boxes[:, 2:] += boxes[:, :2] + 1
    boxes[:, 0::2] += torch.arange(50)[:, None] * 100
    found = of(boxes.tolist(), torch.linspace(0.9, 0.1, 50).tolist())
    for merge in ("nms", "vote", "soft-vote"):
        merged = merge_views(found, Selector(), merge, 0.66, 0.05)
        assert torch.equal(merged.boxes, found.boxes) and torch.equal(merged.scores, found.scores)


def test_nothing_and_boxes_without_area() -> None:
    for merge in ("nms", "vote", "soft-vote"):
        assert len(merge_views(of([], []), Selector(), merge, 0.66, 0.05)) == 0
        flat = of([[1.0, 1, 1, 5], [1, 1, 1, 5], [0, 0, 9, 9]], [0.5, 0.4, 0.9])
        merged = merge_views(flat, Selector(), merge, 0.66, 0.05)
        assert merged.boxes.isfinite().all() and merged.boxes[0].tolist() == [0, 0, 9, 9] and len(merged) == 3


def test_as_many_as_the_selector_reports() -> None:
    found = problem(400)
    for merge in ("nms", "vote", "soft-vote"):
        assert len(merge_views(found, Selector(max_detections=7), merge, 0.66, 0.05)) == 7


def test_order_of_boxes_does_not_matter() -> None:
    found = problem(200)
    other = found[torch.randperm(200)]

    def rows(merged: Detections) -> Tensor:
        return torch.cat((merged.boxes, merged.scores[:, None]), dim=1)

    for merge in ("nms", "vote", "soft-vote"):
        pair = [rows(merge_views(x, Selector(), merge, 0.66, 0.05)) for x in (found, other)]
        assert torch.allclose(*pair, atol=1e-4)
