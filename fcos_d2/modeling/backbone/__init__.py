# ruff: noqa: E501  # a row is a line
"""The table of backbones: a row for each, data only.

What may be changed here: networks from an image to feature maps, and their rows. `compose` builds the
row's network, and the backbone YAML files are written from the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from detectron2.modeling import Backbone

from .dla import NETWORK as _DLA
from .hrnet import NETWORK as _HRNET
from .hrnet import hrfpn, hrfpn_6l
from .mobilenet import NETWORK as _MOBILENET
from .network import Network
from .pyramid import fpn
from .residual import LAST_BLOCK, resnet
from .residual import NETWORK as _RESNET
from .searched_pyramid import nas_fpn, nas_fpn_nearest
from .vovnet import NETWORK as _VOVNET

__all__ = ["BACKBONES", "BACKBONE_KEYS", "BackboneRow", "fpn", "resnet"]


@dataclass(frozen=True)
class BackboneRow:
    """One backbone as published.

    Attributes:
        bottom_up: builds the network from `arguments`.
        arguments: of `bottom_up`.
        weights: ImageNet weights to start from; empty to train from scratch.
        source: where the definition comes from.
        pyramid: makes the feature pyramid: `pyramid(bottom_up, in_features, out_channels, top_levels)`.
        features: bottom-up features that the pyramid merges.
        channels: of the pyramid.
        builder: name in Detectron2's backbone registry.
        pixel_mean, pixel_std: BGR pixel statistics that those weights expect; `None` leaves them to the recipe.
        yaml: yacs key of each argument.
        mark: tensor of the bottom-up network that other kinds of network have not.
        last_block, block_after: tensor that it has but shallower ones have not, and one that deeper ones have; or "".
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
    mark: str = ""
    last_block: str = ""
    block_after: str = ""


def _row(network: Network, arguments: Mapping[str, Any], weights: str, source: str, **more: Any) -> BackboneRow:
    declared = {"features": tuple(network.features), "yaml": network.yaml, "mark": network.mark}
    return BackboneRow(network.build, arguments, weights, source, **declared | more)


def _resnet(
    depth: int, weights: str, source: str, channels: int = 256, pixel_std: Any = None, **more: Any
) -> BackboneRow:
    width = {"stem_out_channels": 64, "res2_out_channels": 256 if depth >= 50 else 64}
    plain = {"num_groups": 1, "width_per_group": 64, "stride_in_1x1": True, "norm": "FrozenBN", "freeze_at": 2}
    last, after = (f"res4.{LAST_BLOCK[depth] + i}.conv1.weight" for i in range(2))
    fields = {"channels": channels, "pixel_std": pixel_std, "last_block": last, "block_after": after}
    return _row(_RESNET, {"depth": depth, **width, **plain, **more}, weights, source, **fields)


def _mobilenet(config: str, norm: str, channels: int = 256) -> BackboneRow:
    weights = "https://huggingface.co/tianzhi/FCOS/resolve/main/mobilenet_v2-ecbe2b5.pth"  # where its author keeps it
    source = f"tianzhi0549/FCOS, configs/fcos/{config}.yaml"
    builder = "build_fcos_mnv2_fpn_backbone"
    return _row(_MOBILENET, {"norm": norm, "freeze_at": 0}, weights, source, channels=channels, builder=builder)


def _vovnet(size: str, weights: str, source: str) -> BackboneRow:
    weights, builder = f"https://dl.dropbox.com/s/{weights}", "build_fcos_vovnet_fpn_backbone"
    return _row(_VOVNET, {"size": size, "norm": "FrozenBN", "freeze_at": 0}, weights, source, builder=builder)


def _hrnet(width: int, num_levels: int, source: str, norm: str = "EvalBN") -> BackboneRow:
    # HRNet-FCOS takes the same ImageNet weights from the command line, under names without a host.
    weights = "https://download.openmmlab.com/pretrain/third_party/hrnetv2_w"
    weights += {18: "18-00eb2006.pth", 32: "32-dc9eeb4f.pth", 40: "40-ed0b031c.pth"}[width]
    pyramid, end = {5: (hrfpn, ""), 6: (hrfpn_6l, "_6l")}[num_levels]
    builder, arguments = f"build_fcos_hrnet_hrfpn{end}_backbone", {"width": width, "norm": norm, "freeze_at": 0}
    return _row(_HRNET, arguments, weights, source, pyramid=pyramid, builder=builder)


