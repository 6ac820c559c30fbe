"""Where targets are assigned: by hand, by law, and against the full matrices of the slow transcription."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scenes import CPU, STRIDES, locations, points_of, random_boxes
from torch import Tensor

from fcos_d2.modeling import LocationGrid, PointAssigner
from fcos_d2.modeling.assigner import size_ranges_from_upper_ends
from fcos_d2.structures import Locations

RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf))
ANY_SIZE = ((-1.0, math.inf),)
ONE_LEVEL = LocationGrid()([(4, 4)], [8], (32, 32), CPU)


def assign(at: Locations, boxes: list | Tensor, **options: Any) -> Tensor:
    """(R,) box of each location of one image."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return PointAssigner(**options)(at, boxes, torch.zeros(len(boxes), dtype=torch.int64), 1)[0]


def slow(at: Locations, boxes: Tensor, **options: Any) -> Tensor:
    return torch.from_numpy(reference.assign(points_of(at), boxes.numpy(), {"size_ranges": RANGES, **options}))


def maps(index: Tensor, at: Locations) -> list[Tensor]:
    """(R,) -> a (Hi, Wi) map for each level."""
    return [index[v.start : v.end].view(v.height, v.width) for v in at.levels]


# ------------------------------------------------------------------------------------------------------------ by hand
def test_every_location_in_the_box_without_center_sampling() -> None:
    index = assign(ONE_LEVEL, [[0, 0, 20, 32]], size_ranges=ANY_SIZE, center_radius=0.0)
    # Columns lie at 4, 12, 20, 28: the third lies on the side, which is not inside.
    assert index.view(4, 4).tolist() == [[0, 0, -1, -1]] * 4


@pytest.mark.parametrize(
    ("radius", "columns"),
    [
        (0.4, []),  # 3.2 pixels around 16: nothing there
        (0.51, [12, 20]),
        (1.5, [12, 20]),  # 4 and 28 are exactly 1.5 strides away, which is not less
        (1.51, [4, 12, 20, 28]),
    ],
)
def test_center_square(radius: float, columns: list[int]) -> None:
    index = assign(ONE_LEVEL, [[0, 0, 32, 32]], size_ranges=ANY_SIZE, center_radius=radius)
    assert sorted({ONE_LEVEL.xy[r, 0].item() for r in (index == 0).nonzero().flatten()}) == columns
    assert (index == 0).sum() == len(columns) ** 2


def test_center_square_is_cut_by_the_box() -> None:
    """A flat box: the square reaches over it, the positives do not."""
    index = assign(ONE_LEVEL, [[0, 10, 32, 14]], size_ranges=ANY_SIZE)
    assert index.view(4, 4).tolist() == [[-1] * 4, [-1, 0, 0, -1], [-1] * 4, [-1] * 4]


@pytest.mark.parametrize(("ends", "expected"), [("closed", [0, 0]), ("open", [-1, -1])])
def test_a_distance_on_the_end_of_two_ranges(ends: str, expected: list[int]) -> None:
    """Stride 8 and 16 both have a location at most 64 from each side; exactly 64 suits both levels, or none."""
    at = LocationGrid()([(2, 2), (1, 1)], [8, 16], (16, 16), CPU)
    ranges = ((-1.0, 64.0), (64.0, 128.0))
    index = assign(at, [[-52, 3, 72, 9]], size_ranges=ranges, range_ends=ends, center_radius=0.0)
    fine, coarse = maps(index, at)
    assert at.xy[0].tolist() == [4, 4]  # 68 to the right side
    assert fine[0, 1] == expected[0]  # at x = 12: 64 to the left, 60 to the right
    assert coarse[0, 0] == expected[1]  # at x = 8: 60 to the left, 64 to the right


def test_the_whole_box_decides_the_level() -> None:
    """Center sampling or not, what is compared with the range is the distance to the farthest side of the whole box."""
    at = locations((512, 512))
    level_of = {40: 0, 80: 1, 160: 2, 320: 3, 600: 4}
    for half, level in level_of.items():
        index = assign(at, [[260 - half, 260 - half, 260 + half, 260 + half]])
        found = {i for i, values in enumerate(maps(index, at)) if (values >= 0).any()}
        assert found == {level}


