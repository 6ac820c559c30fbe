"""recipe + backbone + schedule -> the five nodes of a Detectron2 LazyConfig.

    model, dataloader, optimizer, lr_multiplier, train = compose(recipe="improved", backbone="R_50_FPN", schedule="1x")

The number of classes is `model.num_classes` alone; everything else that needs it refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig

from .modeling import (
    FCOS,
    FCOS_HEAD_REGISTRY,
    DenseFCOS,
    FCOSLoss,
    LocationGrid,
    LTRBCoder,
    PointAssigner,
    Selector,
)
from .modeling.backbone import BACKBONES, BackboneRow
from .options import one_of
from .paths import config_root
from .recipes import RECIPES, Recipe


@dataclass(frozen=True)
class Schedule:
    """Length of training, batch and image sizes.

    Attributes:
        max_iter: iterations.
        batch_size: images of an iteration, all workers together.
        steps: where the learning rate falls to a tenth.
        train_sizes: shorter sides to draw from while training, pixels; with `sampling` "range" the two ends of it.
        sampling: "choice" or "range".
        max_train_size: limit of the longer side while training.
        test_size, max_test_size: the same in inference.
        jitter: smallest and largest scale and crop size of large-scale jittering, instead of the sizes; yacs has no key
            for it, so the YAML twin trains at `train_sizes`.
        source: where the numbers come from.
    """

    max_iter: int
    steps: tuple[int, ...]
    source: str
    batch_size: int = 16
    train_sizes: tuple[int, ...] = (800,)
    sampling: str = "choice"
    max_train_size: int = 1333
    test_size: int = 800
    max_test_size: int = 1333
    jitter: tuple[float, float, int] | None = None


_ANY_SIZE = {"train_sizes": (640, 800), "sampling": "range"}
_SIX_SIZES = {"train_sizes": (640, 672, 704, 736, 768, 800)}
_T = "tianzhi0549/FCOS, configs/fcos"
_A = "aim-uofa/AdelaiDet, configs/FCOS-Detection"
_M = "open-mmlab/mmdetection, configs/fcos (7,330 iterations of 16 images an epoch)"

SCHEDULES = {
    "1x": Schedule(90_000, (60_000, 80_000), f"{_T}: 1x at 800 pixels"),
    "1x_bs32": Schedule(90_000, (60_000, 80_000), f"{_T}/fcos_syncbn_bs32_MNV2_FPN_1x.yaml", batch_size=32),
    "1x_bs32_ms": Schedule(
        90_000, (60_000, 80_000), f"{_T}/fcos_syncbn_bs32_c128_ms_MNV2_FPN_1x.yaml", batch_size=32, **_ANY_SIZE
    ),
    "1x_bs64_ms": Schedule(
        90_000, (60_000, 80_000), f"{_T}/fcos_syncbn_bs64_c128_ms_MNV2_FPN_1x.yaml", batch_size=64, **_ANY_SIZE
    ),
    "1x_ms": Schedule(
        90_000, (60_000, 80_000), "vov-net/VoVNet-FCOS, configs/vovnet/fcos_V_39_FPN_1x.yaml", **_ANY_SIZE
    ),
    "2x": Schedule(180_000, (120_000, 160_000), f"{_T}: 2x at any size in 640..800", **_ANY_SIZE),
    "2x_single": Schedule(180_000, (120_000, 160_000), "HRNet/HRNet-FCOS, configs/fcos/fcos_hrnet_w18_5l_2x.yaml"),
    "3x": Schedule(
        270_000, (180_000, 240_000), "HRNet/HRNet-FCOS, configs/fcos/fcos_hrnet_w40_6l_3x.yaml", **_ANY_SIZE
    ),
    "1x_choice": Schedule(
        90_000,
        (60_000, 80_000),
        "facebookresearch/detectron2, configs/COCO-Detection/fcos_R_50_FPN_1x.py",
        **_SIX_SIZES,
    ),
    "2x_choice": Schedule(180_000, (120_000, 160_000), f"{_A}/MS_R_50_2x.yaml", **_SIX_SIZES),
    "3x_choice": Schedule(270_000, (210_000, 250_000), f"{_A}/vovnet/MS_V_39_3x.yaml", **_SIX_SIZES),
    "4x_realtime": Schedule(
        360_000,
        (300_000, 340_000),
        f"{_A}/FCOS_RT/Base-FCOS_RT.yaml",
        train_sizes=tuple(range(256, 609, 32)),
        max_train_size=900,
        test_size=512,
        max_test_size=736,
    ),
    "26_epochs": Schedule(
        190_580, (117_280, 161_260), "pytorch/vision, references/detection (7,330 iterations of 16 images an epoch)"
    ),
    "12_epochs": Schedule(87_960, (58_640, 80_630), _M),
    "24_epochs": Schedule(175_920, (117_280, 161_260), _M),
    "24_epochs_ms": Schedule(175_920, (117_280, 161_260), _M, train_sizes=(640, 800)),
    "200_epochs_lsj": Schedule(
        366_450,
        (322_476, 351_792),
        "open-mmlab/mmdetection, configs/common/lsj-200e_coco-detection.py (25 epochs of the data set taken 8 times)",
        batch_size=64,
        jitter=(0.1, 2.0, 1024),
    ),
    "small": Schedule(
        10_000,
        (7_000, 9_000),
        "fcos_d2: a start for small data sets and machines",
        batch_size=8,
        train_sizes=(256, 288, 320),
        max_train_size=640,
        test_size=320,
        max_test_size=640,
    ),
}


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
    chosen, row, plan = RECIPES[recipe], BACKBONES[backbone], SCHEDULES[schedule]
    common = config_root() / "common"
    train = _common(common / "train.py", "train")
    train.max_iter = plan.max_iter
    train.init_checkpoint = row.weights
    return Composed(
        _model(chosen, backbone),
        _dataloader(_common(common / "data.py", "dataloader"), chosen, plan),
        _optimizer(_common(common / "schedule.py", "optimizer"), chosen),
        _lr_multiplier(chosen, plan),
        train,
    )


def _common(path: Path, name: str) -> DictConfig:
    return LazyConfig.load(str(path), name)


def _model(recipe: Recipe, backbone: str) -> DictConfig:
    row = BACKBONES[backbone]
    head = {
        "num_classes": "${...num_classes}",
        "in_channels": "${...backbone.out_channels}",
        "num_levels": len(recipe.features),
        "points_per_cell": "${..grid.points_per_cell}",
        **recipe.head,
    }
    grid = {"points_per_cell": 1, **recipe.grid}
    mean, std = pixel_statistics(recipe, row)
    return L(FCOS)(
        backbone=L(row.pyramid)(
            bottom_up=L(row.bottom_up)(**row.arguments, out_features="${..in_features}"),
            in_features=list(row.features),
            out_channels=row.channels,
            top_levels=recipe.top_levels,
        ),
        dense=L(DenseFCOS)(
            head=L(FCOS_HEAD_REGISTRY.get(recipe.head_name))(**head),
            loss=L(FCOSLoss)(**recipe.loss),
            assigner=L(PointAssigner)(**recipe.assigner),
            coder=L(LTRBCoder)(**recipe.coder),
            selector=L(Selector)(**recipe.selector),
            grid=L(LocationGrid)(**grid),
        ),
        num_classes=80,
        in_features=list(recipe.features),
        pixel_mean=list(mean),
        pixel_std=list(std),
        input_format=recipe.input_format,
    )


def pixel_statistics(recipe: Recipe, row: BackboneRow) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pixel mean and deviation in the recipe's order of channels: the backbone's own (BGR), or else the recipe's."""
    order = -1 if recipe.input_format == "RGB" else 1
    mean = row.pixel_mean[::order] if row.pixel_mean else recipe.pixel_mean
    std = row.pixel_std[::order] if row.pixel_std else recipe.pixel_std
    return tuple(mean), tuple(std)


