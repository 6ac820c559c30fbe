"""The head: towers of convolutions shared by all levels, and three predictors (arXiv:1904.01355, Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ..options import one_of, option
from .deform import DeformConv

FCOS_HEAD_REGISTRY = Registry("FCOS_HEAD")
FCOS_HEAD_REGISTRY.__doc__ = """Modules called like `FCOSHead`."""


class LevelBatchNorm(nn.Module):
    """One batch norm for each level, picked by its index.

    Args:
        channels: C.
        num_levels: L.
        norm: class of the batch norms.
        shared_affine: keep one weight and bias for all levels and only the statistics apart, as Detectron2 does;
            otherwise everything is kept apart, as AdelaiDet does.
    """

    def __init__(self, channels: int, num_levels: int, norm: type[nn.Module], shared_affine: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(norm(channels, affine=not shared_affine) for _ in range(num_levels))
        self.weight = nn.Parameter(torch.ones(channels)) if shared_affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if shared_affine else None

    def forward(self, x: Tensor, level: int) -> Tensor:
        x = self.levels[level](x)
        return x if self.weight is None else x * self.weight[:, None, None] + self.bias[:, None, None]


class Tower(nn.Sequential):
    """3x3 convolutions, each with norm and ReLU; knows which level it works on."""

    def __init__(
        self,
        channels: int,
        num_convs: int,
        num_levels: int,
        norm: str,
        shared_affine: bool,
        conv_bias: bool,
        deformable: bool,
    ) -> None:
        batch_norms = {"BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm}
        layers: list[nn.Module] = []
        for i in range(num_convs):
            if deformable and i == num_convs - 1:
                layers.append(DeformConv(channels, channels, 3, bias=conv_bias))
            else:
                layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=conv_bias))
            if norm == "GN":
                layers.append(nn.GroupNorm(32, channels))
            elif norm != "none":
                layers.append(LevelBatchNorm(channels, num_levels, batch_norms[norm], shared_affine))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)

    def forward(self, x: Tensor, level: int) -> Tensor:
        for layer in self:
            x = layer(x, level) if isinstance(layer, LevelBatchNorm) else layer(x)
        return x


@FCOS_HEAD_REGISTRY.register()
@dataclass(eq=False, repr=False)
class FCOSHead(nn.Module):
    """Predicts class logits, raw ltrb and quality for every location.

    Attributes:
        num_classes: K.
        in_channels: channels of every input map, and width of the towers.
        num_levels: L.
        num_class_convs, num_box_convs: convolutions of the two towers.
        num_shared_convs: convolutions before both towers (AdelaiDet's real-time models).
        norm: of the towers: "GN" (32 groups), "BN" or "SyncBN" (statistics per level), or "none".
        norm_shared_affine: with BN or SyncBN, share weight and bias among levels (Detectron2) or not (AdelaiDet).
        conv_bias: whether tower convolutions have a bias.
        quality_on: tower that feeds the quality predictor: "class" (original) or "box" (improved).
        level_scale: multiply raw ltrb by a learned scalar for each level.
        prior_prob: class probability at the start of training (arXiv:1708.02002, Sec. 4.1).
        points_per_cell: D, as in `LocationGrid`; the channel blocks are grouped by point.
        deformable: whether the last convolution of the class and of the box tower is a modulated deformable one.

    Raises:
        ValueError: an option has no such value, or GroupNorm cannot split the channels into 32 groups.
    """

    num_classes: int = option(80, key="NUM_CLASSES")
    in_channels: int = option(256)
    num_levels: int = option(5)
    num_class_convs: int = option(4, key="NUM_CLS_CONVS")
    num_box_convs: int = option(4, key="NUM_BOX_CONVS")
    num_shared_convs: int = option(0, key="NUM_SHARE_CONVS")
    norm: str = option("GN", key="NORM")
    norm_shared_affine: bool = option(False, key="NORM_SHARED_AFFINE")
    conv_bias: bool = option(True, key="CONV_BIAS")
    quality_on: str = option("box", key="QUALITY_ON")
    level_scale: bool = option(True, key="USE_SCALE")
    prior_prob: float = option(0.01, key="PRIOR_PROB")
    points_per_cell: int = option(1)
    deformable: bool = option(False, key="USE_DEFORMABLE")

    def __post_init__(self) -> None:
        super().__init__()
        one_of("FCOSHead.norm", self.norm, ("GN", "BN", "SyncBN", "none"))
        one_of("FCOSHead.quality_on", self.quality_on, ("class", "box"))
        if self.num_classes < 1:
            raise ValueError(f"FCOSHead.num_classes is {self.num_classes}, but it must be 1 or more.")
        if self.norm == "GN" and self.in_channels % 32:
            raise ValueError(f"FCOSHead.in_channels is {self.in_channels}, but GroupNorm needs a multiple of 32.")

        def tower(num_convs: int, deformable: bool = False) -> Tower:
            return Tower(
                self.in_channels,
                num_convs,
                self.num_levels,
                self.norm,
                self.norm_shared_affine,
                self.conv_bias,
                deformable,
            )

        def predictor(channels: int) -> nn.Conv2d:
            return nn.Conv2d(self.in_channels, channels * self.points_per_cell, 3, padding=1)

        self.share_tower = tower(self.num_shared_convs)
        self.cls_tower = tower(self.num_class_convs, self.deformable)
        self.bbox_tower = tower(self.num_box_convs, self.deformable)
        self.cls_logits = predictor(self.num_classes)
        self.bbox_pred = predictor(4)
        self.quality = predictor(1)
        self.scales = nn.Parameter(torch.ones(self.num_levels)) if self.level_scale else None
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # offsets of a deformable one included, its kernel not, as published
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - self.prior_prob) / self.prior_prob))

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """L maps (N, C, Hi, Wi) -> logits (N, D*K, Hi, Wi), raw ltrb (N, D*4, Hi, Wi), quality (N, D, Hi, Wi).

        Raises:
            ValueError: the number of maps is not `num_levels`.
        """
        if len(features) != self.num_levels:
            raise ValueError(
                f"FCOSHead was built for {self.num_levels} levels, but it got {len(features)} feature maps."
            )
        logits, raw_ltrb, quality = [], [], []
        for level, x in enumerate(features):
            x = self.share_tower(x, level)
            class_features = self.cls_tower(x, level)
            box_features = self.bbox_tower(x, level)
            logits.append(self.cls_logits(class_features))
            raw = self.bbox_pred(box_features).float()
            raw_ltrb.append(raw if self.scales is None else raw * self.scales[level])
            quality.append(self.quality(class_features if self.quality_on == "class" else box_features))
        return logits, raw_ltrb, quality
