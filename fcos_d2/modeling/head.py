"""The head: towers of convolutions shared by all levels, and three predictors (arXiv:1904.01355, Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.common.registry import Registry
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..options import one_of, option
from .deform import DeformConv
from .exact_norm import BatchNorm2d, GroupNorm, SyncBatchNorm
from .traits import Traits

FCOS_HEAD_REGISTRY = Registry("FCOS_HEAD")
FCOS_HEAD_REGISTRY.__doc__ = """Modules called like `FCOSHead`."""


# Elements of maps that are large enough to be computed twice rather than kept.
_LARGE = 1 << 20
# Quality logit of a head without a quality branch: its sigmoid is 1 in float32.
_CERTAIN = 30.0


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
        if self.weight is None or self.bias is None:
            return x
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class Chain(nn.Sequential):
    """Layers one after another, of which batch norms know which level they work on.

    With `recompute`, training keeps the result of each convolution, but not what GroupNorm and ReLU make of it: that is
    computed again when the gradient needs it, which takes a hundredth of the time of the convolution and halves the
    memory of a tower.
    """

    traits = Traits(recomputable=True)
    recompute = False

    def forward(self, x: Tensor, level: int = 0, last: Callable[[Tensor], Any] | None = None) -> Any:
        """(N, C, H, W) of a level -> (N, C', H, W), or what `last` makes of that."""
        parts = self._parts(last)
        light = self.recompute and x.numel() >= _LARGE and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        for part in parts:
            if light and isinstance(part[0], nn.GroupNorm) and not isinstance(part[-1], (nn.ReLU, DeformConv)):
                x = checkpoint(_run, part, level, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = _run(part, level, x)
        return x

    def _parts(self, last: Callable[[Tensor], Any] | None) -> list[list[Callable]]:
        """The layers and `last`, split after each convolution."""
        parts: list[list[Callable]] = [[]]
        for layer in self:
            parts[-1].append(layer)
            if isinstance(layer, (nn.Conv2d, DeformConv)):
                parts.append([])
        if last is not None:
            parts[-1].append(last)
        return [part for part in parts if part]


class Tower(Chain):
    """3x3 convolutions, each with norm and ReLU, as the options of a head say."""

    def __init__(self, head: FCOSHead, num_convs: int, deformable: bool = False) -> None:
        batch_norms: dict[str, Any] = {"BN": BatchNorm2d, "SyncBN": SyncBatchNorm}
        channels, layers = head.in_channels, list[nn.Module]()
        for i in range(num_convs):
            if deformable and i == num_convs - 1:
                layers.append(DeformConv(channels, channels, 3, bias=head.conv_bias))
            else:
                layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=head.conv_bias))
            if head.norm == "GN":
                layers.append(GroupNorm(32, channels))
            elif head.norm != "none":
                norm = batch_norms[head.norm]
                layers.append(LevelBatchNorm(channels, head.num_levels, norm, head.norm_shared_affine))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)
        self.recompute = head.recompute


def _run(part: Sequence[Callable], level: int, x: Any) -> Any:
    for layer in part:
        x = layer(x, level) if isinstance(layer, LevelBatchNorm) else layer(x)
    return x