def test_the_smallest_box_wins() -> None:
    boxes = [[0, 0, 32, 32], [1, 1, 15, 15], [0, 0, 30, 30]]
    index = assign(ONE_LEVEL, boxes, size_ranges=ANY_SIZE, center_radius=0.0).view(4, 4)
    assert index.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]]


def test_of_equal_areas_the_lower_row() -> None:
    boxes = [[0, 0, 32, 16], [0, 0, 16, 32], [0, 0, 16, 32]]
    index = assign(ONE_LEVEL, boxes, size_ranges=ANY_SIZE, center_radius=0.0).view(4, 4)
    assert index.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, -1, -1], [1, 1, -1, -1]]


@pytest.mark.parametrize(("area", "winner"), [("plain", 1), ("plus_one", 0)])
def test_area_conventions_disagree(area: str, winner: int) -> None:
    """10 x 10 against 1 x 99: 100 against 99 square pixels, or 121 against 200."""
    at = LocationGrid()([(1, 1)], [8], (8, 8), CPU)
    boxes = [[-1, -1, 9, 9], [3.5, -45, 4.5, 54]]
    index = assign(at, boxes, size_ranges=ANY_SIZE, center_radius=1.5, area=area)
    assert index.tolist() == [winner]


def test_boxes_of_no_size_claim_nothing() -> None:
    boxes = [[4, 4, 4, 4], [0, 4, 32, 4], [4, 0, 4, 32], [20, 20, 4, 4], [30, 0, 2, 32]]
    assert (assign(ONE_LEVEL, boxes, size_ranges=ANY_SIZE, center_radius=0.0) == -1).all()


def test_boxes_over_the_border() -> None:
    boxes = [[-100, -100, 8, 8], [24, 24, 500, 500], [40, 40, 60, 60], [-60, -60, -40, -40]]
    index = assign(ONE_LEVEL, boxes, size_ranges=ANY_SIZE, center_radius=0.0).view(4, 4)
    assert index[0, 0] == 0
    assert index[3, 3] == 1
    assert (index >= 0).sum() == 2


def test_images_do_not_meet() -> None:
    """Four images, one without boxes; the rows are those of the whole batch."""
    boxes = torch.tensor([[0.0, 0, 32, 32], [0, 0, 16, 16], [16, 16, 32, 32]])
    assigner = PointAssigner(size_ranges=ANY_SIZE, center_radius=0.0)
    index = assigner(ONE_LEVEL, boxes, torch.tensor([3, 0, 3]), 4).view(4, 4, 4)
    assert (index[0, :2, :2] == 1).all()
    assert (index[0] >= 0).sum() == 4
    assert (index[1:3] == -1).all()
    assert (index[3, 2:, 2:] == 2).all()
    assert (index[3] == 0).sum() == 12


def test_no_boxes_at_all() -> None:
    empty = torch.empty(0, dtype=torch.int64)
    index = PointAssigner(size_ranges=ANY_SIZE)(ONE_LEVEL, torch.empty(0, 4), empty, 2)
    assert index.dtype == torch.int64
    assert index.tolist() == [[-1] * 16] * 2


def test_the_center_square_counts_in_nominal_strides_on_a_shrunken_grid() -> None:
    """torchvision's coarse levels step by less than their stride: more cells are in the square than 2 * radius + 1."""
    grid = LocationGrid(origin="corner")
    at = grid([(7, 9)], [128], (800, 1088), CPU)
    index = assign(at, [[300.0, 200, 660, 560]], size_ranges=ANY_SIZE)
    assert (index >= 0).sum() > 0
    assert torch.equal(index, slow(at, torch.tensor([[300.0, 200, 660, 560]]), size_ranges=ANY_SIZE))


# --------------------------------------------------------------------------------- what the originals got wrong
def test_a_first_box_centred_at_zero_keeps_all_positives() -> None:
    """The original takes a sum of the first box's centre x of 0 for "there are no boxes" and drops every positive."""
    at = locations((256, 256))
    boxes = torch.tensor([[-40.0, 20, 40, 100], [96, 96, 140, 140]])
    index = assign(at, boxes)
    assert (index == 0).any()
    assert (index == 1).any()
    assert torch.equal(index, slow(at, boxes))