def _dataloader(dataloader: DictConfig, recipe: Recipe, plan: Schedule) -> DictConfig:
    dataloader.train.total_batch_size = plan.batch_size
    dataloader.train.mapper.augmentations = [*_resize(plan), L(T.RandomFlip)(horizontal=True)]
    dataloader.test.mapper.augmentations = [
        L(T.ResizeShortestEdge)(short_edge_length=plan.test_size, max_size=plan.max_test_size)
    ]
    dataloader.train.mapper.image_format = recipe.input_format
    return dataloader


def _resize(plan: Schedule) -> list[DictConfig]:
    if plan.jitter is None:
        sizes = list(plan.train_sizes)
        return [
            L(T.ResizeShortestEdge)(short_edge_length=sizes, sample_style=plan.sampling, max_size=plan.max_train_size)
        ]
    low, high, size = plan.jitter
    return [
        L(T.ResizeScale)(min_scale=low, max_scale=high, target_height=size, target_width=size),
        L(T.FixedSizeCrop)(crop_size=[size, size]),
    ]


def _optimizer(optimizer: DictConfig, recipe: Recipe) -> DictConfig:
    solver = recipe.solver
    optimizer.lr = solver["base_lr"]
    for name in ("bias_lr_factor", "weight_decay_bias", "weight_decay_norm"):
        optimizer.params[name] = solver[name]
    return optimizer


def _lr_multiplier(recipe: Recipe, plan: Schedule) -> DictConfig:
    solver = recipe.solver
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[float(f"1e-{i}") for i in range(len(plan.steps) + 1)],
            milestones=[*plan.steps, plan.max_iter],
        ),
        warmup_length=solver["warmup_iters"] / plan.max_iter,
        warmup_method=solver["warmup_method"],
        warmup_factor=solver["warmup_factor"],
    )
