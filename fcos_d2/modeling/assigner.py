"""Where targets are assigned: each location answers for at most one box (arXiv:1904.01355, Sec. 3.1 and 3.2).

No (boxes x locations) matrix is built. A box can only claim locations in a small window of each level: center sampling
limits it by the center radius, the size range by its upper end. Only the windows are tested, for all boxes, levels and
images of the batch at once; that the smallest box wins is one scatter of ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import torch
from fvcore.common.registry import Registry
from torch import Tensor

from ..options import as_tuple, one_of, option
from ..structures import Level, Locations, sent

ASSIGNER_REGISTRY = Registry("FCOS_ASSIGNER")
ASSIGNER_REGISTRY.__doc__ = """Classes whose objects are called like `PointAssigner`."""

# A window starts this fraction of a cell early, so that rounding never loses a location; the exact test follows.
_SLACK = 1e-3
# Boxes whose windows are tested at a time, so that the temporaries stay small and mostly in the cache.
_BOXES = 2048


class Assigner(Protocol):
    """What `DenseFCOS` asks of an assigner."""

    def __call__(self, locations: Locations, boxes: Tensor, image: Tensor, num_images: int) -> Tensor: ...

    def max_positives(self, locations: Locations, num_boxes: int, num_images: int) -> int: ...


@ASSIGNER_REGISTRY.register()
@dataclass(frozen=True)
class PointAssigner:
    """FCOS's rule: a location takes the smallest box that it lies in and that suits its level.

    Attributes:
        size_ranges: (low, high) pixels of max(l, t, r, b) for each level, finest first.
        range_ends: "closed" counts both ends in (all but two published versions); "open" counts neither
            (Detectron2, torchvision), so that a distance of exactly 64 suits no level.
        center_radius: half side, in strides, of the square around a box's centre that is positive; 0 for the whole box.
        area: "plain" compares `w * h`; "plus_one" `(w + 1) * (h + 1)`, as the original FCOS and FCOS_PLUS do. Areas are
            float64, so boxes of any size are told apart and the order of annotations decides only exact ties.
    """

    size_ranges: tuple[tuple[float, float], ...] = option(
        ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf))
    )
    range_ends: str = option("closed", key="SIZE_RANGE_ENDS")
    center_radius: float = option(1.5)
    area: str = option("plain", key="BOX_AREA")

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_ranges", as_tuple(self.size_ranges))
        one_of("PointAssigner.range_ends", self.range_ends, ("closed", "open"))
        one_of("PointAssigner.area", self.area, ("plain", "plus_one"))
        if self.center_radius < 0:
            raise ValueError(f"PointAssigner.center_radius is {self.center_radius}, but it must be 0 or more strides.")
        for low, high in self.size_ranges:
            if not low < high:
                raise ValueError(f"PointAssigner.size_ranges holds ({low}, {high}): the first must be the smaller.")

    def __call__(self, locations: Locations, boxes: Tensor, image: Tensor, num_images: int) -> Tensor:
        """Give each location at most one box, the smallest that claims it.

        Args:
            locations: R locations, float32 pixels.
            boxes: (M, 4) xyxy pixels of the whole batch, float32; M may be 0.
            image: (M,) int64, the image each box belongs to.
            num_images: N.
        Returns:
            (N, R) int64 row of `boxes`, -1 for background; on equal areas the lower row.
        Raises:
            ValueError: the number of size ranges is not the number of levels.
        """
        if len(self.size_ranges) != len(locations.levels):
            raise ValueError(
                f"PointAssigner has {len(self.size_ranges)} size ranges, but the head predicts on "
                f"{len(locations.levels)} levels: give one (low, high) pair for each level."
            )
        num_boxes, num_locations = len(boxes), len(locations)
        if num_boxes == 0:
            return image.new_full((num_images, num_locations), -1)
        order = self._areas(boxes).argsort(stable=True)  # rank -> row
        rank = torch.empty_like(order, dtype=torch.int32)
        rank[order] = torch.arange(num_boxes, dtype=torch.int32, device=boxes.device)
        # An extra slot after the locations takes what the tests reject, so that no shape depends on the data.
        nowhere = num_images * num_locations
        winner = rank.new_full((nowhere + 1,), num_boxes)
        base = image * num_locations
        make = _group_windows if torch.compiler.is_compiling() else _kept_windows  # the compiler keeps constants itself
        for windows in make(self, locations.levels, boxes.device, boxes.dtype):
            for some_boxes, some_base, some_rank in zip(boxes.split(_BOXES), base.split(_BOXES), rank.split(_BOXES)):
                slot = self._claims(windows, some_boxes, some_base, nowhere).flatten(1)
                winner.scatter_reduce_(0, slot.flatten(), some_rank.view(-1, 1).expand_as(slot).flatten(), "amin")
        order = torch.cat((order, order.new_full((1,), -1)))  # the rank of "nobody" is M
        return torch.index_select(order, 0, winner[:-1]).view(num_images, num_locations)

    def max_positives(self, locations: Locations, num_boxes: int, num_images: int) -> int:
        """A bound on the number of positives that is known without looking at the data."""
        cells = sum(math.prod(self._window(i, level)) * len(level.points) for i, level in enumerate(locations.levels))
        return min(num_boxes * cells, num_images * len(locations))

    def _areas(self, boxes: Tensor) -> Tensor:
        """(M, 4) -> (M,) float64 areas that rank boxes, square pixels."""
        side = boxes[:, 2:].double() - boxes[:, :2].double()
        return (side + 1 if self.area == "plus_one" else side).prod(dim=1)

    def _window(self, index: int, level: Level) -> tuple[int, int]:
        """Most (columns, rows) of a level that one box can claim."""
        reach = min(
            2 * self.center_radius * level.stride if self.center_radius else math.inf, self.size_ranges[index][1]
        )
        across, down = (
            min(cells, math.floor(reach / step + 2 * _SLACK) + 1) if math.isfinite(reach) else cells
            for cells, step in zip((level.width, level.height), level.step)
        )
        return across, down

    def _claims(self, windows: _Windows, boxes: Tensor, base: Tensor, nowhere: int) -> Tensor:
        """Slots that boxes claim on levels with equal windows (G levels, D points, Kx columns, Ky rows)."""
        # One axis beside the other is half of the operators; each test of one axis alone is made on the small tensors.
        cell, rejected, small = self._axes(windows, boxes)
        (x, y), (no_x, no_y), (small_x, small_y) = (
            (of[:, 0, :, :, : windows.size[0]].unsqueeze(-2), of[:, 1, :, :, : windows.size[1]].unsqueeze(-1))
            for of in (cell, rejected, small)
        )  # (M, G, D, 1, Kx) and (M, G, D, Ky, 1)
        # What depends on the row alone is summed first: large tensors are passed over once.
        first = windows.first_slot.unsqueeze(-1) + base.view(-1, 1, 1, 1, 1)
        slot = torch.addcmul(first, y, windows.row_length.unsqueeze(-1))
        slot = slot + (x * windows.points if windows.points > 1 else x)
        return slot.masked_fill_((small_x & small_y).logical_or_(no_y).logical_or_(no_x), nowhere)

    def _axes(self, windows: _Windows, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both axes of the windows; the three results are (M, 2, G, D, the larger of Kx and Ky).

        Returns:
            int64 columns and rows; whether no location there suits the box; whether the farther side of the box is too
            near for the level, which takes the other axis to tell.
        """
        low, high = boxes.view(-1, 2, 2, 1, 1, 1).unbind(1)  # (M, 2, 1, 1, 1)
        # 1. where the window starts: inside the box, and near enough to its far side for the size range
        first = torch.maximum(low, high - windows.high)
        if self.center_radius:
            center = (low + high) / 2
            first = torch.maximum(first, center - windows.radius)
        # 2. its cells; where it would leave the map it is moved inside, which loses nothing
        first = ((first - windows.origin) / windows.step - _SLACK).ceil()
        first = torch.minimum(first.clamp(min=0), windows.last_start)
        cell = first + windows.cells
        # 3. the exact tests
        at = cell * windows.step + windows.origin
        near_side, far_side = at - low, high - at
        suits = torch.minimum(near_side, far_side) > 0
        if self.center_radius:
            suits &= (at - center).abs() < windows.radius
        far = torch.maximum(near_side, far_side)
        closed = self.range_ends == "closed"
        suits &= (far <= windows.high) if closed else (far < windows.high)
        return cell.long(), suits.logical_not_(), (far < windows.low) if closed else (far <= windows.low)


