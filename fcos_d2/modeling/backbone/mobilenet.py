"""MobileNetV2 of width 1.0 (arXiv:1801.04381, Table 2) without its last 1x1 convolution and classifier.

The blocks are torchvision's, so its ImageNet weights have the same names (`features.i...`). In published detectors
block i is one row of convolutions, norms and activations:

    here                             tianzhi0549/FCOS, FCOS_PLUS, AdelaiDet
    features.0.0, .0.1               the same
    features.i.conv.j.0, .j.1        features.i.conv.{3j}, .{3j + 1}     all convolutions but the last
    features.i.conv.J, .{J + 1}      features.i.conv.{3J}, .{3J + 1}     the last one; J is 1 for i = 1, otherwise 2
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

from ..norm import get_norm
from .network import FeatureBackbone, Network, register_builder, yacs_keys
from .pyramid import fpn_from_config

# Expansion, channels, repeats and stride of the first, for each group of blocks.
_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# The last index of `features` at each stride; the names are those of ResNet's features at that stride.
_OUTPUTS = {3: "res2", 6: "res3", 13: "res4", 17: "res5"}


class MobileNetV2(FeatureBackbone):
    """The network of tianzhi0549/FCOS, fcos_core/modeling/backbone/mobilenet.py.

    Args:
        in_channels: of the image.
        norm: as in `norm.get_norm`, e.g. "BN", "SyncBN" or "FrozenBN".
        freeze_at: number of first `features` whose parameters are not trained; their statistics still follow the data.
        out_features: of "res2" (24 channels, stride 4), "res3" (32, 8), "res4" (96, 16) and "res5" (320, 32).
    Raises:
        ValueError: no such feature, or no norm.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        norm: str = "BN",
        freeze_at: int = 0,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
    ) -> None:
        super().__init__()
        if not norm:
            raise ValueError("MobileNetV2.norm is empty, but its convolutions have no bias: choose a norm, e.g. 'BN'.")
        norm_layer = partial(get_norm, norm)
        stride, channels = 2, 32
        self.features = nn.ModuleList(
            [Conv2dNormActivation(in_channels, channels, stride=2, norm_layer=norm_layer, activation_layer=nn.ReLU6)]
        )
        widths, strides = {}, {}
        for expansion, out, repeats, first_stride in _GROUPS:
            for i in range(repeats):
                block_stride = first_stride if i == 0 else 1
                self.features.append(InvertedResidual(channels, out, block_stride, expansion, norm_layer))
                channels, stride = out, stride * block_stride
                if name := _OUTPUTS.get(len(self.features) - 1):
                    widths[name], strides[name] = channels, stride
        self.declare(out_features, widths, strides)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        for part in self.features[: max(freeze_at, 0)]:
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = {}
        for i, part in enumerate(self.features):
            x = part(x)
            if _OUTPUTS.get(i) in self._out_features:
                features[_OUTPUTS[i]] = x
        return features


NETWORK = Network(
    MobileNetV2,
    "MOBILENETV2",
    {"NORM": "BN"},
    yacs_keys("MOBILENETV2", "norm", out_features="RESNETS.OUT_FEATURES"),
    ("res3", "res4", "res5"),
    "features.0.0.weight",
)
register_builder("build_mnv2_backbone", NETWORK)  # without a pyramid; AdelaiDet's name
register_builder("build_fcos_mnv2_fpn_backbone", NETWORK, fpn_from_config)
