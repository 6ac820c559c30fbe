"""Distances to the sides of a box, and the overlap of two."""

from __future__ import annotations

import re

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcos_d2.modeling import LTRBCoder
from fcos_d2.modeling.ltrb import IOU_RULES, ltrb_area, ltrb_iou

# A location (20, 12) of stride 8 and a box around it.
XY, STRIDE, BOX = torch.tensor([[20.0, 12.0]]), torch.tensor([8.0]), torch.tensor([[4.0, 8.0, 44.0, 28.0]])


def pairs(count: int = 500, least: float = 0.01) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 4) * 8 + least, torch.rand(count, 4) * 8 + least


def corners(ltrb: Tensor) -> Tensor:
    return ltrb * ltrb.new_tensor([-1, -1, 1, 1])


@pytest.mark.parametrize(("unit", "expected"), [("pixel", [16, 4, 24, 16]), ("stride", [2, 0.5, 3, 2])])
def test_encode_by_hand(unit: str, expected: list[float]) -> None:
    coder = LTRBCoder(unit=unit)
    assert coder.encode(XY, STRIDE, BOX).tolist() == [expected]
    assert coder.decode(XY, STRIDE, torch.tensor([expected])).tolist() == BOX.tolist()


def test_distances_are_negative_outside() -> None:
    outside = LTRBCoder(unit="pixel").encode(torch.tensor([[2.0, 30.0]]), STRIDE, BOX)
    assert outside.tolist() == [[-2, 22, 42, -2]]


_side = st.floats(-4096, 4096, width=32).map(lambda v: round(v * 16) / 16)


@given(
    box=st.tuples(_side, _side, _side, _side),
    xy=st.tuples(_side, _side),
    stride=st.sampled_from([8.0, 16.0, 32.0, 64.0, 128.0]),
    unit=st.sampled_from(["pixel", "stride"]),
)
def test_decode_undoes_encode(box: tuple, xy: tuple, stride: float, unit: str) -> None:
    """Exactly: coordinates are multiples of 1/16 and strides powers of two, so nothing is rounded."""
    coder = LTRBCoder(unit=unit)
    at, scale, boxes = torch.tensor([xy]), torch.tensor([stride]), torch.tensor([box])
    assert torch.equal(coder.decode(at, scale, coder.encode(at, scale, boxes)), boxes)


def test_activations() -> None:
    raw = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    assert LTRBCoder(activation="relu").activate(raw).tolist() == [[0, 0, 1, 2]]
    assert torch.allclose(LTRBCoder(activation="exp").activate(raw), torch.tensor([[0.36788, 1, 2.71828, 7.38906]]))


def test_activation_of_detections() -> None:
    raw = torch.tensor([[-1.0, 0.0, 1.0, 2.0]], dtype=torch.float16)
    same, none = LTRBCoder(), LTRBCoder(inference="raw")
    assert same.detected(raw).tolist() == same.activate(raw).tolist() == none.activate(raw).tolist() == [[0, 0, 1, 2]]
    assert none.detected(raw).tolist() == raw.tolist() and none.detected(raw).dtype == torch.float32
    with pytest.raises(ValueError, match=r"LTRBCoder.inference is 'no', but it must be one of: 'same', 'raw'"):
        LTRBCoder(inference="no")


@pytest.mark.parametrize("activation", ["exp", "relu"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distances_are_float32(activation: str, dtype: torch.dtype) -> None:
    """exp(12) overflows float16: it is taken in float32."""
    out = LTRBCoder(activation=activation).activate(torch.full((1, 4), 12.0, dtype=dtype))
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "softplus"}, "LTRBCoder.activation is 'softplus', but it must be one of: 'exp', 'relu'."),
        ({"unit": "cm"}, "LTRBCoder.unit is 'cm', but it must be one of: 'pixel', 'stride'."),
    ],
)
def test_wrong_options(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LTRBCoder(**arguments)


@pytest.mark.parametrize(
    ("rule", "unit", "expected"),
    [
        # 6 x 6 pixels centred in 8 x 8 at stride 8: in strides, areas are 0.5625 and 1.
        ("plus_one", "stride", (0.5625 + 1) / (1 + 1)),
        ("plus_one_exact", "stride", 0.78125),
        ("plus_one", "pixel", 37 / 65),
        ("eps", "stride", 0.5625),
        ("eps", "pixel", 0.5625),
        ("floor", "pixel", 0.5625),
    ],
)
def test_overlap_by_hand(rule: str, unit: str, expected: float) -> None:
    scale = 8.0 if unit == "stride" else 1.0
    pred, target = torch.full((1, 4), 3.0) / scale, torch.full((1, 4), 4.0) / scale
    overlap, union = ltrb_iou(pred, target, IOU_RULES[rule])
    assert overlap.item() == pytest.approx(expected, abs=1e-6)
    assert union.item() == 64 / scale**2


def test_area() -> None:
    assert ltrb_area(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0, 0, 0, 5]])).tolist() == [24, 0]


@pytest.mark.parametrize("rule", IOU_RULES)
def test_overlap_is_that_of_the_corner_boxes(rule: str) -> None:
    pred, target = pairs()
    ours = ltrb_iou(pred, target, IOU_RULES[rule])[0]
    slow = reference.iou(corners(pred).double(), corners(target).double(), rule)
    assert torch.allclose(ours.double(), slow, atol=1e-6)


@pytest.mark.parametrize("rule", IOU_RULES)
def test_overlap_laws(rule: str) -> None:
    pred, target = pairs()
    overlap, union = ltrb_iou(pred, target, IOU_RULES[rule])
    assert ((overlap > 0) & (overlap <= 1)).all()  # around one point boxes always overlap
    assert torch.equal(overlap, ltrb_iou(target, pred, IOU_RULES[rule])[0])
    assert (union >= torch.maximum(ltrb_area(pred), ltrb_area(target)) * (1 - 1e-6)).all()
    perfect = ltrb_iou(target, target, IOU_RULES[rule])[0]
    assert torch.allclose(perfect, torch.ones_like(perfect), atol=1e-5)
    if rule == "plus_one_exact":
        assert (perfect == 1).all()


@pytest.mark.parametrize("rule", IOU_RULES)
def test_overlap_of_nothing_and_of_no_area(rule: str) -> None:
    assert ltrb_iou(torch.empty(0, 4), torch.empty(0, 4), IOU_RULES[rule])[0].shape == (0,)
    overlap, union = ltrb_iou(torch.zeros(1, 4), torch.zeros(1, 4), IOU_RULES[rule])
    assert union == 0
    assert overlap == (1 if rule.startswith("plus_one") else 0)
