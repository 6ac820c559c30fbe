"""The one builder of feature pyramids: Detectron2's FPN with FCOS's extra levels (arXiv:1904.01355, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from fvcore.nn import weight_init
from torch import Tensor, nn

from ...options import as_tuple
from ..norm import norm_layer
from ..rewrite.fold import folding
from .network import register_builder
from .residual import NETWORK as RESNET

FEATURES = ("res3", "res4", "res5")


class LastLevelP6(nn.Module):
    """P6 alone: a 3x3 convolution of stride 2 on P5 (AdelaiDet, TOP_LEVELS 1).

    Args:
        channels: of P5 and P6.
        in_feature: what it works on.
    """

    def __init__(self, channels: int, in_feature: str = "p5") -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        weight_init.c2_xavier_fill(self.p6)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.p6(x)]


def top_block(top_levels: int, channels: int) -> nn.Module | None:
    """What a pyramid has above p5, made from p5.

    Args:
        top_levels: 2 is p6 and p7, 1 is p6, 0 is none.
        channels: of every level.
    Raises:
        ValueError: `top_levels` is not 0, 1 or 2.
    """
    if top_levels not in (0, 1, 2):
        raise ValueError(f"top_levels is {top_levels}, but a feature pyramid has 0, 1 or 2 levels above p5.")
    if top_levels == 2:
        return LastLevelP6P7(channels, channels, "p5")
    return LastLevelP6(channels) if top_levels else None


def fpn(
    bottom_up: Backbone,
    in_features: Sequence[str] = FEATURES,
    out_channels: int = 256,
    top_levels: int = 2,
    norm: str = "",
    fuse_type: str = "sum",
) -> FPN:
    """Feature pyramid p3..p5, and p6 and p7 from p5 (not from C5, as RetinaNet's).

    Args:
        bottom_up: network whose features are merged.
        in_features: names of its features, finest first.
        out_channels: of every level.
        top_levels: 2 adds p6 and p7, 1 adds p6, 0 adds none (real-time models).
        norm: of lateral and output convolutions, see `norm.norm_layer`; empty for none.
        fuse_type: "sum" or "avg".
    Raises:
        ValueError: `top_levels` is not 0, 1 or 2, or there is no such norm.
    """
    features, top = list(as_tuple(in_features)), top_block(top_levels, out_channels)
    layer: Any = norm_layer(norm)
    pyramid = FPN(bottom_up, features, out_channels, norm=layer, top_block=top, fuse_type=fuse_type)
    return folding(pyramid, keep=[bottom_up])


def fpn_from_config(cfg, bottom_up: Backbone) -> FPN:
    """The same from `MODEL.FPN.*` and `MODEL.FCOS.TOP_LEVELS`."""
    return plain_pyramid(partial(fpn, norm=cfg.MODEL.FPN.NORM, fuse_type=cfg.MODEL.FPN.FUSE_TYPE), cfg, bottom_up)


def plain_pyramid(pyramid: Callable[..., Backbone], cfg, bottom_up: Backbone) -> Backbone:
    """`pyramid` from `MODEL.FPN.IN_FEATURES`, `MODEL.FPN.OUT_CHANNELS` and `MODEL.FCOS.TOP_LEVELS`."""
    node = cfg.MODEL.FPN
    return pyramid(bottom_up, node.IN_FEATURES, node.OUT_CHANNELS, cfg.MODEL.FCOS.TOP_LEVELS)


register_builder("build_fcos_resnet_fpn_backbone", RESNET, fpn_from_config)
