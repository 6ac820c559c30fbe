"""recipe + backbone + schedule -> the five nodes of a Detectron2 LazyConfig.

    model, dataloader, optimizer, lr_multiplier, train = compose(recipe="improved", backbone="R_50_FPN", schedule="1x")

The number of classes is `model.num_classes` alone; everything else that needs it refers to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig

from .._compat import load_lazy_config
from ..modeling import FCOS, FCOS_HEAD_REGISTRY, DenseFCOS, FCOSLoss, LocationGrid, LTRBCoder, PointAssigner, Selector
from ..modeling.backbone import BACKBONES, BackboneRow
from ..options import one_of
from ..paths import config_root
from ..zoo.recipes import RECIPES, Recipe
from ..zoo.schedules import SCHEDULES, Schedule


class Composed(NamedTuple):
    """The nodes that Detectron2's `tools/lazyconfig_train_net.py` reads."""

    model: DictConfig
    dataloader: DictConfig
    optimizer: DictConfig
    lr_multiplier: DictConfig
    train: DictConfig


def compose(recipe: str, backbone: str, schedule: str) -> Composed:
    """Put a detector and its training together.

    Args:
        recipe: name in `recipes.RECIPES`.
        backbone: name in `modeling.BACKBONES`.
        schedule: name in `SCHEDULES`.
    Raises:
        ValueError: no such name; the message lists those there are.
    """
    one_of("recipe", recipe, list(RECIPES))
    one_of("backbone", backbone, list(BACKBONES))
    one_of("schedule", schedule, list(SCHEDULES))
    chosen, row = RECIPES[recipe], BACKBONES[backbone]
    return with_training(_model(chosen, row), chosen, row, SCHEDULES[schedule])


def with_training(model: DictConfig, chosen: Recipe, row: BackboneRow, plan: Schedule) -> Composed:
    """A model with the nodes that train it as a recipe and a schedule say."""
    common = config_root() / "common"
    optimizer = load_lazy_config(common / "schedule.py", "optimizer")
    optimizer.lr = chosen.solver["base_lr"]
    optimizer.params.update(
        {name: chosen.solver[name] for name in ("bias_lr_factor", "weight_decay_bias", "weight_decay_norm")}
    )
    train = load_lazy_config(common / "train.py", "train")
    train.max_iter = plan.max_iter
    train.init_checkpoint = row.weights
    dataloader = _dataloader(load_lazy_config(common / "data.py", "dataloader"), chosen, plan)
    return Composed(model, dataloader, optimizer, _lr_multiplier(chosen.solver, plan), train)


def backbone_node(recipe: Recipe, row: BackboneRow) -> DictConfig:
    """The network and its pyramid."""
    return L(row.pyramid)(
        bottom_up=L(row.bottom_up)(**row.arguments, out_features="${..in_features}"),
        in_features=list(row.features),
        out_channels=row.channels,
        top_levels=recipe.top_levels,
    )


def dense_node(recipe: Recipe, num_classes: int | str, channels: str) -> DictConfig:
    """Head, losses, assigner and selection.

    Args:
        recipe: says them.
        num_classes, channels: numbers of classes and of the pyramid's channels, or where to find them from the head.
    """
    head = {
        "num_classes": num_classes, "in_channels": channels, "num_levels": len(recipe.features),
        "points_per_cell": "${..grid.points_per_cell}", **recipe.head,
    }  # fmt: skip
    return L(DenseFCOS)(
        head=L(FCOS_HEAD_REGISTRY.get(recipe.head_name))(**head),
        loss=L(FCOSLoss)(**recipe.loss),
        assigner=L(PointAssigner)(**recipe.assigner),
        coder=L(LTRBCoder)(**recipe.coder),
        selector=L(Selector)(**recipe.selector),
        grid=L(LocationGrid)(**{"points_per_cell": 1, **recipe.grid}),
    )


def _model(recipe: Recipe, row: BackboneRow) -> DictConfig:
    mean, std = pixel_statistics(recipe, row)
    return L(FCOS)(
        backbone=backbone_node(recipe, row),
        dense=dense_node(recipe, "${...num_classes}", "${...backbone.out_channels}"),
        num_classes=80,
        in_features=list(recipe.features),
        pixel_mean=list(mean),
        pixel_std=list(std),
        input_format=recipe.input_format,
        **recipe.detector,
    )


def pixel_statistics(recipe: Recipe, row: BackboneRow) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pixel mean and deviation in the recipe's order of channels: the backbone's own (BGR), or else the recipe's."""
    order = -1 if recipe.input_format == "RGB" else 1
    mean = row.pixel_mean[::order] if row.pixel_mean else recipe.pixel_mean
    std = row.pixel_std[::order] if row.pixel_std else recipe.pixel_std
    return tuple(mean), tuple(std)


def _dataloader(dataloader: DictConfig, recipe: Recipe, plan: Schedule) -> DictConfig:
    resize = L(T.ResizeShortestEdge)
    if plan.jitter is None:
        sizes = list(plan.train_sizes)
        train = [resize(short_edge_length=sizes, sample_style=plan.sampling, max_size=plan.max_train_size)]
    else:
        low, high, size = plan.jitter
        train = [
            L(T.ResizeScale)(min_scale=low, max_scale=high, target_height=size, target_width=size),
            L(T.FixedSizeCrop)(crop_size=[size, size]),
        ]
    dataloader.train.total_batch_size = plan.batch_size
    dataloader.train.mapper.augmentations = [*train, L(T.RandomFlip)(horizontal=True)]
    dataloader.train.mapper.image_format = recipe.input_format
    dataloader.test.mapper.augmentations = [resize(short_edge_length=plan.test_size, max_size=plan.max_test_size)]
    return dataloader


def _lr_multiplier(solver: Mapping[str, Any], plan: Schedule) -> DictConfig:
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[float(f"1e-{i}") for i in range(len(plan.steps) + 1)], milestones=[*plan.steps, plan.max_iter]
        ),
        warmup_length=solver["warmup_iters"] / plan.max_iter,
        warmup_method=solver["warmup_method"],
        warmup_factor=solver["warmup_factor"],
    )
