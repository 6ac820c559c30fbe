"""The head that NAS-FCOS found by search (arXiv:1906.04423).

Each branch is a chain of layers, shared by all levels. Parameters of layer I (`deform.py` tells about the tensors of
deformable ones, whose offsets NAS-FCOS calls `conv_offset_mask`):

    here                        Lausannen/NAS-FCOS (decoder.rpn.head.*)            mmdetection (bbox_head.*)
    cls_tower.I.conv            _cls_head_global_ops.I.0; deformable .I.dcn.0      cls_convs.I.conv
    cls_tower.I.norm            _cls_head_global_ops.I.1; deformable .I.dcn.1      cls_convs.I.gn
    bbox_tower.I                _reg_head_global_ops.I                             reg_convs.I
    cls_logits, bbox_pred       the same                                           conv_cls, conv_reg
    quality                     centerness                                         conv_centerness
    scales[L]                   scales.L.scale                                     scales.L.scale
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..options import as_tuple, one_of, option
from .deform import DeformConv
from .exact_norm import GroupNorm
from .head import FCOS_HEAD_REGISTRY, DenseHead, start_conv
from .traits import Traits

_LAYERS = ("deform3x3", "conv3x3", "conv1x1")


class NASLayer(nn.Module):
    """A convolution, GroupNorm of 32 groups, ReLU.

    Args:
        channels: of input and output.
        kind: "deform3x3" (modulated, always with bias), "conv3x3" or "conv1x1".
        deform_groups: groups of channels that share their offsets.
        conv_bias: whether plain convolutions have a bias.
    """

    traits = Traits(recomputable=True)

    def __init__(self, channels: int, kind: str, deform_groups: int, conv_bias: bool) -> None:
        super().__init__()
        if kind == "deform3x3":
            self.conv: nn.Module = DeformConv(channels, channels, 3, deform_groups=deform_groups, bias=True)
        else:
            size = 3 if kind == "conv3x3" else 1
            self.conv = nn.Conv2d(channels, channels, size, padding=size // 2, bias=conv_bias)
        self.norm = GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu_()


@FCOS_HEAD_REGISTRY.register()
@dataclass(eq=False, repr=False)
class NASFCOSHead(DenseHead):
    """Predicts class logits, raw ltrb and quality for every location; also has the options of `DenseHead`.

    Attributes:
        layers: of both branches, in order, each "deform3x3", "conv3x3" or "conv1x1"; found by search are those of the
            default, after which the search chose two skips (Lausannen/NAS-FCOS, configs/search/R_50_NAS_head.yaml).
        deform_groups: groups of channels that share their offsets in deformable layers.
        conv_bias: whether plain convolutions of the branches have a bias.

    Raises:
        ValueError: an option has no such value, or GroupNorm cannot split the channels into 32 groups.
    """

    layers: tuple[str, ...] = option(("deform3x3", "conv3x3", "deform3x3", "conv1x1"), key="NAS_LAYERS")
    deform_groups: int = option(2, key="NAS_DEFORM_GROUPS")
    conv_bias: bool = option(False, key="CONV_BIAS")
    quality_on: str = option("class", key="QUALITY_ON")

    def __post_init__(self) -> None:
        super().__init__()
        self.layers = as_tuple(self.layers)
        for kind in self.layers:
            one_of("NASFCOSHead.layers", kind, _LAYERS)
        self._check(group_norm=True)

        def tower() -> nn.Sequential:
            layers = (NASLayer(self.in_channels, kind, self.deform_groups, self.conv_bias) for kind in self.layers)
            return nn.Sequential(*layers)

        self.cls_tower, self.bbox_tower = tower(), tower()
        self._add_predictors(start_conv)
        self._start_at_prior()

    def branches(self, x: Tensor, level: int) -> tuple[list[Tensor], list[Tensor]]:
        return self.class_maps(self.cls_tower(x)), self.box_maps(self.bbox_tower(x))