@dataclass(frozen=True)
class _Windows:
    """Constants of G neighbouring levels whose windows have one size; the two of an axis are x and y.

    Attributes:
        low, high: (G, 1, 1) size ranges, pixels.
        radius: (G, 1, 1) center radius, pixels.
        step: (2, G, 1, 1), pixels between neighbouring cells.
        origin: (2, G, D, 1), pixels from the image's corner to the points of cell 0.
        last_start: (2, G, 1, 1), the last cell at which a window fits into the map.
        size: Kx columns and Ky rows of a window.
        cells: (the larger of Kx and Ky,), 0, 1, 2, ...
        row_length: (G, 1, 1) int64, locations in a row of the map.
        first_slot: (G, D, 1) int64, locations before the points of cell (0, 0).
        points: D.
    """

    low: Tensor
    high: Tensor
    radius: Tensor
    step: Tensor
    origin: Tensor
    last_start: Tensor
    size: tuple[int, int]
    cells: Tensor
    row_length: Tensor
    first_slot: Tensor
    points: int


def _group_windows(
    assigner: PointAssigner, levels: tuple[Level, ...], device: torch.device, dtype: torch.dtype
) -> list[_Windows]:
    """The constants of all levels; neighbouring levels whose windows have one size form a group."""
    groups: list[tuple[tuple[int, int], list[tuple[int, Level]]]] = []
    for pair in enumerate(levels):
        size = assigner._window(*pair)
        if not groups or groups[-1][0] != size:
            groups.append((size, []))
        groups[-1][1].append(pair)
    return [_windows_of(assigner, group, size, device, dtype) for size, group in groups]


