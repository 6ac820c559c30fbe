"""Where the head predicts."""

from __future__ import annotations

import re

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from scenes import CPU, STRIDES, feature_sizes, locations

from fcos_d2.modeling import LocationGrid


def test_cell_centers_row_by_row() -> None:
    at = LocationGrid()([(2, 3)], [8], (16, 24), CPU)
    assert at.xy.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert at.stride.tolist() == [8] * 6
    assert (at.xy.dtype, at.stride.dtype) == (torch.float32, torch.float32)


def test_half_of_an_odd_stride_is_rounded_down() -> None:
    assert LocationGrid()([(1, 2)], [7], (7, 14), CPU).xy.tolist() == [[3, 3], [10, 3]]


def test_levels_follow_each_other() -> None:
    at = LocationGrid()([(2, 3), (1, 2)], [8, 16], (16, 24), CPU)
    assert len(at) == 8 == len(at.xy)
    assert [(level.start, level.end) for level in at.levels] == [(0, 6), (6, 8)]
    assert at.xy[6:].tolist() == [[8, 8], [24, 8]]
    assert at.stride[6:].tolist() == [16, 16]


def test_no_levels() -> None:
    assert len(type(locations())((), torch.empty(0, 2), torch.empty(0))) == 0


def test_corner_grid_has_the_steps_of_torchvision() -> None:
    """The numbers of an 800 x 1088 input: coarse levels step by less than their stride, and unlike in x and y."""
    sizes = [(100, 136), (50, 68), (25, 34), (13, 17), (7, 9)]
    at = LocationGrid(origin="corner")(sizes, STRIDES, (800, 1088), CPU)
    assert [level.step for level in at.levels] == [(8, 8), (16, 16), (32, 32), (64, 61), (120, 114)]
    assert [level.stride for level in at.levels] == list(STRIDES)
    for level in at.levels:
        assert at.xy[level.start].tolist() == [0, 0]
        assert at.xy[level.end - 1].tolist() == [(level.width - 1) * level.step[0], (level.height - 1) * level.step[1]]
    assert at.stride[-1] == 128


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (4, [[2, 2], [6, 2], [2, 6], [6, 6]]),
        (5, [[2, 2], [6, 2], [4, 4], [2, 6], [6, 6]]),
    ],
)
def test_dense_points_of_a_cell_are_together(points: int, expected: list[list[int]]) -> None:
    at = LocationGrid(points_per_cell=points)([(1, 2)], [8], (8, 16), CPU)
    assert at.xy[:points].tolist() == expected
    assert at.xy[points:].tolist() == [[x + 8, y] for x, y in expected]
    assert at.points_per_cell == points


@given(
    image=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    origin=st.sampled_from(["center", "corner"]),
    points=st.sampled_from([1, 4, 5]),
)
def test_equal_to_the_transcription(image: tuple[int, int], origin: str, points: int) -> None:
    padded = tuple(-(-v // 32) * 32 for v in image)
    grid = LocationGrid(origin=origin, points_per_cell=points)
    at = grid(feature_sizes(padded), STRIDES, padded, CPU)
    slow = reference.lay_points(feature_sizes(padded), STRIDES, padded, {"origin": origin, "points_per_cell": points})
    assert at.xy[:, 0].tolist() == slow.x.tolist()
    assert at.xy[:, 1].tolist() == slow.y.tolist()
    assert at.stride.tolist() == slow.stride.tolist()
    assert [i for i, level in enumerate(at.levels) for _ in range(level.size)] == slow.level.tolist()


@given(height=st.integers(1, 400), width=st.integers(1, 400))
def test_every_location_lies_in_its_cell(height: int, width: int) -> None:
    at = locations((height, width))
    for level in at.levels:
        xy = at.xy[level.start : level.end]
        cell = torch.cartesian_prod(torch.arange(level.height), torch.arange(level.width)).flip(1) * level.stride
        assert ((xy > cell) & (xy < cell + level.stride)).all()


def test_laid_once_for_each_size_and_usable_in_training() -> None:
    with torch.inference_mode():
        first = locations((72, 104))
    second = locations((72, 104))
    assert first.xy is second.xy
    factor = torch.ones((), requires_grad=True)
    (second.xy * factor).sum().backward()  # tensors made in inference mode would refuse
    assert factor.grad == second.xy.sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"origin": "top"}, "LocationGrid.origin is 'top', but it must be one of: 'center', 'corner'."),
        ({"points_per_cell": 2}, "LocationGrid.points_per_cell is 2, but it must be 1, 4 or 5."),
    ],
)
def test_wrong_options(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LocationGrid(**arguments)


def test_as_many_strides_as_maps() -> None:
    with pytest.raises(ValueError, match=r"^1 feature maps, but 2 strides \(8, 16\)\.$"):
        LocationGrid()([(1, 1)], [8, 16], (8, 8), CPU)
