"""Small things to test on: locations, predictions, boxes, parts of a recipe, whole detectors and their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fcos_d2  # noqa: F401  # isort: skip  # before detectron2, whose 0.6 needs mending

import numpy as np
import reference
import torch
from detectron2.config import instantiate
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from fcos_d2.config.compose import compose
from fcos_d2.modeling import FCOS_HEAD_REGISTRY, DenseFCOS, FCOSLoss, LocationGrid, LTRBCoder, PointAssigner, Selector
from fcos_d2.structures import GroundTruth, Locations, Predictions
from fcos_d2.zoo.recipes import RECIPES, Recipe

STRIDES = (8, 16, 32, 64, 128)
CPU = torch.device("cpu")


def strides_of(recipe: Recipe) -> tuple[int, ...]:
    """p3 has stride 8, p4 16, and so on."""
    return tuple(2 ** int(name[1:]) for name in recipe.features)


def distinct(*fields: str) -> list[str]:
    """Recipes that differ in at least one of these fields: the first name of each kind."""
    kinds = {repr([getattr(r, f) for f in fields]): name for name, r in reversed(RECIPES.items())}
    return [name for name in RECIPES if name in kinds.values()]


def feature_sizes(image_size: tuple[int, int], strides: Sequence[int] = STRIDES) -> list[tuple[int, int]]:
    """(height, width) of the maps that a pyramid has on an input of this size."""
    return [(-(-image_size[0] // s), -(-image_size[1] // s)) for s in strides]


def locations(
    image_size: tuple[int, int] = (128, 128), strides: Sequence[int] = STRIDES, grid: LocationGrid | None = None
) -> Locations:
    return (grid or LocationGrid())(feature_sizes(image_size, strides), strides, image_size, CPU)


def points_of(at: Locations) -> reference.Points:
    """The same locations for the slow transcription."""
    level = np.concatenate([np.full(level.size, i) for i, level in enumerate(at.levels)])
    x, y = at.xy.numpy().T
    return reference.Points(x, y, at.stride.numpy(), level)


def random_predictions(at: Locations, num_images: int = 2, num_classes: int = 3, exp: bool = False) -> Predictions:
    """Maps that give boxes of all sizes and scores on both sides of every published threshold."""
    points = at.points_per_cell

    def maps(channels: int) -> list[Tensor]:
        return [torch.randn(num_images, points * channels, v.height, v.width) for v in at.levels]

    logits = [(v * 2 - 2).requires_grad_() for v in maps(num_classes)]
    raw = [(v + 2.5 if exp else v * 2 + 2).requires_grad_() for v in maps(4)]
    return Predictions(logits, raw, [v.requires_grad_() for v in maps(1)], at)


def maps_of(predictions: Predictions) -> list[Tensor]:
    return [*predictions.logits, *predictions.raw_ltrb, *predictions.quality]


def random_boxes(count: int, image_size: tuple[int, int] = (128, 128), grain: float = 0.0) -> Tensor:
    """(count, 4) boxes from a pixel to the whole image, some over its border; on multiples of `grain` if given."""
    extent = torch.tensor([image_size[1], image_size[0]], dtype=torch.float32)
    center = torch.rand(count, 2) * extent
    side = extent * 2 ** (-6 * torch.rand(count, 2))
    boxes = torch.cat((center - side / 2, center + side / 2), 1)
    return (boxes / grain).round() * grain if grain else boxes


def ground_truth(boxes: Sequence[Tensor], classes: Sequence[Tensor] | None = None) -> GroundTruth:
    """Join the boxes of each image; classes are 0 unless given."""
    classes = classes or [torch.zeros(len(b), dtype=torch.int64) for b in boxes]
    image = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
    return GroundTruth(torch.cat(list(boxes)), torch.cat(list(classes)), image, len(boxes))


@dataclass
class Scene:
    """Predictions and boxes of one batch, for the package and for the slow transcription."""

    dense: DenseFCOS
    predictions: Predictions
    boxes: list[Tensor]
    classes: list[Tensor]
    image_size: tuple[int, int]

    @property
    def ground_truth(self) -> GroundTruth:
        return ground_truth(self.boxes, self.classes)

    @property
    def for_reference(self) -> dict[str, Any]:
        p = self.predictions
        return {
            "logits": p.logits,
            "raw_ltrb": p.raw_ltrb,
            "quality": p.quality,
            "points": points_of(p.locations),
        }


def dense_of(recipe: Recipe | str, num_classes: int = 3, **head: Any) -> DenseFCOS:
    """The parts of a recipe, joined; the head is narrow."""
    recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe
    grid = LocationGrid(**recipe.grid)
    narrow = {
        "num_classes": num_classes,
        "in_channels": 32,
        "num_levels": len(recipe.features),
        "points_per_cell": grid.points_per_cell,
        **recipe.head,
        **head,
    }
    return DenseFCOS(
        head=FCOS_HEAD_REGISTRY.get(recipe.head_name)(**narrow),
        loss=FCOSLoss(**recipe.loss),
        assigner=PointAssigner(**recipe.assigner),
        coder=LTRBCoder(**recipe.coder),
        selector=Selector(**recipe.selector),
        grid=grid,
    )


def scene_of(
    recipe: Recipe | str,
    counts: Sequence[int] = (5, 0, 12),
    image_size: tuple[int, int] = (128, 160),
    num_classes: int = 3,
) -> Scene:
    """A random batch for a recipe; `counts` are the numbers of boxes of its images."""
    recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe
    dense = dense_of(recipe, num_classes)
    at = locations(image_size, strides_of(recipe), dense.grid)
    predictions = random_predictions(at, len(counts), num_classes, exp=dense.coder.activation == "exp")
    boxes = [random_boxes(n, image_size) for n in counts]
    classes = [torch.randint(0, num_classes, (n,)) for n in counts]
    return Scene(dense, predictions, boxes, classes, image_size)


def detector(recipe: str = "improved", num_classes: int = 3, **backbone: Any) -> torch.nn.Module:
    """A whole small detector; keyword arguments change its bottom-up network."""
    node = compose(recipe, "R_18_slim_FPN", "1x").model
    node.num_classes = num_classes
    for key, value in backbone.items():
        node.backbone.bottom_up[key] = value
    return instantiate(node)


class Steps(Backbone):
    """A bottom-up network of one convolution for each stage, in the place of one whose depth shows nothing."""

    def __init__(self, out_features: Sequence[str], channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 7, stride=2, padding=3)
        stages = ("res2", "res3", "res4", "res5")
        self.stages = nn.ModuleDict({name: nn.Conv2d(channels, channels, 3, stride=2, padding=1) for name in stages})
        self._out_features = list(out_features)
        self._out_feature_channels = dict.fromkeys(stages, channels)
        self._out_feature_strides = {name: 4 << i for i, name in enumerate(stages)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x, found = self.stem(x).relu(), {}
        for name, convolution in self.stages.items():
            x = found[name] = convolution(x).relu()
        return {name: found[name] for name in self._out_features}


def thin(recipe: str, num_classes: int = 3) -> torch.nn.Module:
    """A detector of a recipe with one convolution, or one searched cell, in the place of several equal ones."""
    node = compose(recipe, "R_18_slim_FPN", "1x").model
    node.num_classes = num_classes
    if RECIPES[recipe].head_name == "FADHead":
        node.dense.head.num_cells = 1
    if RECIPES[recipe].head_name == "FCOSHead":
        for key, usual in (("num_class_convs", 4), ("num_box_convs", 4), ("num_shared_convs", 0)):
            node.dense.head[key] = min(node.dense.head.get(key, usual), 1)
    stages = ["res2", "res3", "res4", "res5"][0 if "p2" in RECIPES[recipe].features else 1 :]
    node.backbone.in_features = stages
    node.backbone.bottom_up = {"_target_": "scenes.Steps", "out_features": stages}
    return instantiate(node)


def image_inputs(
    size: tuple[int, int], boxes: Tensor | None = None, classes: Tensor | None = None, **more: Any
) -> dict[str, Any]:
    """One entry of a batch as Detectron2's `DatasetMapper` makes it: noise, with annotations if boxes are given."""
    inputs: dict[str, Any] = {"image": torch.randint(0, 256, (3, *size), dtype=torch.uint8), **more}
    if boxes is not None:
        inputs["instances"] = instances(size, boxes, classes)
    return inputs


def instances(size: tuple[int, int], boxes: Tensor, classes: Tensor | None = None) -> Instances:
    classes = torch.zeros(len(boxes), dtype=torch.int64) if classes is None else classes
    return Instances(size, gt_boxes=Boxes(boxes.reshape(-1, 4)), gt_classes=classes)


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(losses.values())


def relative(ours: Tensor | Sequence[Tensor], theirs: Tensor | Sequence[Tensor]) -> float:
    """Norm of the difference over the norm of the second, all tensors taken together."""
    ours, theirs = ([v] if isinstance(v, Tensor) else list(v) for v in (ours, theirs))
    a = torch.cat([v.detach().double().flatten() for v in ours])
    b = torch.cat([v.detach().double().flatten() for v in theirs])
    return float((a - b).norm() / b.norm().clamp(min=1e-12))
