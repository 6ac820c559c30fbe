"""The table of backbones: a row for each, data only.

`compose` builds the row's network, and the backbone YAML files are written from the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from detectron2.modeling import Backbone

from .fpn import fpn
from .resnet import resnet

MSRA = "detectron2://ImageNetPretrained/MSRA"
# Caffe2 weights that have the pixel deviation absorbed (deviation 1); the re-converted ones under detectron2:// have not.
FAIR = "catalog://ImageNetPretrained/FAIR"

_IMAGENET_STD = (57.375, 57.12, 58.395)  # BGR, of pixels in 0..255


@dataclass(frozen=True)
class BackboneRow:
    """One backbone as published.

    Attributes:
        bottom_up: builds the network from `arguments`.
        arguments: of `bottom_up`.
        yaml: node of `MODEL` that holds the same choices, with the yacs key of each argument.
        builder: name in Detectron2's backbone registry.
        pyramid: makes the feature pyramid: `pyramid(bottom_up, in_features, out_channels, top_levels)`.
        features: bottom-up features that the pyramid merges.
        channels: of the pyramid.
        weights: ImageNet weights to start from; empty to train from scratch.
        pixel_mean, pixel_std: BGR pixel statistics that those weights expect; `None` leaves them to the recipe.
        source: where the definition comes from.
    """

    bottom_up: Callable[..., Backbone]
    arguments: Mapping[str, Any]
    weights: str
    source: str
    pyramid: Callable[..., Backbone] = fpn
    features: tuple[str, ...] = ("res3", "res4", "res5")
    channels: int = 256
    builder: str = "build_fcos_resnet_fpn_backbone"
    pixel_mean: tuple[float, float, float] | None = None
    pixel_std: tuple[float, float, float] | None = None
    yaml: Mapping[str, str] = field(default_factory=dict)


_RESNET_KEYS = {
    "depth": "MODEL.RESNETS.DEPTH",
    "stem_out_channels": "MODEL.RESNETS.STEM_OUT_CHANNELS",
    "res2_out_channels": "MODEL.RESNETS.RES2_OUT_CHANNELS",
    "num_groups": "MODEL.RESNETS.NUM_GROUPS",
    "width_per_group": "MODEL.RESNETS.WIDTH_PER_GROUP",
    "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
    "norm": "MODEL.RESNETS.NORM",
    "freeze_at": "MODEL.BACKBONE.FREEZE_AT",
    "out_features": "MODEL.RESNETS.OUT_FEATURES",
}


def _resnet_row(
    depth: int,
    weights: str,
    source: str,
    channels: int = 256,
    pixel_std: tuple[float, float, float] | None = None,
    **arguments: Any,
) -> BackboneRow:
    arguments = {
        "depth": depth,
        "stem_out_channels": 64,
        "res2_out_channels": 256 if depth >= 50 else 64,
        "num_groups": 1,
        "width_per_group": 64,
        "stride_in_1x1": True,
        "norm": "FrozenBN",
        "freeze_at": 2,
        **arguments,
    }
    return BackboneRow(resnet, arguments, weights, source, channels=channels, pixel_std=pixel_std, yaml=_RESNET_KEYS)


BACKBONES: dict[str, BackboneRow] = {
    "R_50_FPN": _resnet_row(50, f"{MSRA}/R-50.pkl", "tianzhi0549/FCOS, configs/fcos/fcos_R_50_FPN_1x.yaml"),
    "R_101_FPN": _resnet_row(
        101,
        f"{MSRA}/R-101.pkl",
        "tianzhi0549/FCOS, configs/fcos/fcos_R_101_FPN_2x.yaml",
    ),
    "X_101_32x8d_FPN": _resnet_row(
        101,
        f"{FAIR}/X-101-32x8d",
        "tianzhi0549/FCOS, configs/fcos/fcos_X_101_32x8d_FPN_2x.yaml",
        num_groups=32,
        width_per_group=8,
        stride_in_1x1=False,
    ),
    "X_101_64x4d_FPN": _resnet_row(
        101,
        f"{FAIR}/X-101-64x4d",
        "tianzhi0549/FCOS, configs/fcos/fcos_X_101_64x4d_FPN_2x.yaml",
        num_groups=64,
        width_per_group=4,
        stride_in_1x1=False,
    ),
    # For small data and small machines: trained from scratch, so nothing is frozen.
    "R_18_FPN": _resnet_row(
        18,
        "",
        "ResNet-18 of arXiv:1512.03385",
        channels=128,
        pixel_std=_IMAGENET_STD,
        norm="BN",
        freeze_at=0,
    ),
    "R_18_slim_FPN": _resnet_row(
        18,
        "",
        "ResNet-18 of arXiv:1512.03385 at half its width",
        channels=64,
        pixel_std=_IMAGENET_STD,
        stem_out_channels=32,
        res2_out_channels=32,
        norm="BN",
        freeze_at=0,
    ),
}

__all__ = ["BACKBONES", "BackboneRow", "fpn", "resnet"]
