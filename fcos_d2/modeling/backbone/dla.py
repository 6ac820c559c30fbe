"""Deep layer aggregation (arXiv:1707.06484), as AdelaiDet's real-time models use it (adet/modeling/backbone/dla.py).

Parameters have the names of AdelaiDet and of the ImageNet weights: base_layer, level0 to level5, and in these tree1,
tree2, root and project. The ImageNet files have a classifier `fc` besides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import one_of
from ..norm import freeze, get_norm
from ..traits import Traits
from .network import FeatureBackbone, Network, register_builder, yacs_keys
from .pyramid import fpn_from_config

# Depth of the trees level2 to level5, and channels of level0 to level5.
_BODIES = {"DLA34": ((1, 2, 2, 1), (16, 32, 64, 128, 256, 512))}


def _conv_norm(in_channels: int, out_channels: int, kernel_size: int, norm: str, stride: int = 1) -> list[nn.Module]:
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
    return [conv, get_norm(norm, out_channels)]


class Block(nn.Module):
    """Two 3x3 convolutions and a residual that the caller gives."""

    traits = Traits(recomputable=True, norm_after={"conv1": "bn1", "conv2": "bn2"})

    def __init__(self, in_channels: int, out_channels: int, norm: str, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv_norm(in_channels, out_channels, 3, norm, stride)
        self.conv2, self.bn2 = _conv_norm(out_channels, out_channels, 3, norm)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        x = F.relu_(self.bn1(self.conv1(x)))
        return F.relu_(self.bn2(self.conv2(x)) + residual)


class Root(nn.Module):
    """Merges the outputs of a tree by a 1x1 convolution."""

    traits = Traits(recomputable=True, norm_after={"conv": "bn"})

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv, self.bn = _conv_norm(in_channels, out_channels, 1, norm)

    def forward(self, children: Sequence[Tensor]) -> Tensor:
        return F.relu_(self.bn(self.conv(torch.cat(list(children), 1))))


class Tree(nn.Module):
    """Two blocks and their root, or two smaller trees of which the second has the root for all (arXiv:1707.06484).

    Args:
        depth: 1 for blocks, 2 for trees of blocks.
        in_channels, out_channels: of input and output.
        norm: as in `norm.get_norm`.
        stride: of the first block.
        level_root: whether the pooled input reaches the root, too.
        outer_channels: of the features from outer trees that the root merges as well.
    """

    traits = Traits(reads_neighbours=True)

    def __init__(
        self,
        depth: int,
        in_channels: int,
        out_channels: int,
        norm: str,
        stride: int = 1,
        level_root: bool = False,
        outer_channels: int = 0,
    ) -> None:
        super().__init__()
        self.depth, self.stride, self.level_root = depth, stride, level_root
        if level_root:
            outer_channels += in_channels
        if depth == 1:
            self.tree1: nn.Module = Block(in_channels, out_channels, norm, stride)
            self.tree2: nn.Module = Block(out_channels, out_channels, norm)
            self.root = Root(2 * out_channels + outer_channels, out_channels, norm)
        else:
            self.tree1 = Tree(depth - 1, in_channels, out_channels, norm, stride)
            self.tree2 = Tree(depth - 1, out_channels, out_channels, norm, outer_channels=outer_channels + out_channels)
        # A tree of trees has a projection as well. It is in the published weights, but its output goes nowhere.
        self.project = None
        if in_channels != out_channels:
            self.project = nn.Sequential(*_conv_norm(in_channels, out_channels, 1, norm))

    def forward(self, x: Tensor, outer: Sequence[Tensor] = ()) -> Tensor:
        """(N, C, H, W) and features of the output's size, which the root merges -> (N, C', H / stride, W / stride)."""
        bottom = F.max_pool2d(x, self.stride) if self.stride > 1 else x
        if self.level_root:
            outer = [*outer, bottom]
        if self.depth == 1:
            x1 = self.tree1(x, bottom if self.project is None else self.project(bottom))
            x2 = self.tree2(x1, x1)
            return self.root([x2, x1, *outer])
        x1 = self.tree1(x)
        if self.training and self.project is not None:
            # A gradient of zero for the unused projection: training on several GPUs needs one for every parameter.
            x1 = x1 + 0.0 * sum(p.sum() for p in self.project.parameters())
        return self.tree2(x1, [*outer, x1])


class DLA(FeatureBackbone):
    """Level i has stride 2**i.

    Args:
        conv_body: "DLA34".
        in_channels: of the image.
        norm: as in `norm.get_norm`.
        freeze_at: number of leading parts (base_layer, level0, ...) that are not trained and get frozen batch norms;
            AdelaiDet knows only -1, which means none.
        out_features: of "level0" to "level5"; those of DLA-34 have 16, 32, 64, 128, 256 and 512 channels.
    Raises:
        ValueError: no such body or feature.
    """

    def __init__(
        self,
        conv_body: str = "DLA34",
        *,
        in_channels: int = 3,
        norm: str = "SyncBN",
        freeze_at: int = -1,
        out_features: Sequence[str] = ("level3", "level4", "level5"),
    ) -> None:
        super().__init__()
        one_of("DLA.conv_body", conv_body, list(_BODIES))
        depths, channels = _BODIES[conv_body]
        names = [f"level{i}" for i in range(6)]
        strides = {name: 2**i for i, name in enumerate(names)}
        self.declare(out_features, dict(zip(names, channels)), strides)
        self.base_layer = nn.Sequential(*_conv_norm(in_channels, channels[0], 7, norm), nn.ReLU(inplace=True))
        for i in range(2):
            conv_norm = _conv_norm(channels[0], channels[i], 3, norm, stride=i + 1)
            self.add_module(names[i], nn.Sequential(*conv_norm, nn.ReLU(inplace=True)))
        for i, depth in enumerate(depths, 2):
            self.add_module(names[i], Tree(depth, channels[i - 1], channels[i], norm, stride=2, level_root=i > 2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        for part in list(self.children())[: max(freeze_at, 0)]:
            freeze(part)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = {}
        x = self.base_layer(x)
        for name in self._out_feature_channels:
            x = self.get_submodule(name)(x)
            if name in self._out_features:
                features[name] = x
        return features


NETWORK = Network(
    DLA,
    "DLA",
    # AdelaiDet's keys and defaults. Nobody reads OUT_FEATURES: a network returns what the pyramid needs.
    {"CONV_BODY": "DLA34", "OUT_FEATURES": ["stage2", "stage3", "stage4", "stage5"], "NORM": "FrozenBN"},
    yacs_keys("DLA", "conv_body", "norm", out_features="FPN.IN_FEATURES"),
    ("level3", "level4", "level5"),
    "base_layer.0.weight",
)
register_builder("build_fcos_dla_fpn_backbone", NETWORK, fpn_from_config)
