"""HRNetV2p (arXiv:1904.04514) and HRFPN, the pyramid made from its four resolutions.

Parameters are called alike in HRNet/HRNet-FCOS (maskrcnn_benchmark/modeling/backbone/hrnet.py) and mmdetection
(mmdet/models/backbones/hrnet.py); a norm is `.norm` of its convolution here:

    here                            there
    stem.0, stem.1                  conv1 and bn1, conv2 and bn2
    layer1.B.convJ, .shortcut       layer1.B.convJ and bnJ, downsample.0 and .1
    transitionS.I                   transitionS.I.0 and .1; of the new resolution transitionS.I.0.0 and .0.1
    stageS.M.branches.I.B.convJ     stageS.M.branches.I.B.convJ and bnJ
    stageS.M.fuse.I.J, J > I        stageS.M.fuse_layers.I.J.0 and .1
    stageS.M.fuse.I.J.K, J < I      stageS.M.fuse_layers.I.J.K.0 and .1
    reduction                       fpn.reduction_conv.0; mmdetection: neck.reduction_conv.conv
    output.L                        fpn.fpn_conv.L; mmdetection: neck.fpn_convs.L.conv
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, reduce

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from fvcore.nn import weight_init
from torch import Tensor, nn

from ...options import as_tuple
from ..norm import freeze, norm_layer
from ..rewrite.fold import conv_norm, folding
from ..traits import Traits
from .network import FeatureBackbone, Network, register_builder, yacs_keys
from .pyramid import plain_pyramid

BRANCHES = ("branch0", "branch1", "branch2", "branch3")
"""Names of HRNet's features, finest first: strides 4, 8, 16, 32."""

_MODULES_PER_STAGE = {2: 1, 3: 4, 4: 3}
_BLOCKS_PER_BRANCH = 4


def _conv(in_channels: int, out_channels: int, norm: str, kernel_size: int = 3, stride: int = 1, relu: bool = True):
    conv = conv_norm(in_channels, out_channels, kernel_size, norm, stride, relu)
    weight_init.c2_msra_fill(conv)
    return conv


class HRModule(nn.Module):
    """A chain of basic blocks for each resolution, then every resolution is summed with all the others.

    Args:
        widths: channels of the branches, finest first; branch i has half the size of branch i - 1.
        norm: name of the norm.
    """

    traits = Traits(recomputable=True)

    def __init__(self, widths: Sequence[int], norm: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(folding(BasicBlock(w, w, norm=norm_layer(norm))) for _ in range(_BLOCKS_PER_BRANCH)))
            for w in widths
        )
        self.fuse = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target, norm) for source in range(len(widths)))
            for target in range(len(widths))
        )

    @staticmethod
    def _path(widths: Sequence[int], source: int, target: int, norm: str) -> nn.Module:
        """Brings a map of branch `source` to the channels of branch `target`, and down to its size if it is larger."""
        w, out = widths[source], widths[target]
        if source == target:
            return nn.Identity()
        if source > target:
            return _conv(w, out, norm, kernel_size=1, relu=False)
        halvings = [_conv(w, w, norm, stride=2) for _ in range(target - source - 1)]
        return nn.Sequential(*halvings, _conv(w, out, norm, stride=2, relu=False))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps)]
        return [self._sum(maps, target) for target in range(len(maps))]

    def _sum(self, maps: Sequence[Tensor], target: int) -> Tensor:
        size = maps[target].shape[-2:]
        moved = (path(x) for path, x in zip(self.fuse[target].children(), maps))
        equal = (F.interpolate(x, size=size, mode="nearest") if i > target else x for i, x in enumerate(moved))
        return F.relu(reduce(torch.add, equal))


