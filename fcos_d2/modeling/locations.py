"""Where a head predicts: feature sizes -> locations (arXiv:1904.01355, Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from ..options import one_of, option
from ..structures import Level, Locations, sent

# Points of a cell as multiples of floor(stride / 4) from the cell's centre (FCOS_PLUS's DENSE_POINTS, in its order).
POINTS = {1: ((0, 0),), 4: ((-1, -1), (1, -1), (-1, 1), (1, 1)), 5: ((-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1))}


@dataclass(frozen=True)
class LocationGrid:
    """Makes the locations of a feature pyramid.

    Attributes:
        origin: "center" puts a location at `floor(s/2) + s * (column, row)`, as every published FCOS but
            one does. "corner" is torchvision's: no offset, and the step of each axis is the padded input size // the
            feature size, which on coarse levels is less than the stride.
        points_per_cell: 1, or 4 or 5 for FCOS_PLUS's dense points.
    """

    origin: str = option("center", key="LOCATION_ORIGIN")
    points_per_cell: int = option(1, key="DENSE_POINTS")

    def __post_init__(self) -> None:
        one_of("LocationGrid.origin", self.origin, ("center", "corner"))
        if self.points_per_cell not in POINTS:
            raise ValueError(f"LocationGrid.points_per_cell is {self.points_per_cell!r}, but it must be 1, 4 or 5.")

    def __call__(
        self,
        sizes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        image_size: tuple[int, int],
        device: torch.device,
    ) -> Locations:
        """Make the locations of one batch.

        Args:
            sizes: (height, width) of each feature map, finest first.
            strides: nominal stride of each level, pixels.
            image_size: (height, width) of the padded network input, pixels.
            device: where the tensors live.
        Raises:
            ValueError: as many strides as feature maps are needed.
        """
        if len(sizes) != len(strides):
            raise ValueError(f"{len(sizes)} feature maps, but {len(strides)} strides {tuple(strides)}.")
        sizes = tuple((int(h), int(w)) for h, w in sizes)
        height, width = image_size
        return _lay(self, sizes, tuple(int(s) for s in strides), (int(height), int(width)), device)


# Batches repeat their few sizes: keep the tensors instead of making them at every step.
@lru_cache(maxsize=32)
def _lay(grid: LocationGrid, sizes, strides, image_size, device) -> Locations:
    levels, xy, stride_of = [], [], []
    start = 0
    for (height, width), stride in zip(sizes, strides):
        if grid.origin == "center":
            step, origin = (float(stride), float(stride)), float(stride // 2)
        else:
            step, origin = ((float(image_size[1] // width), float(image_size[0] // height)), 0.0)
        quarter = stride // 4
        points = tuple((origin + dx * quarter, origin + dy * quarter) for dx, dy in POINTS[grid.points_per_cell])
        level = Level(stride, height, width, step, points, start)
        with torch.inference_mode(False):  # cached tensors must serve training after inference
            corner = sent(torch.tensor(points, dtype=torch.float32), device)  # (D, 2)
            x = torch.arange(width, dtype=torch.float32, device=device) * step[0]
            y = torch.arange(height, dtype=torch.float32, device=device) * step[1]
            cell = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=2)  # (Hi, Wi, 2)
            xy.append((cell[:, :, None] + corner).reshape(-1, 2))
            stride_of.append(torch.full((level.size,), float(stride), device=device))
        levels.append(level)
        start = level.end
    with torch.inference_mode(False):
        return Locations(tuple(levels), torch.cat(xy), torch.cat(stride_of))
