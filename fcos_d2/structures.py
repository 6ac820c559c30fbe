"""What travels between the parts of FCOS.

Shape letters, here and in every other module:

    N  images of a batch              L  levels, finest first
    R  locations of one image, all levels concatenated (level by level; row by row; the points of one cell together)
    M  ground-truth boxes of the batch
    P  positives, or candidates: (image, location) pairs
    K  classes                        D  points in a cell (1 but for FCOS_PLUS's dense points)
    Hi, Wi  height and width of the feature map of level i
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device. A GPU fetches them from page-locked memory; a plain copy would wait until it is idle."""
    if device.type != "cuda" or torch.compiler.is_compiling():
        return values.to(device)
    if values.device.type == "cpu" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


@dataclass(frozen=True)
class Level:
    """The locations of one feature map: a regular grid with D points in each cell.

    Attributes:
        stride: nominal stride in pixels: the unit of normalised distances, size ranges and center radius.
        height, width: cells.
        step: (x, y) pixels between neighbouring cells. Differs from the stride only in torchvision's grid.
        points: D pairs (x, y): pixels from the image's corner to the points of cell (0, 0).
        start: number of locations on all finer levels.
    """

    stride: int
    height: int
    width: int
    step: tuple[float, float]
    points: tuple[tuple[float, float], ...]
    start: int

    @property
    def size(self) -> int:
        """Number of locations of this level."""
        return self.height * self.width * len(self.points)

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Locations:
    """Where a head predicts.

    Attributes:
        levels: the grids, finest first.
        xy: (R, 2) float32, pixels of the network input.
        stride: (R,) float32, nominal stride of each location.
    """

    levels: tuple[Level, ...]
    xy: Tensor
    stride: Tensor

    def __len__(self) -> int:
        return self.levels[-1].end if self.levels else 0

    @property
    def points_per_cell(self) -> int:
        return len(self.levels[0].points)

    def cell(self, location: Tensor) -> tuple[Tensor, Tensor | None]:
        """(P,) int64 locations -> (P,) int64 their cells, counted over all levels, and points; `None` for a single one.

        Levels follow each other as in `levels`, the cells of each row by row.
        """
        points = self.points_per_cell
        return (location, None) if points == 1 else (location // points, location % points)

    def level_of(self, location: Tensor) -> Tensor:
        """(P,) int64 locations -> (P,) int64 their levels, 0 the finest."""
        return torch.stack([location >= level.end for level in self.levels]).sum(dim=0)


@dataclass
class GroundTruth:
    """The boxes of a batch, concatenated.

    Attributes:
        boxes: (M, 4) float32 xyxy, pixels of the network input.
        classes: (M,) int64 in 0..K-1.
        image: (M,) int64 in 0..N-1.
        num_images: N.
    """

    boxes: Tensor
    classes: Tensor
    image: Tensor
    num_images: int

    @classmethod
    def from_instances(
        cls, instances: Sequence, device: torch.device, pixels: Sequence[tuple[float, float]] | None = None
    ) -> GroundTruth:
        """Join Detectron2 `Instances` with `gt_boxes` and `gt_classes`, one for each image.

        Args:
            instances: of the images; boxes end at the right and lower border of their last pixel.
            device: where the result goes.
            pixels: (width, height) of what boxes shall end before, for each image: a pixel, to let them end at the near
                border of the last one. A box narrower than that becomes one without area.
        """
        counts = torch.tensor([len(x) for x in instances])
        boxes = torch.cat([x.gt_boxes.tensor.reshape(-1, 4) for x in instances])
        classes = torch.cat([x.gt_classes.reshape(-1) for x in instances])
        image = torch.repeat_interleave(torch.arange(len(instances)), counts)
        if pixels is not None:
            near, far = boxes.split(2, dim=1)
            far = far - sent(torch.tensor(pixels)[image], boxes.device)
            boxes = torch.cat((near, torch.maximum(near, far)), dim=1)
        return cls(sent(boxes.float(), device), sent(classes.long(), device), sent(image, device), len(instances))


@dataclass
class Predictions:
    """Head outputs as the head returns them; the only place that knows which level, row and column a location is.

    Attributes:
        logits: L maps (N, D*K, Hi, Wi), class scores before the sigmoid.
        raw_ltrb: L maps (N, D*4, Hi, Wi), distances before exp or relu, after the per-level scale.
        quality: L maps (N, D, Hi, Wi), quality before the sigmoid.
        locations: the R locations of the maps.
    """

    logits: list[Tensor]
    raw_ltrb: list[Tensor]
    quality: list[Tensor]
    locations: Locations

    @property
    def num_images(self) -> int:
        return self.logits[0].shape[0]

    @property
    def num_classes(self) -> int:
        return self.logits[0].shape[1] // self.locations.points_per_cell

    def gather(self, maps: list[Tensor], image: Tensor, location: Tensor) -> Tensor:
        """Read maps at some locations.

        Args:
            maps: L maps (N, D*C, Hi, Wi): `raw_ltrb` or `quality`.
            image: (P,) int64 image of each pair.
            location: (P,) int64 in 0..R-1.
        Returns:
            (P, C) float32. Differentiable; no data-dependent shapes, so no synchronisation with the host.
        """
        if location.device.type == "cuda":  # whose time is that of starting kernels: all levels at once
            rows = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1).reshape(
                self.num_images * len(self.locations), -1
            )
            row = torch.add(location, image, alpha=len(self.locations))
            return rows.index_select(0, row).float()  # unlike indexing, its gradient is added without sorting
        cell, point = self.locations.cell(location)
        out: Tensor | None = None
        start = 0
        for values in maps:
            values = values.flatten(2)
            here = (cell - start).clamp(0, values.shape[2] - 1)  # cells of other levels are clamped into this one
            if point is None:
                picked = values[image, :, here].float()
            else:
                picked = values.unflatten(1, (self.locations.points_per_cell, -1))[image, point, :, here].float()
            out = picked if out is None else torch.where((cell >= start)[:, None], picked, out)
            start += values.shape[2]
        assert out is not None, "there is at least one level"
        return out


