"""The table of backbones: a row for each, data only.

`compose` builds the row's network, and the backbone YAML files are written from the same row.

What may be changed here: networks from an image to feature maps, and their rows. What is done with the maps is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from detectron2.modeling import Backbone
from torchvision.models import MobileNet_V2_Weights

from .dla import DLA
from .dla import KEYS as _DLA_KEYS
from .fpn import fpn
from .hrnet import BRANCHES, HRNet, hrfpn, hrfpn_6l
from .hrnet import KEYS as _HRNET_KEYS
from .mobilenet import KEYS as _MOBILENET_KEYS
from .mobilenet import MobileNetV2
from .nas_fpn import nas_fpn, nas_fpn_nearest
from .resnet import KEYS as _RESNET_EXTRA_KEYS
from .resnet import resnet
from .vovnet import KEYS as _VOVNET_KEYS
from .vovnet import VoVNet

MSRA = "detectron2://ImageNetPretrained/MSRA"
# Caffe2 weights that have the pixel deviation absorbed (deviation 1); those converted again, detectron2://, have not.
FAIR = "catalog://ImageNetPretrained/FAIR"
TORCHVISION = "detectron2://ImageNetPretrained/torchvision"
_M_LSJ = "open-mmlab/mmdetection, configs/fcos, lsj-200e of "
_TORCH: dict[str, Any] = {"stride_in_1x1": False, "norm": "EvalBN"}
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
    "deform_per_stage": "MODEL.RESNETS.DEFORM_ON_PER_STAGE",
    "deform_modulated": "MODEL.RESNETS.DEFORM_MODULATED",
    "deform_groups": "MODEL.RESNETS.DEFORM_NUM_GROUPS",
    "deform_offset_init": "MODEL.RESNETS.DEFORM_OFFSET_INIT",
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


_32X8D: dict[str, Any] = {"num_groups": 32, "width_per_group": 8, "stride_in_1x1": False}
_64X4D: dict[str, Any] = {"num_groups": 64, "width_per_group": 4, "stride_in_1x1": False}
_DCN: dict[str, Any] = {"deform_modulated": True, "deform_groups": 1}
_DCN_3_5 = {"deform_per_stage": (False, True, True, True), **_DCN}
_DCN_4_5 = {"deform_per_stage": (False, False, True, True), **_DCN}


def _mobilenet_row(config: str, norm: str, channels: int = 256) -> BackboneRow:
    return BackboneRow(
        MobileNetV2,
        {"norm": norm, "freeze_at": 0},
        # The published ones, mobilenet_v2-ecbe2b5.pth, are no longer where the configs point to.
        MobileNet_V2_Weights.IMAGENET1K_V1.url,
        f"tianzhi0549/FCOS, configs/fcos/{config}.yaml",
        channels=channels,
        builder="build_fcos_mnv2_fpn_backbone",
        yaml={
            "norm": "MODEL.MOBILENETV2.NORM",
            "freeze_at": "MODEL.BACKBONE.FREEZE_AT",
            "out_features": "MODEL.RESNETS.OUT_FEATURES",
        },
    )


def _vovnet_row(size: str, weights: str, source: str) -> BackboneRow:
    return BackboneRow(
        VoVNet,
        {"size": size, "norm": "FrozenBN", "freeze_at": 0},
        weights,
        source,
        features=("stage3", "stage4", "stage5"),
        builder="build_fcos_vovnet_fpn_backbone",
        yaml={
            "size": "MODEL.VOVNET.CONV_BODY",
            "norm": "MODEL.VOVNET.NORM",
            "freeze_at": "MODEL.BACKBONE.FREEZE_AT",
            "out_features": "MODEL.VOVNET.OUT_FEATURES",
        },
    )


def _hrnet_row(width: int, num_levels: int, source: str, norm: str = "EvalBN") -> BackboneRow:
    return BackboneRow(
        HRNet,
        {"width": width, "norm": norm, "freeze_at": 0},
        f"https://download.openmmlab.com/pretrain/third_party/hrnetv2_w{width}-{_HRNET_HASHES[width]}.pth",
        source,
        pyramid={5: hrfpn, 6: hrfpn_6l}[num_levels],
        features=BRANCHES,
        builder={5: "build_fcos_hrnet_hrfpn_backbone", 6: "build_fcos_hrnet_hrfpn_6l_backbone"}[num_levels],
        yaml={
            "width": "MODEL.HRNET.WIDTH",
            "norm": "MODEL.HRNET.NORM",
            "freeze_at": "MODEL.BACKBONE.FREEZE_AT",
            "out_features": "MODEL.HRNET.OUT_FEATURES",
        },
    )


# HRNet-FCOS takes the same ImageNet weights from the command line, under names without a host.
_HRNET_HASHES = {18: "00eb2006", 32: "dc9eeb4f", 40: "ed0b031c"}
_H = "HRNet/HRNet-FCOS, configs/fcos/fcos_hrnet_"
_N = "Lausannen/NAS-FCOS, configs/search/"
_O = "vov-net/VoVNet-FCOS, configs/vovnet/"
_A_VOVNET = "aim-uofa/AdelaiDet, configs/FCOS-Detection/vovnet/"
_DROPBOX = "https://dl.dropbox.com/s"


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
    "R_50_dcnv2_FPN": _resnet_row(
        50,
        f"{MSRA}/R-50.pkl",
        "tianzhi0549/FCOS, configs/fcos/fcos_imprv_dcnv2_R_50_FPN_1x.yaml",
        **_DCN_3_5,
        deform_offset_init="kaiming_uniform",
    ),
    "R_101_dcnv2_FPN": _resnet_row(
        101,
        f"{MSRA}/R-101.pkl",
        "tianzhi0549/FCOS, configs/fcos/fcos_imprv_dcnv2_R_101_FPN_2x.yaml",
        **_DCN_3_5,
        deform_offset_init="kaiming_uniform",
    ),
    "X_101_32x8d_dcnv2_FPN": _resnet_row(
        101,
        f"{FAIR}/X-101-32x8d",
        "tianzhi0549/FCOS, configs/fcos/fcos_imprv_dcnv2_X_101_32x8d_FPN_2x.yaml",
        **_32X8D,
        **_DCN_4_5,
        deform_offset_init="kaiming_uniform",
    ),
    "X_101_64x4d_dcnv2_FPN": _resnet_row(
        101,
        f"{FAIR}/X-101-64x4d",
        "tianzhi0549/FCOS, configs/fcos/fcos_imprv_dcnv2_X_101_64x4d_FPN_2x.yaml",
        **_64X4D,
        **_DCN_4_5,
        deform_offset_init="kaiming_uniform",
    ),
    # The same networks, started with offsets of zero.
    "R_50_dcnv2_zero_FPN": _resnet_row(
        50,
        f"{MSRA}/R-50.pkl",
        "open-mmlab/mmdetection, configs/fcos/"
        "fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
        **_DCN_3_5,
    ),
    "X_101_64x4d_dcnv2_zero_FPN": _resnet_row(
        101,
        f"{FAIR}/X-101-64x4d",
        "aim-uofa/AdelaiDet, configs/FCOS-Detection/MS_X_101_64x4d_2x_dcnv2.yaml",
        **_64X4D,
        **_DCN_4_5,
    ),
    # The weights that Detectron2 converted again: they expect the pixel deviation.
    "X_101_32x8d_std_FPN": _resnet_row(
        101,
        "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl",
        "aim-uofa/AdelaiDet, configs/FCOS-Detection/MS_X_101_32x8d_2x.yaml",
        pixel_std=_IMAGENET_STD,
        **_32X8D,
    ),
    "X_101_32x8d_std_dcnv2_zero_FPN": _resnet_row(
        101,
        "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl",
        "aim-uofa/AdelaiDet, configs/FCOS-Detection/MS_X_101_32x8d_2x_dcnv2.yaml",
        pixel_std=_IMAGENET_STD,
        **_32X8D,
        **_DCN_4_5,
    ),
    # Detectron2 freezes the stem and res2, norms included; the rest learns with statistics over all workers.
    "R_50_syncbn_FPN": _resnet_row(
        50,
        f"{MSRA}/R-50.pkl",
        "aim-uofa/AdelaiDet, configs/FCOS-Detection/FCOS_RT/MS_R_50_4x_syncbn.yaml",
        norm="SyncBN",
    ),
    "MNV2_FPN": _mobilenet_row("fcos_bn_bs16_MNV2_FPN_1x", norm="BN"),
    "MNV2_syncbn_FPN": _mobilenet_row("fcos_syncbn_bs32_MNV2_FPN_1x", norm="SyncBN"),
    "MNV2_c128_syncbn_FPN": _mobilenet_row("fcos_syncbn_bs32_c128_MNV2_FPN_1x", norm="SyncBN", channels=128),
    "DLA_34_FPN": BackboneRow(
        DLA,
        {"conv_body": "DLA34", "norm": "SyncBN", "freeze_at": -1},
        "http://dl.yf.io/dla/models/imagenet/dla34-ba72cf86.pth",
        "aim-uofa/AdelaiDet, configs/FCOS-Detection/FCOS_RT/MS_DLA_34_4x_syncbn.yaml",
        features=("level3", "level4", "level5"),
        builder="build_fcos_dla_fpn_backbone",
        yaml={
            "conv_body": "MODEL.DLA.CONV_BODY",
            "norm": "MODEL.DLA.NORM",
            "freeze_at": "MODEL.BACKBONE.FREEZE_AT",
        },
    ),
    # PyTorch style: downsampling in the 3x3, RGB statistics (which the recipes have).
    "R_50_torch_frozen_FPN": _resnet_row(
        50, f"{TORCHVISION}/R-50.pkl", "pytorch/vision, torchvision/models/detection/fcos.py", stride_in_1x1=False
    ),
    "R_18_torch_FPN": _resnet_row(18, "torchvision://resnet18", f"{_M_LSJ}r18", **_TORCH),
    "R_50_torch_FPN": _resnet_row(50, f"{TORCHVISION}/R-50.pkl", f"{_M_LSJ}r50", **_TORCH),
    "R_101_torch_FPN": _resnet_row(101, f"{TORCHVISION}/R-101.pkl", f"{_M_LSJ}r101", **_TORCH),
    "X_101_64x4d_torch_FPN": _resnet_row(
        101,
        "open-mmlab://resnext101_64x4d",
        "open-mmlab/mmdetection, configs/fcos/fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco.py",
        **_64X4D | _TORCH,
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

BACKBONES |= {
    "V_39_FPN": _vovnet_row(
        "V-39", f"{_DROPBOX}/s7f4vyfybyc9qpr/vovnet39_statedict_norm.pth", f"{_O}fcos_V_39_FPN_1x.yaml"
    ),
    "V_57_FPN": _vovnet_row(
        "V-57", f"{_DROPBOX}/b826phjle6kbamu/vovnet57_statedict_norm.pth", f"{_O}fcos_V_57_FPN_2x_ms.yaml"
    ),
    "V_93_FPN": _vovnet_row(
        "V-93", f"{_DROPBOX}/qtly316zv1isn0t/vovnet93_statedict_norm.pth.tar", f"{_O}fcos_V_93_FPN_2x_ms.yaml"
    ),
    # Published with ImageNet weights and other detectors.
    "V_19_slim_eSE_FPN": _vovnet_row(
        "V-19-slim-eSE",
        f"{_DROPBOX}/8h5ybmi4ftbcom0/vovnet19_ese_slim_detectron2.pth",
        "youngwanLEE/vovnet-detectron2, configs/faster_rcnn_V_19_slim_FPNLite_3x.yaml",
    ),
    "V_39_eSE_FPN": _vovnet_row(
        "V-39-eSE", f"{_DROPBOX}/q98pypf96rhtd8y/vovnet39_ese_detectron2.pth", f"{_A_VOVNET}MS_V_39_3x.yaml"
    ),
    "V_57_eSE_FPN": _vovnet_row(
        "V-57-eSE", f"{_DROPBOX}/8xl0cb3jj51f45a/vovnet57_ese_detectron2.pth", f"{_A_VOVNET}MS_V_57_3x.yaml"
    ),
    "V_99_eSE_FPN": _vovnet_row(
        "V-99-eSE", f"{_DROPBOX}/1mlv31coewx8trd/vovnet99_ese_detectron2.pth", f"{_A_VOVNET}MS_V_99_3x.yaml"
    ),
    "HRNet_W18_HRFPN": _hrnet_row(18, 5, f"{_H}w18_5l_2x.yaml"),
    "HRNet_W32_HRFPN": _hrnet_row(32, 5, f"{_H}w32_5l_2x.yaml"),
    "HRNet_W40_HRFPN": _hrnet_row(
        40, 5, "open-mmlab/mmdetection, configs/hrnet/fcos_hrnetv2p-w40-gn-head_ms-640-800-4xb4-2x_coco.py"
    ),
    "HRNet_W18_HRFPN_6l": _hrnet_row(18, 6, f"{_H}w18_6l_2x.yaml"),
    "HRNet_W32_HRFPN_6l": _hrnet_row(32, 6, f"{_H}w32_6l_2x.yaml"),
    "HRNet_W40_HRFPN_6l": _hrnet_row(40, 6, f"{_H}w40_6l_3x.yaml"),
    "HRNet_W18_syncbn_HRFPN": _hrnet_row(18, 5, f"{_H}w18_5l_ms_2x.yaml with MODEL.SYNCBN True", norm="SyncBN"),
    "HRNet_W32_syncbn_HRFPN": _hrnet_row(32, 5, f"{_H}w32_5l_2x.yaml with MODEL.SYNCBN True", norm="SyncBN"),
    "HRNet_W32_syncbn_HRFPN_6l": _hrnet_row(32, 6, f"{_H}w32_6l_2x.yaml with MODEL.SYNCBN True", norm="SyncBN"),
    # What HRNet-FCOS compares its 6-level models with.
    "R_50_FPN_6l": replace(
        BACKBONES["R_50_FPN"],
        features=("res2", "res3", "res4", "res5"),
        source="HRNet/HRNet-FCOS, README.md (no config file there)",
    ),
    "R_101_FPN_6l": replace(
        BACKBONES["R_101_FPN"],
        features=("res2", "res3", "res4", "res5"),
        source="HRNet/HRNet-FCOS, README.md (no config file there)",
    ),
    "R_50_NASFPN": replace(
        BACKBONES["R_50_FPN"],
        pyramid=nas_fpn,
        builder="build_fcos_resnet_nas_fpn_backbone",
        source=f"{_N}R_50_NAS_densebox.yaml",
    ),
    "R_101_NASFPN": replace(
        BACKBONES["R_101_FPN"],
        pyramid=nas_fpn,
        builder="build_fcos_resnet_nas_fpn_backbone",
        source=f"{_N}R_101_NAS_densebox.yaml",
    ),
    "X_101_32x8d_NASFPN": replace(
        BACKBONES["X_101_32x8d_FPN"],
        pyramid=nas_fpn,
        builder="build_fcos_resnet_nas_fpn_backbone",
        source=f"{_N}R_101_X_32x8d_NAS_densebox.yaml",
    ),
    "MNV2_NASFPN": replace(
        BACKBONES["MNV2_FPN"],
        arguments={**BACKBONES["MNV2_FPN"].arguments, "freeze_at": 2},
        pyramid=nas_fpn,
        builder="build_fcos_mnv2_nas_fpn_backbone",
        source=f"{_N}Mobile_NAS_densebox.yaml",
    ),
    "R_50_NASFPN_nearest": replace(
        BACKBONES["R_50_FPN"],
        pyramid=nas_fpn_nearest,
        builder="build_fcos_resnet_nas_fpn_nearest_backbone",
        source="open-mmlab/mmdetection, configs/nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py",
    ),
}

# Nodes and keys below `MODEL` that the networks add to Detectron2's.
BACKBONE_KEYS: dict[str, Mapping[str, Any]] = {
    "RESNETS": _RESNET_EXTRA_KEYS,
    "DLA": _DLA_KEYS,
    "MOBILENETV2": _MOBILENET_KEYS,
    "VOVNET": _VOVNET_KEYS,
    "HRNET": _HRNET_KEYS,
}

__all__ = ["BACKBONES", "BACKBONE_KEYS", "BackboneRow", "fpn", "resnet"]