def test_images_without_boxes_do_not_crash() -> None:
    """The originals take the minimum over an empty axis."""
    at = locations((64, 64))
    with_one = PointAssigner()(at, torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([1]), 2)
    assert (with_one[0] == -1).all()
    assert (with_one[1] == 0).any()


def test_annotation_order_does_not_decide_near_ties() -> None:
    """Areas a hundredth of a square pixel apart, which 1e8 - area in float32 takes for equal up to 8 square pixels."""
    at = locations((256, 256))
    sides = [100.0 + i * 2**-13 for i in range(6)]
    boxes = torch.tensor([[128 - s / 2, 128 - 50, 128 + s / 2, 128 + 50] for s in sides])
    areas = (boxes[:, 2] - boxes[:, 0]).double() * 100
    assert areas.diff().abs().max() < 0.02
    for order in (range(6), reversed(range(6)), [3, 5, 0, 2, 4, 1]):
        order = list(order)
        index = assign(at, boxes[order])
        assert set(index.tolist()) == {-1, order.index(0)}


# ---------------------------------------------------------------------------------------------------------------- laws
def distinct_areas(boxes: Tensor) -> bool:
    side = (boxes[:, 2:] - boxes[:, :2]).double()
    return len(set(side.prod(1).tolist())) == len(boxes)


# Quarters of a pixel: every difference is exact, and distances meet the ends of ranges and the sides of squares often.
_at = st.integers(-100, 1400).map(lambda v: v / 4)
_box = st.tuples(_at, _at, st.integers(1, 1600), st.integers(1, 1600)).map(
    lambda v: (v[0], v[1], v[0] + v[2] / 4, v[1] + v[3] / 4)
)
_boxes = st.lists(_box, min_size=1, max_size=12).map(lambda v: torch.tensor(v, dtype=torch.float32))
_options = st.fixed_dictionaries(
    {
        "range_ends": st.sampled_from(["closed", "open"]),
        "center_radius": st.sampled_from([0.0, 0.75, 1.5, 2.25]),
        "area": st.sampled_from(["plain", "plus_one"]),
    }
)
_grids = st.builds(
    LocationGrid, origin=st.sampled_from(["center", "corner"]), points_per_cell=st.sampled_from([1, 4, 5])
)


@given(boxes=_boxes, options=_options, grid=_grids, size=st.tuples(st.integers(1, 11), st.integers(1, 11)))
def test_equal_to_the_full_matrices(
    boxes: Tensor, options: dict[str, Any], grid: LocationGrid, size: tuple[int, int]
) -> None:
    at = locations((32 * size[0], 32 * size[1]), grid=grid)
    index = assign(at, boxes, **options)
    assert torch.equal(index, slow(at, boxes, **options))
    assert (index >= 0).sum() <= PointAssigner(**options).max_positives(at, len(boxes), 1)


@given(boxes=_boxes, options=_options, seed=st.integers(0, 2**31))
def test_permuted_boxes_permute_the_result(boxes: Tensor, options: dict[str, Any], seed: int) -> None:
    side = (boxes[:, 2:] - boxes[:, :2]).double()
    assume(distinct_areas(boxes))
    assume(len(set((side + 1).prod(1).tolist())) == len(boxes))
    at = locations((256, 352))
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
    index, permuted = assign(at, boxes, **options), assign(at, boxes[order], **options)
    assert torch.equal(torch.where(permuted >= 0, order[permuted.clamp(min=0)], -1), index)


@given(boxes=_boxes, options=_options, dx=st.integers(0, 2), dy=st.integers(0, 2))
def test_shifted_boxes_shift_the_result(boxes: Tensor, options: dict[str, Any], dx: int, dy: int) -> None:
    """By whole cells of the coarsest level, as far as both maps see."""
    at = locations((1024, 1024))
    before = maps(assign(at, boxes, **options), at)
    moved = boxes + torch.tensor([dx, dy, dx, dy]) * 128.0
    after = maps(assign(at, moved, **options), at)
    for level, was, now in zip(at.levels, before, after):
        right, down = dx * 128 // level.stride, dy * 128 // level.stride
        assert torch.equal(now[down:, right:], was[: level.height - down, : level.width - right])