class HRNet(FeatureBackbone):
    """HRNetV2p: four resolutions at strides 4, 8, 16, 32 with `width` times 1, 2, 4, 8 channels.

    Args:
        width: 18, 32 and 40 are published for FCOS.
        in_channels: of the image.
        norm: name of the norm: "EvalBN" is the published one, "SyncBN" that of the models trained with it.
        freeze_at: 0 trains everything, 1 freezes the stem, 2 also `layer1`.
        out_features: names of the branches to return, of `BRANCHES`.
    Raises:
        ValueError: there is no such norm or branch.
    """

    def __init__(
        self,
        width: int,
        *,
        in_channels: int = 3,
        norm: str = "EvalBN",
        freeze_at: int = 0,
        out_features: Sequence[str] = BRANCHES,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(in_channels, 64, norm, stride=2), _conv(64, 64, norm, stride=2))
        rule = {"bottleneck_channels": 64, "norm": norm_layer(norm)}
        self.layer1 = nn.Sequential(*(folding(BottleneckBlock(w, 256, **rule)) for w in (64, 256, 256, 256)))
        before = [256]
        for stage, num_modules in _MODULES_PER_STAGE.items():
            widths = [width * 2**i for i in range(stage)]
            self.add_module(f"transition{stage - 1}", self._transition(before, widths, norm))
            self.add_module(f"stage{stage}", nn.Sequential(*(HRModule(widths, norm) for _ in range(num_modules))))
            before = widths
        self.declare(out_features, dict(zip(BRANCHES, before)), {name: 4 * 2**i for i, name in enumerate(BRANCHES)})
        for module in (self.stem, self.layer1)[: max(freeze_at, 0)]:
            freeze(module)

    @staticmethod
    def _transition(before: Sequence[int], widths: Sequence[int], norm: str) -> nn.ModuleList:
        """Old branches keep their maps, or change channels; the one new branch halves the coarsest old one."""
        old = (nn.Identity() if a == b else _conv(a, b, norm) for a, b in zip(before, widths))
        return nn.ModuleList([*old, _conv(before[-1], widths[-1], norm, stride=2)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Image (N, in_channels, H, W) -> {name: map} of `out_features`."""
        maps = [self.layer1(self.stem(x))]
        for stage in _MODULES_PER_STAGE:
            transition = self.get_submodule(f"transition{stage - 1}")
            maps = [path(x) for path, x in zip(transition, [*maps, maps[-1]])]
            maps = self.get_submodule(f"stage{stage}")(maps)
        found = dict(zip(BRANCHES, maps))
        return {name: found[name] for name in self._out_features}


class HRFPN(FeatureBackbone):
    """All branches, enlarged to the finest, meet in one 1x1 convolution, and each level is made from its map.

    Level i averages that map over windows of 2**i and has a 3x3 convolution of its own, with bias and without norm. A
    window larger than the map is the whole map.

    Args:
        bottom_up: network whose features are merged.
        in_features: names of its features, finest first; level strides follow from the first.
        out_channels: of every level.
        num_levels: L.
        conv_stride: of the 3x3 convolutions: 2 makes levels from stride 8, 1 from stride 4.
    """

    traits = Traits(crosses_border="resizes maps bilinearly, across the border of an image")

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str] = BRANCHES,
        out_channels: int = 256,
        num_levels: int = 5,
        conv_stride: int = 2,
    ) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.in_features = as_tuple(in_features)
        shapes = bottom_up.output_shape()
        self.reduction = nn.Conv2d(sum(shapes[name].channels for name in self.in_features), out_channels, 1)
        self.output = nn.ModuleList(
            nn.Conv2d(out_channels, out_channels, 3, stride=conv_stride, padding=1) for _ in range(num_levels)
        )
        for conv in (self.reduction, *self.output):
            weight_init.c2_xavier_fill(conv)
        strides = [shapes[self.in_features[0]].stride * conv_stride * 2**i for i in range(num_levels)]
        levels = {f"p{int(math.log2(s))}": s for s in strides}
        self.declare(list(levels), dict.fromkeys(levels, out_channels), levels)

    @property
    def size_divisibility(self) -> int:
        return self.bottom_up.output_shape()[self.in_features[-1]].stride

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Image (N, 3, H, W) -> {name: map (N, out_channels, Hi, Wi)}, finest first."""
        features = self.bottom_up(x)
        finest, *others = (features[name] for name in self.in_features)
        size = finest.shape[-2:]
        others = [F.interpolate(y, size=size, mode="bilinear", align_corners=False) for y in others]
        merged = self.reduction(torch.cat([finest, *others], dim=1))
        levels = zip(self._out_features, self.output)
        return {name: conv(_average(merged, 2**i)) for i, (name, conv) in enumerate(levels)}


def _average(x: Tensor, window: int) -> Tensor:
    if window == 1:
        return x
    height, width = x.shape[-2:]
    return F.avg_pool2d(x, (min(window, height), min(window, width)), stride=window)


def hrfpn(
    bottom_up: Backbone, in_features: Sequence[str] = BRANCHES, out_channels: int = 256, top_levels: int = 2
) -> HRFPN:
    """HRFPN with levels p3..p5 and `top_levels` more: mmdetection's, and HRNet-FCOS's "5l"."""
    return HRFPN(bottom_up, in_features, out_channels, num_levels=3 + top_levels, conv_stride=2)


def hrfpn_6l(
    bottom_up: Backbone, in_features: Sequence[str] = BRANCHES, out_channels: int = 256, top_levels: int = 2
) -> HRFPN:
    """HRFPN with levels p2..p5 and `top_levels` more: HRNet-FCOS's "6l"."""
    return HRFPN(bottom_up, in_features, out_channels, num_levels=4 + top_levels, conv_stride=1)


NETWORK = Network(
    HRNet,
    "HRNET",
    {"WIDTH": 18, "OUT_FEATURES": list(BRANCHES), "NORM": "EvalBN"},
    yacs_keys("HRNET", "width", "norm", "out_features"),
    BRANCHES,
    "transition1.0.weight",
)
register_builder("build_fcos_hrnet_hrfpn_backbone", NETWORK, partial(plain_pyramid, hrfpn))
register_builder("build_fcos_hrnet_hrfpn_6l_backbone", NETWORK, partial(plain_pyramid, hrfpn_6l))
