"""ResNet and ResNeXt bottom-up networks, from Detectron2's blocks and with its parameter names."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.modeling.backbone.resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    ResNet,
)

from ...options import as_tuple

_BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


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
    out_features: Sequence[str] = ("res3", "res4", "res5"),
) -> ResNet:
    """Build a ResNet (arXiv:1512.03385) or ResNeXt (arXiv:1611.05431).

    The arguments are those of `MODEL.RESNETS` in Detectron2. Unlike its own builder, narrow 18- and 34-layer networks are
    allowed: every stage has `res2_out_channels` times 1, 2, 4, 8.

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        in_channels: of the image.
        stem_out_channels, res2_out_channels: widths of the stem and of the first stage.
        num_groups, width_per_group: of the 3x3 convolutions of bottlenecks; 32 and 8 for ResNeXt 32x8d.
        stride_in_1x1: downsample in the first 1x1 of a bottleneck (MSRA weights) instead of its 3x3.
        norm: Detectron2's name of the norm, e.g. "FrozenBN", "BN", "SyncBN", "GN".
        freeze_at: number of stages, the stem counted, that are not trained.
        out_features: names of the stages to return.
    Raises:
        ValueError: no such depth, or groups for a network of basic blocks.
    """
    if depth not in _BLOCKS_PER_STAGE:
        raise ValueError(
            f"There is no ResNet of depth {depth}; choose one of {', '.join(map(str, _BLOCKS_PER_STAGE))}."
        )
    basic = depth < 50
    if basic and num_groups != 1:
        raise ValueError(
            f"A ResNet of depth {depth} has no groups, but num_groups is {num_groups}."
        )
    stages, width = [], stem_out_channels
    for i, num_blocks in enumerate(_BLOCKS_PER_STAGE[depth]):
        out = res2_out_channels * 2**i
        bottleneck = {
            "bottleneck_channels": num_groups * width_per_group * 2**i,
            "num_groups": num_groups,
            "stride_in_1x1": stride_in_1x1,
        }
        stages.append(
            ResNet.make_stage(
                BasicBlock if basic else BottleneckBlock,
                num_blocks,
                in_channels=width,
                out_channels=out,
                stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
                norm=norm,
                **({} if basic else bottleneck),
            )
        )
        width = out
    stem = BasicStem(in_channels, stem_out_channels, norm=norm)
    return ResNet(
        stem, stages, out_features=list(as_tuple(out_features)), freeze_at=freeze_at
    )


def resnet_from_config(cfg, in_channels: int) -> ResNet:
    """The same from `MODEL.RESNETS.*` and `MODEL.BACKBONE.FREEZE_AT`.

    Raises:
        ValueError: the config asks for what FCOS's ResNets do not have.
    """
    node = cfg.MODEL.RESNETS
    if node.RES5_DILATION != 1:
        raise ValueError(
            f"MODEL.RESNETS.RES5_DILATION is {node.RES5_DILATION}, but FCOS's backbones have no dilation: set 1."
        )
    if any(node.DEFORM_ON_PER_STAGE):
        raise ValueError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE: deformable stages are not available, set all to False."
        )
    return resnet(
        node.DEPTH,
        in_channels=in_channels,
        stem_out_channels=node.STEM_OUT_CHANNELS,
        res2_out_channels=node.RES2_OUT_CHANNELS,
        num_groups=node.NUM_GROUPS,
        width_per_group=node.WIDTH_PER_GROUP,
        stride_in_1x1=node.STRIDE_IN_1X1,
        norm=node.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        out_features=node.OUT_FEATURES,
    )