_MSRA = "detectron2://ImageNetPretrained/MSRA/"
# Caffe2 weights that have the pixel deviation absorbed (deviation 1); those converted again, detectron2://, have not.
_FAIR = "catalog://ImageNetPretrained/FAIR/"
_FAIR_STD = "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl"
_TORCHVISION = "detectron2://ImageNetPretrained/torchvision/"
_STD = (57.375, 57.12, 58.395)  # ImageNet's, BGR, of pixels in 0..255
_TORCH: dict[str, Any] = {"stride_in_1x1": False, "norm": "EvalBN"}
_32X8D: dict[str, Any] = {"num_groups": 32, "width_per_group": 8, "stride_in_1x1": False}
_64X4D: dict[str, Any] = {"num_groups": 64, "width_per_group": 4, "stride_in_1x1": False}
_DCN_3_5: dict[str, Any] = {"deform_per_stage": (False, True, True, True), "deform_modulated": True, "deform_groups": 1}
_DCN_4_5: dict[str, Any] = _DCN_3_5 | {"deform_per_stage": (False, False, True, True)}
_KAIMING: dict[str, Any] = {"deform_offset_init": "kaiming_uniform"}
_SCRATCH: dict[str, Any] = {"pixel_std": _STD, "norm": "BN", "freeze_at": 0}

_F = "tianzhi0549/FCOS, configs/fcos/fcos_"
_A = "aim-uofa/AdelaiDet, configs/FCOS-Detection/"
_M = "open-mmlab/mmdetection, configs/"
_M_LSJ = f"{_M}fcos, lsj-200e of "
_H = "HRNet/HRNet-FCOS, configs/fcos/fcos_hrnet_"
_H_README = "HRNet/HRNet-FCOS, README.md (no config file there)"
_N = "Lausannen/NAS-FCOS, configs/search/"
_O = "vov-net/VoVNet-FCOS, configs/vovnet/"
_Y = "youngwanLEE/vovnet-detectron2, configs/faster_rcnn_"
_NAS: dict[str, Any] = {"pyramid": nas_fpn, "builder": "build_fcos_resnet_nas_fpn_backbone"}