@given(boxes=_boxes, options=_options)
def test_flipped_and_transposed_boxes(boxes: Tensor, options: dict[str, Any]) -> None:
    assume(distinct_areas(boxes))
    at = locations((384, 384))
    index = maps(assign(at, boxes, **options), at)
    x0, y0, x1, y1 = boxes.unbind(1)
    flipped = maps(assign(at, torch.stack((384 - x1, y0, 384 - x0, y1), 1), **options), at)
    transposed = maps(assign(at, torch.stack((y0, x0, y1, x1), 1), **options), at)
    for was, mirrored, turned in zip(index, flipped, transposed):
        assert torch.equal(mirrored, was.flip(1))
        assert torch.equal(turned, was.T)


@given(boxes=_boxes, options=_options, grid=_grids)
def test_positives_lie_in_their_boxes_and_ranges(boxes: Tensor, options: dict[str, Any], grid: LocationGrid) -> None:
    at = locations((256, 256), grid=grid)
    index = assign(at, boxes, **options)
    level = torch.from_numpy(points_of(at).level)
    found = (index >= 0).nonzero().flatten()
    own, xy = boxes[index[found]], at.xy[found]
    sides = torch.cat((xy - own[:, :2], own[:, 2:] - xy), 1)
    assert (sides > 0).all()
    low, high = torch.tensor(RANGES)[level[found]].unbind(1)
    farthest = sides.max(1).values
    assert ((farthest >= low) & (farthest <= high)).all()
    if options["center_radius"]:
        center = (own[:, :2] + own[:, 2:]) / 2
        assert ((xy - center).abs().max(1).values < options["center_radius"] * at.stride[found]).all()


@given(data=st.data())
def test_a_box_whose_centre_has_a_location_is_not_lost(data: st.DataObject) -> None:
    """Alone in the image, a box around a location is found, if the size range lets that level answer for it."""
    at = locations((512, 512))
    level = data.draw(st.sampled_from(range(5)))
    r = data.draw(st.integers(at.levels[level].start, at.levels[level].end - 1))
    low, high = RANGES[level]
    half = data.draw(st.floats(max(low, 0) + 1, min(high, 4096.0) - 1, width=32))
    x, y = at.xy[r].tolist()
    assert assign(at, [[x - half, y - half, x + half, y + half]])[r] == 0


@given(
    logs=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=10),
    centers=st.lists(st.tuples(st.floats(0, 256), st.floats(0, 256)), min_size=10, max_size=10),
    radius=st.sampled_from([0.0, 1.5]),
)
def test_areas_from_one_to_a_million_million(
    logs: list[tuple[float, float]], centers: list[tuple[float, float]], radius: float
) -> None:
    """Sides from 1 to 2^20 pixels, anywhere: nothing is lost or mixed up, whatever the sizes."""
    side = 2 ** torch.tensor(logs)
    center = torch.tensor(centers[: len(logs)])
    boxes = torch.cat((center - side / 2, center + side / 2), 1)
    at = locations((256, 256))
    assert torch.equal(assign(at, boxes, center_radius=radius), slow(at, boxes, center_radius=radius))


@pytest.mark.parametrize("side", [2**10, 2**13, 2**20])
def test_one_square_pixel_decides(side: int) -> None:
    """(s - 1) * (s + 1) is one less than s * s: from 2^24 on float32 cannot tell them apart."""
    at = locations((256, 256))
    halves = [(side / 2, side / 2), ((side - 1) / 2, (side + 1) / 2)]
    boxes = torch.tensor([[128 - w, 128 - h, 128 + w, 128 + h] for w, h in halves])
    assert ((boxes[:, 2:] - boxes[:, :2]).double().prod(1)).diff() == -1
    assert set(assign(at, boxes).tolist()) == {-1, 1}
    assert set(assign(at, boxes.flip(0)).tolist()) == {-1, 0}


@pytest.mark.parametrize("side", [1.5e4, 1e5, 1e6])
def test_boxes_over_a_hundred_million_square_pixels(side: float) -> None:
    at = locations((256, 256))
    index = assign(at, [[128 - side, 128 - side, 128 + side, 128 + side]], center_radius=0.0)
    assert [int((v >= 0).sum()) for v in maps(index, at)] == [0, 0, 0, 0, 4]


