"""A backbone of one's own: any module that returns {name: feature map} and says their channels and strides."""

from __future__ import annotations

from itertools import pairwise

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from fcos_d2.config import plugins
from fcos_d2.modeling.backbone import fpn


@plugins.allow  # checkpoints and YAML files may name it, once this module is imported
class TinyNet(Backbone):
    """Five convolutions of stride 2.

    Args:
        width: channels of the first; each of the others has more.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        channels = [3, width, width, 2 * width, 3 * width, 4 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.ReLU())
            for a, b in pairwise(channels)
        )
        self._shapes = {f"c{i}": ShapeSpec(channels=channels[i], stride=2**i) for i in (3, 4, 5)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = {}
        for i, stage in enumerate(self.stages, start=1):
            image = stage(image)
            maps[f"c{i}"] = image
        return {name: maps[name] for name in self._shapes}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return self._shapes


@BACKBONE_REGISTRY.register()
def build_tiny_fpn_backbone(cfg, input_shape):
    """The same with a feature pyramid, for Detectron2's YAML keys."""
    return fpn(TinyNet(), in_features=("c3", "c4", "c5"), out_channels=cfg.MODEL.FPN.OUT_CHANNELS)