# fmt: off
BACKBONES: dict[str, BackboneRow] = {
    "R_50_FPN": _resnet(50, f"{_MSRA}R-50.pkl", f"{_F}R_50_FPN_1x.yaml"),
    "R_101_FPN": _resnet(101, f"{_MSRA}R-101.pkl", f"{_F}R_101_FPN_2x.yaml"),
    "X_101_32x8d_FPN": _resnet(101, f"{_FAIR}X-101-32x8d", f"{_F}X_101_32x8d_FPN_2x.yaml", **_32X8D),
    "X_101_64x4d_FPN": _resnet(101, f"{_FAIR}X-101-64x4d", f"{_F}X_101_64x4d_FPN_2x.yaml", **_64X4D),
    "R_50_dcnv2_FPN": _resnet(50, f"{_MSRA}R-50.pkl", f"{_F}imprv_dcnv2_R_50_FPN_1x.yaml", **_DCN_3_5, **_KAIMING),
    "R_101_dcnv2_FPN": _resnet(101, f"{_MSRA}R-101.pkl", f"{_F}imprv_dcnv2_R_101_FPN_2x.yaml", **_DCN_3_5, **_KAIMING),
    "X_101_32x8d_dcnv2_FPN": _resnet(101, f"{_FAIR}X-101-32x8d", f"{_F}imprv_dcnv2_X_101_32x8d_FPN_2x.yaml", **_32X8D, **_DCN_4_5, **_KAIMING),
    "X_101_64x4d_dcnv2_FPN": _resnet(101, f"{_FAIR}X-101-64x4d", f"{_F}imprv_dcnv2_X_101_64x4d_FPN_2x.yaml", **_64X4D, **_DCN_4_5, **_KAIMING),
    # The same networks, started with offsets of zero.
    "R_50_dcnv2_zero_FPN": _resnet(50, f"{_MSRA}R-50.pkl", f"{_M}fcos/fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py", **_DCN_3_5),
    "X_101_64x4d_dcnv2_zero_FPN": _resnet(101, f"{_FAIR}X-101-64x4d", f"{_A}MS_X_101_64x4d_2x_dcnv2.yaml", **_64X4D, **_DCN_4_5),
    # The weights that Detectron2 converted again: they expect the pixel deviation.
    "X_101_32x8d_std_FPN": _resnet(101, _FAIR_STD, f"{_A}MS_X_101_32x8d_2x.yaml", pixel_std=_STD, **_32X8D),
    "X_101_32x8d_std_dcnv2_zero_FPN": _resnet(101, _FAIR_STD, f"{_A}MS_X_101_32x8d_2x_dcnv2.yaml", pixel_std=_STD, **_32X8D, **_DCN_4_5),
    # Detectron2 freezes the stem and res2, norms included; the rest learns with statistics over all workers.
    "R_50_syncbn_FPN": _resnet(50, f"{_MSRA}R-50.pkl", f"{_A}FCOS_RT/MS_R_50_4x_syncbn.yaml", norm="SyncBN"),
    "MNV2_FPN": _mobilenet("fcos_bn_bs16_MNV2_FPN_1x", "BN"),
    "MNV2_syncbn_FPN": _mobilenet("fcos_syncbn_bs32_MNV2_FPN_1x", "SyncBN"),
    "MNV2_c128_syncbn_FPN": _mobilenet("fcos_syncbn_bs32_c128_MNV2_FPN_1x", "SyncBN", 128),
    "DLA_34_FPN": _row(_DLA, {"conv_body": "DLA34", "norm": "SyncBN", "freeze_at": -1}, "http://dl.yf.io/dla/models/imagenet/dla34-ba72cf86.pth", f"{_A}FCOS_RT/MS_DLA_34_4x_syncbn.yaml", builder="build_fcos_dla_fpn_backbone"),
    # PyTorch style: downsampling in the 3x3, RGB statistics (which the recipes have).
    "R_50_torch_frozen_FPN": _resnet(50, f"{_TORCHVISION}R-50.pkl", "pytorch/vision, torchvision/models/detection/fcos.py", stride_in_1x1=False),
    "R_18_torch_FPN": _resnet(18, "torchvision://resnet18", f"{_M_LSJ}r18", **_TORCH),
    "R_50_torch_FPN": _resnet(50, f"{_TORCHVISION}R-50.pkl", f"{_M_LSJ}r50", **_TORCH),
    "R_101_torch_FPN": _resnet(101, f"{_TORCHVISION}R-101.pkl", f"{_M_LSJ}r101", **_TORCH),
    "X_101_64x4d_torch_FPN": _resnet(101, "open-mmlab://resnext101_64x4d", f"{_M}fcos/fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco.py", **_64X4D | _TORCH),
    # For small data and small machines: trained from scratch, so nothing is frozen.
    "R_18_FPN": _resnet(18, "", "ResNet-18 of arXiv:1512.03385", channels=128, **_SCRATCH),
    "R_18_slim_FPN": _resnet(18, "", "ResNet-18 of arXiv:1512.03385 at half its width", channels=64, stem_out_channels=32, res2_out_channels=32, **_SCRATCH),
    "V_39_FPN": _vovnet("V-39", "s7f4vyfybyc9qpr/vovnet39_statedict_norm.pth", f"{_O}fcos_V_39_FPN_1x.yaml"),
    "V_57_FPN": _vovnet("V-57", "b826phjle6kbamu/vovnet57_statedict_norm.pth", f"{_O}fcos_V_57_FPN_2x_ms.yaml"),
    "V_93_FPN": _vovnet("V-93", "qtly316zv1isn0t/vovnet93_statedict_norm.pth.tar", f"{_O}fcos_V_93_FPN_2x_ms.yaml"),
    # Published with ImageNet weights and other detectors.
    "V_19_slim_eSE_FPN": _vovnet("V-19-slim-eSE", "8h5ybmi4ftbcom0/vovnet19_ese_slim_detectron2.pth", f"{_Y}V_19_slim_FPNLite_3x.yaml"),
    "V_39_eSE_FPN": _vovnet("V-39-eSE", "q98pypf96rhtd8y/vovnet39_ese_detectron2.pth", f"{_A}vovnet/MS_V_39_3x.yaml"),
    "V_57_eSE_FPN": _vovnet("V-57-eSE", "8xl0cb3jj51f45a/vovnet57_ese_detectron2.pth", f"{_A}vovnet/MS_V_57_3x.yaml"),
    "V_99_eSE_FPN": _vovnet("V-99-eSE", "1mlv31coewx8trd/vovnet99_ese_detectron2.pth", f"{_A}vovnet/MS_V_99_3x.yaml"),
    "HRNet_W18_HRFPN": _hrnet(18, 5, f"{_H}w18_5l_2x.yaml"),
    "HRNet_W32_HRFPN": _hrnet(32, 5, f"{_H}w32_5l_2x.yaml"),
    "HRNet_W40_HRFPN": _hrnet(40, 5, f"{_M}hrnet/fcos_hrnetv2p-w40-gn-head_ms-640-800-4xb4-2x_coco.py"),
    "HRNet_W18_HRFPN_6l": _hrnet(18, 6, f"{_H}w18_6l_2x.yaml"),
    "HRNet_W32_HRFPN_6l": _hrnet(32, 6, f"{_H}w32_6l_2x.yaml"),
    "HRNet_W40_HRFPN_6l": _hrnet(40, 6, f"{_H}w40_6l_3x.yaml"),
    "HRNet_W18_syncbn_HRFPN": _hrnet(18, 5, f"{_H}w18_5l_ms_2x.yaml with MODEL.SYNCBN True", "SyncBN"),
    "HRNet_W32_syncbn_HRFPN": _hrnet(32, 5, f"{_H}w32_5l_2x.yaml with MODEL.SYNCBN True", "SyncBN"),
    "HRNet_W32_syncbn_HRFPN_6l": _hrnet(32, 6, f"{_H}w32_6l_2x.yaml with MODEL.SYNCBN True", "SyncBN"),
}

