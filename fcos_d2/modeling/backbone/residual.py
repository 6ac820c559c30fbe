"""ResNet and ResNeXt bottom-up networks, from Detectron2's blocks and with its parameter names.

Published weights, with K = 1..4 the stage and j = 1..3 the convolution of block i (`deform.py` tells about `conv2`):

    here                    tianzhi0549/FCOS, torchvision, mmdetection
    stem.conv1              conv1 (tianzhi0549/FCOS: stem.conv1)
    stem.conv1.norm         bn1 (tianzhi0549/FCOS: stem.bn1)
    res{K+1}.i.convj        layer{K}.i.convj
    res{K+1}.i.convj.norm   layer{K}.i.bnj
    res{K+1}.i.shortcut     layer{K}.i.downsample.0, its norm downsample.1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from fvcore.nn.weight_init import c2_msra_fill

from ...options import as_tuple
from ..deform import DeformConv
from ..norm import norm_layer
from ..rewrite.fold import folding
from .network import Network, yacs_keys

_BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


# Index of the last block of res4, which tells depths apart.
LAST_BLOCK = {depth: blocks[2] - 1 for depth, blocks in _BLOCKS_PER_STAGE.items()}


class DeformBottleneck(BottleneckBlock):
    """A bottleneck whose 3x3 convolution is deformable; the rest is Detectron2's.

    Args:
        deform_groups, deform_modulated, deform_offset_init: of `DeformConv`.
        others: as in `BottleneckBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deform_groups: int = 1,
        deform_modulated: bool = True,
        deform_offset_init: str = "zero",
        **others: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, **others)
        plain: Any = self.conv2  # type: ignore[has-type]  # Detectron2's
        self.conv2 = DeformConv(
            plain.in_channels,
            plain.out_channels,
            stride=plain.stride[0],
            groups=plain.groups,
            deform_groups=deform_groups,
            bias=False,
            norm=plain.norm,
            modulated=deform_modulated,
            offset_init=deform_offset_init,
        )
        c2_msra_fill(self.conv2)


def resnet(
    depth: int,
    *,
    in_channels: int = 3,
    stem_out_channels: int = 64,
    res2_out_channels: int = 256,
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = True,
    norm: str = "FrozenBN",
    freeze_at: int = 2,
    deform_per_stage: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = True,
    deform_groups: int = 1,
    deform_offset_init: str = "zero",
    out_features: Sequence[str] = ("res3", "res4", "res5"),
) -> ResNet:
    """Build a ResNet (arXiv:1512.03385) or ResNeXt (arXiv:1611.05431), with deformable stages or without.

    The arguments are those of `MODEL.RESNETS` in Detectron2. Unlike its own builder, narrow 18- and 34-layer networks
    are allowed: every stage has `res2_out_channels` times 1, 2, 4, 8.

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        in_channels: of the image.
        stem_out_channels, res2_out_channels: widths of the stem and of the first stage.
        num_groups, width_per_group: of the 3x3 convolutions of bottlenecks; 32 and 8 for ResNeXt 32x8d.
        stride_in_1x1: downsample in the first 1x1 of a bottleneck (MSRA weights) instead of its 3x3.
        norm: of all convolutions, see `norm.norm_layer`.
        freeze_at: number of stages, the stem counted, that are not trained.
        deform_per_stage: for res2 to res5, whether the 3x3 convolutions of its bottlenecks are deformable.
        deform_modulated, deform_groups, deform_offset_init: of `DeformConv`.
        out_features: names of the stages to return.
    Raises:
        ValueError: no such depth, groups or deformable stages for a network of basic blocks, or not four stages.
    """
    deform = list(deform_per_stage)
    _check(depth, num_groups, deform)
    offsets = {"groups": deform_groups, "modulated": deform_modulated, "offset_init": deform_offset_init}
    stages, width = [], stem_out_channels
    for i, num_blocks in enumerate(_BLOCKS_PER_STAGE[depth]):
        out, strides = res2_out_channels * 2**i, [1 if i == 0 else 2] + [1] * (num_blocks - 1)
        arguments: dict[str, Any] = {"stride_per_block": strides, "norm": norm_layer(norm)}
        if depth >= 50:
            bottleneck = num_groups * width_per_group * 2**i
            arguments |= dict(num_groups=num_groups, stride_in_1x1=stride_in_1x1, bottleneck_channels=bottleneck)
        if deform[i]:
            arguments |= {f"deform_{name}": value for name, value in offsets.items()}
        block = DeformBottleneck if deform[i] else BottleneckBlock if depth >= 50 else BasicBlock
        stages.append(ResNet.make_stage(block, num_blocks, in_channels=width, out_channels=out, **arguments))
        width = out
    stem = BasicStem(in_channels, stem_out_channels, norm=norm_layer(norm))
    net = ResNet(stem, stages, out_features=list(as_tuple(out_features)), freeze_at=freeze_at)
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d):
            # Detectron2's main keeps the counter of a batch norm that it freezes, 0.6 does not: equal tensors for both.
            module.register_buffer("num_batches_tracked", None)
    return folding(net)


def _check(depth: int, num_groups: int, deform: list[bool]) -> None:
    """Raise ValueError if there is no such ResNet."""
    if depth not in _BLOCKS_PER_STAGE:
        raise ValueError(
            f"There is no ResNet of depth {depth}; choose one of {', '.join(map(str, _BLOCKS_PER_STAGE))}."
        )
    if depth < 50 and (num_groups != 1 or any(deform)):
        raise ValueError(
            f"A ResNet of depth {depth} has neither groups nor deformable stages, "
            f"but num_groups is {num_groups} and deform_per_stage is {deform}."
        )
    if len(deform) != 4:
        raise ValueError(f"deform_per_stage is {deform}, but it needs one value for each of res2, res3, res4 and res5.")


def _check_config(cfg) -> None:
    dilation = cfg.MODEL.RESNETS.RES5_DILATION
    if dilation != 1:
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION is {dilation}, but FCOS's backbones have no dilation: set 1.")


NETWORK = Network(
    resnet,
    "RESNETS",
    {"DEFORM_OFFSET_INIT": "zero"},  # Detectron2 has the other keys
    yacs_keys(
        "RESNETS",
        *("depth", "stem_out_channels", "res2_out_channels", "num_groups", "width_per_group", "stride_in_1x1", "norm"),
        *("deform_modulated", "deform_offset_init", "out_features"),
        deform_per_stage="RESNETS.DEFORM_ON_PER_STAGE",
        deform_groups="RESNETS.DEFORM_NUM_GROUPS",
    ),
    ("res3", "res4", "res5"),
    "res2.0.conv1.weight",
    _check_config,
)
