"""What the quality branch should predict."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcos_d2.modeling import QUALITY_REGISTRY
from fcos_d2.modeling.ltrb import IOU_RULES
from fcos_d2.modeling.quality import centerness_of


@pytest.mark.parametrize(
    ("ltrb", "expected"),
    [
        ([5, 5, 5, 5], 1.0),
        ([2, 9, 2, 9], 1.0),  # the centre of a box of any shape
        ([1, 1, 3, 3], 1 / 3),
        ([1, 1, 4, 1], 0.5),
        ([1, 1, 4, 9], (1 / 4 * 1 / 9) ** 0.5),
    ],
)
def test_centerness_by_hand(ltrb: list[float], expected: float) -> None:
    assert centerness_of(torch.tensor([ltrb], dtype=torch.float32)).item() == pytest.approx(expected, rel=1e-6)


_distance = st.floats(2**-10, 2**20, width=32)


@given(ltrb=st.tuples(_distance, _distance, _distance, _distance))
def test_centerness_laws(ltrb: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = ltrb
    values = centerness_of(
        torch.tensor(
            [
                ltrb,
                (right, top, left, bottom),  # flipped
                (left, bottom, right, top),
                (top, left, bottom, right),  # transposed
                tuple(4 * v for v in ltrb),  # in another unit
            ]
        )
    )
    assert ((values > 0) & (values <= 1)).all()
    assert torch.allclose(values, values[:1].expand(5), rtol=1e-6)
    assert values[0].item() == pytest.approx(reference.centerness(ltrb), rel=1e-5)


def test_centerness_of_nothing() -> None:
    assert centerness_of(torch.empty(0, 4)).shape == (0,)


def test_kinds() -> None:
    assert [name for name, _ in QUALITY_REGISTRY][:2] == ["centerness", "iou"]


def test_centerness_target_ignores_the_prediction() -> None:
    target = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    kind = QUALITY_REGISTRY.get("centerness")
    for pred in (target, target * 7, torch.zeros(1, 4)):
        assert torch.equal(kind(pred, target, IOU_RULES["eps"]), centerness_of(target))


@pytest.mark.parametrize("rule", IOU_RULES)
def test_iou_target_is_the_overlap_without_gradient(rule: str) -> None:
    pred = (torch.rand(50, 4) * 4).requires_grad_()
    target = torch.rand(50, 4) * 4 + 0.1
    overlap = QUALITY_REGISTRY.get("iou")(pred, target, IOU_RULES[rule])
    outward = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    assert not overlap.requires_grad
    assert torch.allclose(overlap, reference.iou(pred.detach() * outward, target * outward, rule), atol=1e-6)
    assert ((overlap >= 0) & (overlap <= 1)).all()