@dataclass
class Positives:
    """The (image, location) pairs that answer for a box.

    On the GPU their number is a bound known to the host, and the rows that hold no positive have `valid` 0: all shapes
    are then known without waiting for the device.

    Attributes:
        image, location: (P,) int64.
        box: (P,) int64 row of the ground truth; 0 where invalid.
        valid: (P,) float32, 1 for a positive and 0 for padding; `None` if all are valid.
    """

    image: Tensor
    location: Tensor
    box: Tensor
    valid: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def count(self) -> Tensor:
        """Number of positives, a float32 scalar on the device."""
        if self.valid is None:
            return torch.full((), float(len(self)), device=self.image.device)
        return self.valid.sum()


@dataclass
class Targets:
    """What the positives should predict; every other location is background.

    Attributes:
        positives: P pairs.
        label: (P,) int64 class in 0..K-1.
        ltrb: (P, 4) float32 distances in the coder's unit; all ones where a row is invalid.
    """

    positives: Positives
    label: Tensor
    ltrb: Tensor


@dataclass
class Detections:
    """Detections of a batch, sorted by score within each image.

    Attributes:
        image: (P,) int64.
        boxes: (P, 4) float32 xyxy, pixels of the network input.
        scores: (P,) float32 in 0..1, class and quality combined.
        classes: (P,) int64.
        location: (P,) int64 location each box was predicted at.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    location: Tensor
    counts: list[int] | None = None

    def __getitem__(self, index: Tensor) -> Detections:
        return Detections(*(getattr(self, f)[index] for f in ("image", "boxes", "scores", "classes", "location")))

    def __len__(self) -> int:
        return len(self.scores)