_ALSO_RES2, _MNV2 = ("res2", "res3", "res4", "res5"), BACKBONES["MNV2_FPN"]
BACKBONES |= {
    # What HRNet-FCOS compares its 6-level models with.
    "R_50_FPN_6l": replace(BACKBONES["R_50_FPN"], features=_ALSO_RES2, source=_H_README),
    "R_101_FPN_6l": replace(BACKBONES["R_101_FPN"], features=_ALSO_RES2, source=_H_README),
    "R_50_NASFPN": replace(BACKBONES["R_50_FPN"], source=f"{_N}R_50_NAS_densebox.yaml", **_NAS),
    "R_101_NASFPN": replace(BACKBONES["R_101_FPN"], source=f"{_N}R_101_NAS_densebox.yaml", **_NAS),
    "X_101_32x8d_NASFPN": replace(BACKBONES["X_101_32x8d_FPN"], source=f"{_N}R_101_X_32x8d_NAS_densebox.yaml", **_NAS),
    "MNV2_NASFPN": replace(_MNV2, arguments={**_MNV2.arguments, "freeze_at": 2}, pyramid=nas_fpn, builder="build_fcos_mnv2_nas_fpn_backbone", source=f"{_N}Mobile_NAS_densebox.yaml"),
    "R_50_NASFPN_nearest": replace(BACKBONES["R_50_FPN"], pyramid=nas_fpn_nearest, builder="build_fcos_resnet_nas_fpn_nearest_backbone", source=f"{_M}nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py"),
    # For proposals from p2 on.
    "R_18_FPN_6l": replace(BACKBONES["R_18_FPN"], features=_ALSO_RES2),
    "R_18_slim_FPN_6l": replace(BACKBONES["R_18_slim_FPN"], features=_ALSO_RES2),
}
# fmt: on

BACKBONE_KEYS: dict[str, Mapping[str, Any]] = {x.node: x.keys for x in (_RESNET, _DLA, _MOBILENET, _VOVNET, _HRNET)}
"""Nodes and keys below `MODEL` that the networks add to Detectron2's."""
