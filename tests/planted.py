"""A detector that sees what it is told to: everything after the network's maps is real, the maps are planted.

Image number i is an image whose pixels are all i; the head gives the maps of that number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from fcos_d2.modeling import FCOS, DenseFCOS, LocationGrid, LTRBCoder, PointAssigner, Selector

SIDE, STRIDES = 128, (8, 16, 32)
NEVER = -100.0


class Plant(NamedTuple):
    """What one location says: its class score (the quality is 1, so that is the final score) and its box, xyxy."""

    label: int
    score: float
    box: Sequence[float]
    level: int = 0


class Pixels(Backbone):
    """Features that are the pixels, smaller."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {f"p{i}": nn.functional.avg_pool2d(images, stride) for i, stride in enumerate(STRIDES)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"p{i}": ShapeSpec(channels=3, stride=stride) for i, stride in enumerate(STRIDES)}


class PlantedHead(nn.Module):
    """Maps of the images whose numbers the features are."""

    def __init__(self, images: Sequence[Sequence[Plant]], num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.maps = [maps_of(plants, num_classes) for plants in images]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        numbers = [round(float(x.mean())) for x in features[0]]
        return tuple(
            [torch.stack([self.maps[n][kind][level] for n in numbers]) for level in range(len(STRIDES))]
            for kind in range(3)
        )


def maps_of(plants: Sequence[Plant], num_classes: int) -> list[list[Tensor]]:
    """Logits, raw ltrb and quality for each level, (C, H, W); each plant at the free location nearest to its middle."""
    sizes = [SIDE // stride for stride in STRIDES]
    maps = [
        [torch.full((channels, size, size), value) for size in sizes]
        for channels, value in ((num_classes, NEVER), (4, 0.0), (1, 20.0))
    ]
    taken = set()
    for plant in plants:
        size, stride = sizes[plant.level], STRIDES[plant.level]
        middle = [(plant.box[i] + plant.box[i + 2]) / 2 for i in (0, 1)]
        cells = [(plant.level, row, column) for row in range(size) for column in range(size)]

        def away(cell, stride=stride, middle=middle):
            return math.hypot(cell[2] * stride + stride // 2 - middle[0], cell[1] * stride + stride // 2 - middle[1])

        _, row, column = cell = min((cell for cell in cells if cell not in taken), key=away)
        taken.add(cell)
        x, y = column * stride + stride // 2, row * stride + stride // 2
        maps[0][plant.level][plant.label, row, column] = math.log(plant.score / (1 - plant.score))
        maps[1][plant.level][:, row, column] = torch.tensor(
            [x - plant.box[0], y - plant.box[1], plant.box[2] - x, plant.box[3] - y]
        )
    return maps


def detector(images: Sequence[Sequence[Plant]], num_classes: int = 2, **selection: Any) -> FCOS:
    """A detector of images whose plants are given; options of the selector."""
    dense = DenseFCOS(
        head=PlantedHead(images, num_classes), loss=None, coder=LTRBCoder("relu", "pixel"), grid=LocationGrid(),
        assigner=PointAssigner(size_ranges=((-1, 64), (64, 128), (128, math.inf))),
        selector=Selector(**{"score_threshold": 0.1, "threshold_on": "score", "score_form": "product", **selection}),
    )  # fmt: skip
    return FCOS(
        backbone=Pixels(), dense=dense, num_classes=num_classes, in_features=["p0", "p1", "p2"], pixel_mean=(0, 0, 0)
    ).eval()


def image_input(number: int) -> dict[str, Any]:
    """An image as Detectron2's test loader gives it."""
    image = torch.full((3, SIDE, SIDE), float(number))
    return {"image": image, "height": SIDE, "width": SIDE, "image_id": number, "file_name": f"{number}.png"}