def _windows_of(
    assigner: PointAssigner,
    levels: list[tuple[int, Level]],
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> _Windows:
    def numbers(values: list, dtype: torch.dtype = dtype) -> Tensor:
        return sent(torch.tensor(values, dtype=dtype), device)

    ranges = numbers([assigner.size_ranges[i] for i, _ in levels])  # (G, 2)
    points = len(levels[0][1].points)
    return _Windows(
        low=ranges[:, 0].view(-1, 1, 1),
        high=ranges[:, 1].view(-1, 1, 1),
        radius=numbers([[[assigner.center_radius * level.stride]] for _, level in levels]),
        step=numbers([[[[level.step[axis]]] for _, level in levels] for axis in (0, 1)]),
        origin=numbers([[[[point[axis]] for point in level.points] for _, level in levels] for axis in (0, 1)]),
        last_start=numbers(
            [[[[(level.width, level.height)[axis] - size[axis]]] for _, level in levels] for axis in (0, 1)]
        ),
        size=size,
        cells=torch.arange(max(size), dtype=dtype, device=device),
        row_length=numbers([[[level.width * points]] for _, level in levels], torch.int64),
        first_slot=numbers([[[level.start + p] for p in range(points)] for _, level in levels], torch.int64),
        points=points,
    )


# Batches repeat their few sizes. What is kept must serve training after inference.
_kept_windows = lru_cache(maxsize=32)(torch.inference_mode(False)(_group_windows))


def size_ranges_from_upper_ends(upper_ends: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """AdelaiDet's SIZES_OF_INTEREST -> size ranges: (64, 128) -> ((-1, 64), (64, 128), (128, inf))."""
    ends = (-1.0, *(float(e) for e in upper_ends), math.inf)
    return tuple(pairwise(ends))
