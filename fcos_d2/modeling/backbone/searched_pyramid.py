"""The feature pyramid that NAS-FCOS found by search (arXiv:1906.04423).

Seven cells work on C3, C4, C5 and on one another; P6 and P7 come from P5. Parameters, with a norm being `.norm` of its
convolution here (`deform.py` tells about deformable ones, whose offsets NAS-FCOS calls `conv_offset_mask`):

    here                Lausannen/NAS-FCOS (decoder.fpn.*)      mmdetection (neck.*)
    adapt.I             adapt{I+2}.0 and .1 (adapt1: unused)    adapt_convs.I.conv and .bn
    cells.C.first.0     _ops.C.0.dcn.0 and .1                   fpn.NAME.input1_conv.conv and .bn
    cells.C.second.0    _ops.C.1.dcn.0 and .1                   fpn.NAME.input2_conv.conv and .bn
    cells.C.norm        _ops.C.2.conv1x1.0                      fpn.NAME.out_conv.bn
    cells.C.conv        _ops.C.2.conv1x1.2                      fpn.NAME.out_conv.conv
    top_block.p6, .p7   top_blocks.p6, .p7                      extra_downsamples.0.conv, .1.conv

NAME is c22_1, c22_2, c32, c02, c42, c36, c61 for C = 0..6.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from fvcore.nn import weight_init
from torch import Tensor, nn

from ...options import as_tuple, one_of
from ..deform import DeformConv
from ..norm import get_norm
from ..rewrite.fold import conv_norm
from ..traits import Traits
from .mobilenet import NETWORK as MOBILENET
from .network import FeatureBackbone, register_builder
from .pyramid import FEATURES, plain_pyramid, top_block
from .residual import NETWORK as RESNET


class Cell(NamedTuple):
    """A found cell: maps 0, 1, 2 are C3, C4, C5, map 3 + c is cell c."""

    first: int
    second: int
    deform_second: bool  # whether the second map passes a deformable convolution, too; the first always does


# Lausannen/NAS-FCOS, configs/search/R_50_NAS_head.yaml, SEARCH.DECODER.CONFIG, which counts C2 as map 0.
CELLS = (
    Cell(2, 2, True),
    Cell(2, 2, True),
    Cell(3, 2, False),
    Cell(0, 2, False),
    Cell(4, 2, True),
    Cell(3, 6, True),
    Cell(6, 1, True),
)
_P3, _P4, _P5 = 9, 8, 7
_UNUSED = 5  # no cell reads this map, so it is added to P3, P4 and P5


def _deform_norm_relu(channels: int, deform_groups: int, norm: str) -> nn.Sequential:
    """A modulated deformable 3x3 convolution with bias, norm and ReLU."""
    conv = DeformConv(channels, channels, 3, deform_groups=deform_groups, bias=True, norm=get_norm(norm, channels))
    return nn.Sequential(conv, nn.ReLU(inplace=True))


class MergeCell(nn.Module):
    """Two maps, each through its operation, are brought to the finer one's size, concatenated and reduced.

    The reduction is norm, ReLU and a 1x1 convolution with a group for each output channel.

    Args:
        channels: of both inputs and of the output.
        deform_second: see `Cell`.
        deform_groups: of the deformable convolutions.
        norm: name of the norm.
        resize: "bilinear" or "nearest".
    """

    def __init__(self, channels: int, deform_second: bool, deform_groups: int, norm: str, resize: str) -> None:
        super().__init__()
        self.first = _deform_norm_relu(channels, deform_groups, norm)
        self.second = _deform_norm_relu(channels, deform_groups, norm) if deform_second else nn.Identity()
        self.norm = get_norm(norm, 2 * channels)
        self.conv = nn.Conv2d(2 * channels, channels, 1, groups=channels, bias=False)
        self.resize = resize

    def forward(self, first: Tensor, second: Tensor, finer: int) -> Tensor:
        """`finer` is 0 if `first` has the larger map, else 1."""
        maps = [self.first(first), self.second(second)]
        maps[1 - finer] = _resize(maps[1 - finer], maps[finer], self.resize)
        return self.conv(F.relu(self.norm(torch.cat(maps, dim=1))))


def _resize(x: Tensor, like: Tensor, mode: str) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode=mode, align_corners=False if mode == "bilinear" else None)


class NASFPN(FeatureBackbone):
    """The found pyramid: p3, p4, p5 and up to two levels from p5.

    Args:
        bottom_up: network whose features are merged.
        in_features: names of its features of strides 8, 16, 32.
        out_channels: of every level.
        top_levels: 2 adds p6 and p7, 1 adds p6, 0 adds none.
        resize: how cells enlarge a map: "bilinear" (NAS-FCOS) or "nearest" (mmdetection).
        deform_groups: of the deformable convolutions.
        norm: name of the norm, see `norm.norm_layer`.
    Raises:
        ValueError: `in_features` are not three of those strides, or an option has no such value.
    """

    traits = Traits(crosses_border="resizes maps bilinearly, across the border of an image")

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str] = FEATURES,
        out_channels: int = 256,
        top_levels: int = 2,
        resize: str = "bilinear",
        deform_groups: int = 2,
        norm: str = "BN",
    ) -> None:
        super().__init__()
        one_of("NASFPN.resize", resize, ("bilinear", "nearest"))
        self.in_features = as_tuple(in_features)
        shapes = bottom_up.output_shape()
        strides = [shapes[name].stride for name in self.in_features]
        if strides != [8, 16, 32]:
            raise ValueError(f"NASFPN.in_features have strides {strides}, but the pyramid was found for [8, 16, 32].")
        self.bottom_up = bottom_up
        self.adapt = nn.ModuleList()
        for name in self.in_features:
            self.adapt.append(conv_norm(shapes[name].channels, out_channels, 1, norm))
            weight_init.c2_xavier_fill(self.adapt[-1])
        self.cells = nn.ModuleList(
            MergeCell(out_channels, cell.deform_second, deform_groups, norm, resize) for cell in CELLS
        )
        self.top_block = top_block(top_levels, out_channels)
        levels = {f"p{i}": 2**i for i in range(3, 6 + top_levels)}
        self.declare(list(levels), dict.fromkeys(levels, out_channels), levels)

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Image (N, 3, H, W) -> {name: map (N, out_channels, Hi, Wi)}, finest first."""
        features = self.bottom_up(x)
        maps = [adapt(features[name]) for adapt, name in zip(self.adapt, self.in_features)]
        sizes = [0, 1, 2]  # index of the feature whose size a map has; the finer has the lower
        for cell, merge in zip(CELLS, self.cells):
            finer = int(sizes[cell.second] < sizes[cell.first])
            maps.append(merge(maps[cell.first], maps[cell.second], finer))
            sizes.append(min(sizes[cell.first], sizes[cell.second]))
        outputs = []
        for i, level in enumerate((_P3, _P4, _P5)):
            merged = maps[level] + _resize(maps[_UNUSED], maps[level], "bilinear")
            outputs.append(_resize(merged, maps[i], "bilinear"))
        if self.top_block is not None:
            outputs += self.top_block(outputs[-1])
        return dict(zip(self._out_features, outputs))


def nas_fpn(
    bottom_up: Backbone, in_features: Sequence[str] = FEATURES, out_channels: int = 256, top_levels: int = 2
) -> NASFPN:
    """The found pyramid as Lausannen/NAS-FCOS has it: cells enlarge maps bilinearly."""
    return NASFPN(bottom_up, in_features, out_channels, top_levels, resize="bilinear")


def nas_fpn_nearest(
    bottom_up: Backbone, in_features: Sequence[str] = FEATURES, out_channels: int = 256, top_levels: int = 2
) -> NASFPN:
    """The found pyramid as mmdetection has it: cells enlarge maps to the nearest value."""
    return NASFPN(bottom_up, in_features, out_channels, top_levels, resize="nearest")


register_builder("build_fcos_resnet_nas_fpn_backbone", RESNET, partial(plain_pyramid, nas_fpn))
register_builder("build_fcos_resnet_nas_fpn_nearest_backbone", RESNET, partial(plain_pyramid, nas_fpn_nearest))
register_builder("build_fcos_mnv2_nas_fpn_backbone", MOBILENET, partial(plain_pyramid, nas_fpn))
