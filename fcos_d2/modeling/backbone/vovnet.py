"""VoVNet bottom-up networks: version 1 (arXiv:1904.09730), and version 2 with eSE (arXiv:1911.06667).

Parameters, with a norm being `.norm` of its convolution here; AdelaiDet and VoVNet-FCOS call them alike:

    here                    there
    stem.I                  stem.stem_{I+1}/conv and /norm
    stageS.B.layers.I       stageS.OSAS_{B+1}.layers.I.OSAS_{B+1}_I/conv and /norm
    stageS.B.concat         stageS.OSAS_{B+1}.concat.OSAS_{B+1}_concat/conv and /norm
    stageS.B.ese.fc         stageS.OSAS_{B+1}.ese.fc
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...options import one_of
from ..norm import freeze
from ..rewrite.fold import FoldedConv2d, conv_norm
from ..traits import Traits
from .network import FeatureBackbone, Network, register_builder, yacs_keys
from .pyramid import fpn_from_config


@dataclass(frozen=True)
class VoVNetSize:
    """One published size; tuples are of stages 2..5."""

    conv_channels: tuple[int, int, int, int]  # of the 3x3 convolutions
    out_channels: tuple[int, int, int, int]
    num_layers: int  # 3x3 convolutions in a block
    num_blocks: tuple[int, int, int, int]
    ese: bool  # channel attention at the end of each block (version 2)
    source: str  # where the numbers come from


_O = "vov-net/VoVNet-FCOS, fcos_core/modeling/backbone/vovnet.py"
_A = "aim-uofa/AdelaiDet, adet/modeling/backbone/vovnet.py"
_Y = "youngwanLEE/vovnet-detectron2, vovnet/vovnet.py"
_HALF = (64, 80, 96, 112)
_FULL = (128, 160, 192, 224)
_OUT = (256, 512, 768, 1024)

VOVNETS: dict[str, VoVNetSize] = {
    "V-27": VoVNetSize(_HALF, (128, 256, 384, 512), 5, (1, 1, 1, 1), False, _O),
    "V-39": VoVNetSize(_FULL, _OUT, 5, (1, 1, 2, 2), False, _O),
    "V-57": VoVNetSize(_FULL, _OUT, 5, (1, 1, 4, 3), False, _O),
    "V-93": VoVNetSize(_FULL, _OUT, 5, (1, 3, 8, 3), False, _O),
    "V-19-slim-eSE": VoVNetSize(_HALF, (112, 256, 384, 512), 3, (1, 1, 1, 1), True, _Y),
    "V-19-eSE": VoVNetSize(_FULL, _OUT, 3, (1, 1, 1, 1), True, _A),
    "V-39-eSE": VoVNetSize(_FULL, _OUT, 5, (1, 1, 2, 2), True, _A),
    "V-57-eSE": VoVNetSize(_FULL, _OUT, 5, (1, 1, 4, 3), True, _A),
    "V-99-eSE": VoVNetSize(_FULL, _OUT, 5, (1, 3, 9, 3), True, _A),
}

_STEM_CHANNELS = 128


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: str, stride: int = 1) -> FoldedConv2d:
    conv = conv_norm(in_channels, out_channels, kernel_size, norm, stride)
    nn.init.kaiming_normal_(conv.weight)
    return conv


class ESE(nn.Module):
    """Effective squeeze and excitation: each channel is scaled by a hard sigmoid of all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.mean = nn.AdaptiveAvgPool2d(1)
        nn.init.kaiming_normal_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(self.mean(x)))


class OSABlock(nn.Module):
    """One-shot aggregation: the input and the outputs of a chain of 3x3 convolutions meet in one 1x1 convolution.

    Args:
        in_channels, conv_channels, out_channels: of the input, each 3x3 convolution, and the output.
        num_layers: 3x3 convolutions in the chain.
        ese: scale the output's channels, see `ESE`.
        identity: add the input to the output; all blocks of a stage but its first.
        norm: name of the norm.
    """

    traits = Traits(recomputable=True)

    def __init__(
        self,
        in_channels: int,
        conv_channels: int,
        out_channels: int,
        num_layers: int,
        ese: bool,
        identity: bool,
        norm: str,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [conv_channels] * num_layers
        self.layers = nn.ModuleList(_conv(w, conv_channels, 3, norm) for w in widths[:-1])
        self.concat = _conv(sum(widths), out_channels, 1, norm)
        self.ese = ESE(out_channels) if ese else nn.Identity()
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        out = self.ese(self.concat(torch.cat(maps, dim=1)))
        return out + x if self.identity else out


class VoVNet(FeatureBackbone):
    """A stem and the stages 2..5 at strides 4, 8, 16, 32, each a chain of `OSABlock`.

    Args:
        size: name in `VOVNETS`.
        in_channels: of the image.
        norm: name of the norm, see `norm.norm_layer`.
        freeze_at: number of stages, the stem counted, that are not trained.
        out_features: names of the stages to return, of "stem", "stage2", ... "stage5".
    Raises:
        ValueError: there is no such size or stage.
    """

    traits = Traits(pooled=("stem", "stage2", "stage3", "stage4"))

    def __init__(
        self,
        size: str,
        *,
        in_channels: int = 3,
        norm: str = "FrozenBN",
        freeze_at: int = 0,
        out_features: Sequence[str] = ("stage3", "stage4", "stage5"),
    ) -> None:
        super().__init__()
        one_of("VoVNet.size", size, list(VOVNETS))
        row = VOVNETS[size]
        self.stem = nn.Sequential(
            _conv(in_channels, 64, 3, norm, stride=2),
            _conv(64, 64, 3, norm),
            _conv(64, _STEM_CHANNELS, 3, norm, stride=2),
        )
        channels, strides, width = {"stem": _STEM_CHANNELS}, {"stem": 4}, _STEM_CHANNELS
        for i, out_channels in enumerate(row.out_channels):
            blocks = []
            for b in range(row.num_blocks[i]):
                blocks.append(OSABlock(width, row.conv_channels[i], out_channels, row.num_layers, row.ese, b > 0, norm))
                width = out_channels
            name = f"stage{i + 2}"
            self.add_module(name, nn.Sequential(*blocks))
            channels[name], strides[name] = out_channels, 4 * 2**i
        self.declare(out_features, channels, strides)
        for name in list(strides)[: max(freeze_at, 0)]:
            freeze(self.get_submodule(name))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Image (N, in_channels, H, W) -> {name: map} of `out_features`."""
        maps = {}
        for name, stride in self._out_feature_strides.items():
            if stride > 4:
                x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
            x = self.get_submodule(name)(x)
            maps[name] = x
        return {name: maps[name] for name in self._out_features}


NETWORK = Network(
    VoVNet,
    "VOVNET",
    {  # AdelaiDet's keys and defaults; nobody reads the last two
        "CONV_BODY": "V-39-eSE",
        "OUT_FEATURES": ["stage2", "stage3", "stage4", "stage5"],
        "NORM": "FrozenBN",
        "OUT_CHANNELS": 256,
        "BACKBONE_OUT_CHANNELS": 256,
    },
    yacs_keys("VOVNET", "norm", "out_features", size="VOVNET.CONV_BODY"),
    ("stage3", "stage4", "stage5"),
    "stage2.0.concat.weight",
)
register_builder("build_fcos_vovnet_fpn_backbone", NETWORK, fpn_from_config)