@dataclass(init=False, eq=False, repr=False)
class DenseHead(nn.Module):
    """What heads have in common: the last convolutions, the scales, and the loop over levels; `branches` is their own.

    Attributes:
        num_classes: K.
        in_channels: channels of every input map, and width of the towers.
        num_levels: L.
        quality_on: tower that feeds the quality predictor: "class" (original) or "box" (improved); with "none" there
            is no such predictor, and the quality of every location is 1 ("without centerness" in the paper's tables).
        level_scale: multiply raw ltrb by a learned scalar for each level.
        prior_prob: class probability at the start of training (arXiv:1708.02002, Sec. 4.1).
        points_per_cell: D, as in `LocationGrid`; the channel blocks are grouped by point.
    """

    num_classes: int = option(80, key="NUM_CLASSES")
    in_channels: int = option(256)
    num_levels: int = option(5)
    quality_on: str = option("box", key="QUALITY_ON")
    level_scale: bool = option(True, key="USE_SCALE")
    prior_prob: float = option(0.01, key="PRIOR_PROB")
    points_per_cell: int = option(1)
    traits = Traits(exact=("cls_logits", "bbox_pred", "quality"))

    def branches(self, x: Tensor, level: int) -> tuple[list[Tensor], list[Tensor]]:
        """(N, C, Hi, Wi) of a level -> what `class_maps` and `box_maps` make of the features of the two branches."""
        raise NotImplementedError

    def _check(self, group_norm: bool) -> None:
        name = type(self).__name__
        one_of(f"{name}.quality_on", self.quality_on, ("class", "box", "none"))
        if self.num_classes < 1:
            raise ValueError(f"{name}.num_classes is {self.num_classes}, but it must be 1 or more.")
        if group_norm and self.in_channels % 32:
            raise ValueError(f"{name}.in_channels is {self.in_channels}, but GroupNorm needs a multiple of 32.")

    def _add_predictors(self, start: Callable[[nn.Conv2d], None] = lambda conv: None) -> None:
        """Add the last convolutions, each brought to its initial weights by `start`, and the scales."""

        def predictor(channels: int) -> nn.Conv2d:
            conv = nn.Conv2d(self.in_channels, channels * self.points_per_cell, 3, padding=1)
            start(conv)
            return conv

        self.cls_logits, self.bbox_pred = predictor(self.num_classes), predictor(4)
        self.quality = None if self.quality_on == "none" else predictor(1)
        self.scales = nn.Parameter(torch.ones(self.num_levels)) if self.level_scale else None

    def _start_at_prior(self) -> None:
        """Let every class have `prior_prob` at the start of training."""
        bias: Any = self.cls_logits.bias
        nn.init.constant_(bias, -math.log((1 - self.prior_prob) / self.prior_prob))

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """L maps (N, C, Hi, Wi) -> logits (N, D*K, Hi, Wi), raw ltrb (N, D*4, Hi, Wi), quality (N, D, Hi, Wi).

        Raises:
            ValueError: the number of maps is not `num_levels`.
        """
        if len(features) != self.num_levels:
            name = type(self).__name__
            raise ValueError(f"{name} was built for {self.num_levels} levels, but it got {len(features)} feature maps.")
        logits, raw_ltrb, quality = [], [], []
        for level, x in enumerate(features):
            class_maps, box_maps = self.branches(x, level)
            logits.append(class_maps[0])
            raw = box_maps[0].float()
            raw_ltrb.append(raw if self.scales is None else raw * self.scales[level])
            quality.append(self._quality_of(class_maps, box_maps))
        return logits, raw_ltrb, quality

    def _quality_of(self, class_maps: list[Tensor], box_maps: list[Tensor]) -> Tensor:
        """(N, D, Hi, Wi) quality logits of a level."""
        if self.quality is None:
            like = box_maps[0]
            return like.new_full((like.shape[0], self.points_per_cell, *like.shape[2:]), _CERTAIN)
        return (class_maps if self.quality_on == "class" else box_maps)[1]

    def class_maps(self, features: Tensor) -> list[Tensor]:
        """Features of the class branch -> logits, and quality if it is predicted there."""
        return [self.cls_logits(features), *self._quality_beside("class", features)]

    def box_maps(self, features: Tensor) -> list[Tensor]:
        """Features of the box branch -> raw ltrb without scale, and quality if it is predicted there."""
        return [self.bbox_pred(features), *self._quality_beside("box", features)]

    def _quality_beside(self, branch: str, features: Tensor) -> list[Tensor]:
        return [self.quality(features)] if self.quality is not None and self.quality_on == branch else []


def start_conv(conv: nn.Conv2d) -> None:
    """Initial weights of a head's convolution, as published."""
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


@FCOS_HEAD_REGISTRY.register()
@dataclass(eq=False, repr=False)
class FCOSHead(DenseHead):
    """Predicts class logits, raw ltrb and quality for every location; also has the options of `DenseHead`.

    Attributes:
        num_class_convs, num_box_convs: convolutions of the two towers.
        num_shared_convs: convolutions before both towers (AdelaiDet's real-time models).
        norm: of the towers: "GN" (32 groups), "BN" or "SyncBN" (statistics per level), or "none".
        norm_shared_affine: with BN or SyncBN, share weight and bias among levels (Detectron2) or not (AdelaiDet).
        conv_bias: whether tower convolutions have a bias.
        deformable: whether the last convolution of the class and of the box tower is a modulated deformable one.
        recompute: while training, compute GroupNorm and ReLU of large maps twice instead of keeping the results.

    Raises:
        ValueError: an option has no such value, or GroupNorm cannot split the channels into 32 groups.
    """

    num_class_convs: int = option(4, key="NUM_CLS_CONVS")
    num_box_convs: int = option(4, key="NUM_BOX_CONVS")
    num_shared_convs: int = option(0, key="NUM_SHARE_CONVS")
    norm: str = option("GN", key="NORM")
    norm_shared_affine: bool = option(False, key="NORM_SHARED_AFFINE")
    conv_bias: bool = option(True, key="CONV_BIAS")
    deformable: bool = option(False, key="USE_DEFORMABLE")
    recompute: bool = option(True, key="RECOMPUTE")

    def __post_init__(self) -> None:
        super().__init__()
        one_of("FCOSHead.norm", self.norm, ("GN", "BN", "SyncBN", "none"))
        self._check(group_norm=self.norm == "GN")
        self.share_tower = Tower(self, self.num_shared_convs)
        self.cls_tower = Tower(self, self.num_class_convs, self.deformable)
        self.bbox_tower = Tower(self, self.num_box_convs, self.deformable)
        self._add_predictors()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # offsets of a deformable one included, its kernel not, as published
                start_conv(module)
        self._start_at_prior()

    def branches(self, x: Tensor, level: int) -> tuple[list[Tensor], list[Tensor]]:
        x = self.share_tower(x, level)
        return self.cls_tower(x, level, self.class_maps), self.bbox_tower(x, level, self.box_maps)