def random_scenes(count: int, most: int, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(count, most, 4) boxes and how many of them are real: on quarters of a pixel, on pixels or anywhere; one of eight
    scenes also has a box of no size, and one of eight an enormous one."""
    boxes = random_boxes(count * most, image_size).view(count, most, 4)
    grain = torch.tensor([0.25, 1.0, 0.0, 0.0]).repeat(count)[:count].view(-1, 1, 1)
    boxes = torch.where(grain > 0, (boxes / grain.clamp(min=0.25)).round() * grain, boxes)
    boxes[::8, 0, 2:] = boxes[::8, 0, :2]
    boxes[4::8, 0] = torch.tensor([-4e5, -6e5, 5e5, 4e5])
    return boxes, torch.randint(0, most + 1, (count,))


@pytest.mark.parametrize("rounds", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_random_scenes(rounds: int) -> None:
    """25 scenes a round under each of 20 combinations of options, on many sizes of image: some thousands, or ten.

    25 scenes are one batch and one call, so that images cannot be mixed up either.
    """
    combinations = list(itertools.product(["closed", "open"], [0.0, 1.5], ["plain", "plus_one"], ["center", "corner"]))
    combinations += [("closed", 0.7, "plain", "center"), ("open", 2.5, "plus_one", "corner")] * 2
    scenes, positives = 0, 0
    for number, (ends, radius, area, origin) in enumerate(combinations * rounds):
        height, width = torch.randint(1, 161, (2,)).tolist()
        points = (1, 1, 1, 4, 5)[number % 5]
        options = {"range_ends": ends, "center_radius": radius, "area": area}
        at = locations((height, width), grid=LocationGrid(origin=origin, points_per_cell=points))
        boxes, counts = random_scenes(25, 9, (height, width))
        real = torch.arange(9) < counts[:, None]
        image, row = real.nonzero().unbind(1)
        index = PointAssigner(**options)(at, boxes[image, row], image, len(boxes))
        expected = reference.assign(points_of(at), boxes.numpy(), {"size_ranges": RANGES, **options}, real.numpy())
        first = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)[:-1]))
        expected = np.where(expected >= 0, expected + first[:, None].numpy(), -1)
        assert np.array_equal(index.numpy(), expected)
        scenes, positives = scenes + len(boxes), positives + int((index >= 0).sum())
    assert scenes == 500 * rounds
    assert positives > 20 * scenes


# ------------------------------------------------------------------------------------------------------------- options
def test_lists_become_tuples() -> None:
    from omegaconf import OmegaConf

    given_as = OmegaConf.create({"size_ranges": [[-1, 64], [64, 1000]]}).size_ranges
    assert PointAssigner(size_ranges=given_as).size_ranges == ((-1, 64), (64, 1000))


def test_size_ranges_from_upper_ends() -> None:
    assert size_ranges_from_upper_ends((64, 128, 256, 512)) == RANGES
    assert size_ranges_from_upper_ends((64, 128)) == ((-1.0, 64.0), (64.0, 128.0), (128.0, math.inf))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range_ends": "half"}, "PointAssigner.range_ends is 'half', but it must be one of: 'closed', 'open'."),
        ({"area": "log"}, "PointAssigner.area is 'log', but it must be one of: 'plain', 'plus_one'."),
        ({"center_radius": -1.0}, "PointAssigner.center_radius is -1.0, but it must be 0 or more strides."),
        (
            {"size_ranges": ((64, 64),)},
            "PointAssigner.size_ranges holds (64, 64): the first must be the smaller.",
        ),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PointAssigner(**options)


def test_as_many_size_ranges_as_levels() -> None:
    with pytest.raises(
        ValueError, match=r"^PointAssigner has 5 size ranges, but the head predicts on 1 levels: give one"
    ):
        assign(ONE_LEVEL, [[0, 0, 8, 8]])


def test_the_bound_is_known_without_the_boxes() -> None:
    at = locations((800, 1216))
    assert len(STRIDES) == len(at.levels)
    # With center sampling at most 4 x 4 cells of each level; never more than there are locations.
    assert PointAssigner().max_positives(at, 7, 8) == 7 * 5 * 16
    assert PointAssigner().max_positives(at, 10**6, 2) == 2 * len(at)
    assert PointAssigner().max_positives(at, 0, 2) == 0
