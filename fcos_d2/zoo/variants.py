"""The published variants: name -> recipe, backbone, schedule, and the results that were published for it.

A name is that of the published config or model. Where two families use one name, `family/name` tells them apart;
the bare name then means the first in the table, the original FCOS.
"""

from __future__ import annotations

import difflib

from ..errors import FcosError
from .proposals import PROPOSALS
from .rows import FAMILIES, Family, Variant

__all__ = ["FAMILIES", "VARIANTS", "Family", "Variant", "find", "is_name", "names"]

_T = "tianzhi0549/FCOS, README.md and configs/fcos"
_P = "yqyao/FCOS_PLUS, README.md and configs/fcos"
_A = "aim-uofa/AdelaiDet, configs/FCOS-Detection"
_D = "facebookresearch/detectron2, configs/COCO-Detection/fcos_R_50_FPN_1x.py"
_V = "pytorch/vision, torchvision/models/detection/fcos.py and references/detection"
_M = "open-mmlab/mmdetection, configs/fcos"
_MH = "open-mmlab/mmdetection, configs/hrnet"
_MN = "open-mmlab/mmdetection, configs/nas_fcos"
_O = "vov-net/VoVNet-FCOS, README.md and configs/vovnet"
_H = "HRNet/HRNet-FCOS, README.md and configs/fcos"
_N = "Lausannen/NAS-FCOS, README.md and configs/search"
_F = "msight-tech/research-fad, README.md and configs/fad/augment"
_OURS = "fcos_d2: for small data and small machines, trained from scratch"

_MM_TRICKS = "gn-head-center-normbbox-centeronreg-giou"


def _family(family: str, source: str, *rows: tuple) -> tuple[Variant, ...]:
    """Rows (name, recipe, backbone, schedule, AP, AP on test-dev, other names) of one family."""
    found = []
    for name, recipe, backbone, schedule, *results in rows:
        ap, ap_test_dev = (*results, None, None)[:2]
        found.append(Variant(name, family, recipe, backbone, schedule, ap, ap_test_dev, source, tuple(results[2:])))
    return tuple(found)


# fmt: off
VARIANTS: tuple[Variant, ...] = (
    *_family(
        "fcos",
        _T,
        ("fcos_R_50_FPN_1x", "original", "R_50_FPN", "1x", 37.1, 37.4),
        ("fcos_R_101_FPN_2x", "original", "R_101_FPN", "2x", 41.4, 41.5),
        ("fcos_X_101_32x8d_FPN_2x", "original", "X_101_32x8d_FPN", "2x", 42.5, 42.7),
        ("fcos_X_101_64x4d_FPN_2x", "original", "X_101_64x4d_FPN", "2x", 43.0, 43.2),
        ("fcos_imprv_R_50_FPN_1x", "improved", "R_50_FPN", "1x", 38.7),
        ("fcos_imprv_dcnv2_R_50_FPN_1x", "improved_dcnv2", "R_50_dcnv2_FPN", "1x", 42.3),
        ("fcos_imprv_R_101_FPN_1x", "improved", "R_101_FPN", "1x"),
        ("fcos_imprv_dcnv2_R_101_FPN_1x", "improved_dcnv2", "R_101_dcnv2_FPN", "1x"),
        ("fcos_imprv_R_101_FPN_2x", "improved", "R_101_FPN", "2x", 43.0),
        ("fcos_imprv_dcnv2_R_101_FPN_2x", "improved_dcnv2", "R_101_dcnv2_FPN", "2x", 45.6),
        ("fcos_imprv_X_101_32x8d_FPN_2x", "improved", "X_101_32x8d_FPN", "2x", 44.0),
        ("fcos_imprv_dcnv2_X_101_32x8d_FPN_2x", "improved_dcnv2", "X_101_32x8d_dcnv2_FPN", "2x", 46.4),
        ("fcos_imprv_X_101_64x4d_FPN_2x", "improved", "X_101_64x4d_FPN", "2x", 44.7),
        ("fcos_imprv_dcnv2_X_101_64x4d_FPN_2x", "improved_dcnv2", "X_101_64x4d_dcnv2_FPN", "2x", 46.6),
        ("fcos_bn_bs16_MNV2_FPN_1x", "original", "MNV2_FPN", "1x", 31.0),
        ("fcos_syncbn_bs32_MNV2_FPN_1x", "original", "MNV2_syncbn_FPN", "1x_bs32", 33.1),
        ("fcos_syncbn_bs32_c128_MNV2_FPN_1x", "original", "MNV2_c128_syncbn_FPN", "1x_bs32", 30.9),
        ("fcos_syncbn_bs32_c128_ms_MNV2_FPN_1x", "original", "MNV2_c128_syncbn_FPN", "1x_bs32_ms"),
        ("fcos_syncbn_bs64_c128_ms_MNV2_FPN_1x", "original", "MNV2_c128_syncbn_FPN", "1x_bs64_ms"),
    ),
    *_family(
        "fcos_plus",
        _P,
        ("fcos_R_50_FPN_1x", "fcos_plus", "R_50_FPN", "1x", 37.0),
        ("fcos_R_50_FPN_1x_center", "fcos_plus_center", "R_50_FPN", "1x", 37.8),
        ("fcos_R_50_FPN_1x_center_liou", "fcos_plus_center_liou", "R_50_FPN", "1x", 38.1),
        ("fcos_R_50_FPN_1x_center_giou", "fcos_plus_center_giou", "R_50_FPN", "1x", 38.2),
        ("fcos_R_101_FPN_2x", "fcos_plus", "R_101_FPN", "2x", 41.4),
        ("fcos_R_101_FPN_2x_center_giou", "fcos_plus_center_giou", "R_101_FPN", "2x", 42.5),
        ("fcos_X_101_32x8d_FPN_2x", "fcos_plus", "X_101_32x8d_FPN", "2x"),
        ("fcos_X_101_64x4d_FPN_2x", "fcos_plus", "X_101_64x4d_FPN", "2x"),
        ("fcos_bn_bs16_MNV2_FPN_1x", "fcos_plus", "MNV2_FPN", "1x"),
        ("fcos_syncbn_bs32_MNV2_FPN_1x", "fcos_plus", "MNV2_syncbn_FPN", "1x_bs32"),
        ("fcos_syncbn_bs32_c128_MNV2_FPN_1x", "fcos_plus", "MNV2_c128_syncbn_FPN", "1x_bs32"),
        ("fcos_syncbn_bs32_c128_ms_MNV2_FPN_1x", "fcos_plus", "MNV2_c128_syncbn_FPN", "1x_bs32_ms"),
        ("fcos_syncbn_bs64_c128_ms_MNV2_FPN_1x", "fcos_plus", "MNV2_c128_syncbn_FPN", "1x_bs64_ms"),
    ),
    *_family(
        "adelaidet",
        _A,
        ("FCOS_R_50_1x", "adelaidet", "R_50_FPN", "1x", 38.7, 38.8, "R_50_1x"),
        ("FCOS_MS_R_50_2x", "adelaidet", "R_50_FPN", "2x_choice", 41.0, 41.4, "MS_R_50_2x"),
        ("FCOS_MS_R_101_2x", "adelaidet", "R_101_FPN", "2x_choice", 43.1, 43.2, "MS_R_101_2x"),
        ("FCOS_MS_X_101_32x8d_2x", "adelaidet", "X_101_32x8d_std_FPN", "2x_choice", 43.9, 44.1, "MS_X_101_32x8d_2x"),
        ("FCOS_MS_X_101_64x4d_2x", "adelaidet", "X_101_64x4d_FPN", "2x_choice", 44.7, 44.8, "MS_X_101_64x4d_2x"),
        ("FCOS_MS_X_101_32x8d_dcnv2_2x", "adelaidet_dcnv2", "X_101_32x8d_std_dcnv2_zero_FPN", "2x_choice", 46.6,
         46.6, "MS_X_101_32x8d_2x_dcnv2"),
        ("FCOS_MS_X_101_64x4d_2x_dcnv2", "adelaidet_dcnv2", "X_101_64x4d_dcnv2_zero_FPN", "2x_choice", None, None,
         "MS_X_101_64x4d_2x_dcnv2"),
        ("FCOS_R_50_1x_iou", "adelaidet_iou", "R_50_FPN", "1x", 39.4, None, "R_50_1x_iou"),
        ("FCOS_MS_R_50_2x_iou", "adelaidet_iou", "R_50_FPN", "2x_choice", 41.5, None, "MS_R_50_2x_iou"),
        ("FCOS_MS_R_101_2x_iou", "adelaidet_iou", "R_101_FPN", "2x_choice", 43.5, None, "MS_R_101_2x_iou"),
        ("FCOS_MS_X_101_32x8d_2x_iou", "adelaidet_iou", "X_101_32x8d_std_FPN", "2x_choice", 44.5, None,
         "MS_X_101_32x8d_2x_iou"),
        ("FCOS_MS_X_101_32x8d_2x_dcnv2_iou", "adelaidet_dcnv2_iou", "X_101_32x8d_std_dcnv2_zero_FPN", "2x_choice",
         47.4, None, "MS_X_101_32x8d_2x_dcnv2_iou"),
        ("FCOS_RT_MS_DLA_34_4x_shtw", "realtime_shared", "DLA_34_FPN", "4x_realtime", 39.1, 39.2,
         "FCOS_RT-MS_DLA_34_4x_syncbn_shared_towers"),
        ("FCOS_RT_MS_DLA_34_4x", "realtime", "DLA_34_FPN", "4x_realtime", 40.3, 40.3, "FCOS_RT-MS_DLA_34_4x_syncbn"),
        ("FCOS_RT_MS_R_50_4x", "realtime", "R_50_syncbn_FPN", "4x_realtime", 40.2, 40.2, "FCOS_RT-MS_R_50_4x_syncbn"),
        ("FCOS_RT_MS_DLA_34_4x_shtw_bn", "realtime_shared_bn", "DLA_34_FPN", "4x_realtime", 38.9, 39.1,
         "FCOS_RT-MS_DLA_34_4x_syncbn_shared_towers_bn_head"),
        ("FCOS_RT_MS_DLA_34_4x_bn", "realtime_bn", "DLA_34_FPN", "4x_realtime", 39.4, 39.9,
         "FCOS_RT-MS_DLA_34_4x_syncbn_bn_head"),
        ("FCOS_RT_MS_R_50_4x_bn", "realtime_bn", "R_50_syncbn_FPN", "4x_realtime", 39.3, 39.7,
         "FCOS_RT-MS_R_50_4x_syncbn_bn_head"),
        ("FCOS_MS_V_39_3x", "adelaidet", "V_39_eSE_FPN", "3x_choice", 43.5, None, "vovnet-MS_V_39_3x", "MS_V_39_3x"),
        ("FCOS_MS_V_57_3x", "adelaidet", "V_57_eSE_FPN", "3x_choice", 44.4, None, "vovnet-MS_V_57_3x", "MS_V_57_3x"),
        ("FCOS_MS_V_99_3x", "adelaidet", "V_99_eSE_FPN", "3x_choice", 45.2, None, "vovnet-MS_V_99_3x", "MS_V_99_3x"),
    ),
    *_family("detectron2", _D, ("fcos_R_50_FPN_1x", "detectron2", "R_50_FPN", "1x_choice")),
    *_family("torchvision", _V, ("fcos_resnet50_fpn", "torchvision", "R_50_torch_frozen_FPN", "26_epochs", 39.2)),
    *_family(
        "mmdet",
        _M,
        ("fcos_r50-caffe_fpn_gn-head_1x_coco", "mmdet", "R_50_FPN", "12_epochs", 36.6),
        ("fcos_r50-caffe_fpn_gn-head_4xb4-1x_coco", "mmdet", "R_50_FPN", "12_epochs"),
        ("fcos_r50-caffe_fpn_gn-head-center_1x_coco", "mmdet_center", "R_50_FPN", "12_epochs"),
        (f"fcos_r50-caffe_fpn_{_MM_TRICKS}_1x_coco", "mmdet_tricks", "R_50_FPN", "12_epochs", 38.7),
        (f"fcos_r50-dcn-caffe_fpn_{_MM_TRICKS}_1x_coco", "mmdet_tricks_dcnv2", "R_50_dcnv2_zero_FPN", "12_epochs",
         42.3),
        ("fcos_r101-caffe_fpn_gn-head-1x_coco", "mmdet", "R_101_FPN", "12_epochs", 39.1),
        ("fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco", "mmdet", "R_50_FPN", "24_epochs_ms", 38.5),
        ("fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco", "mmdet", "R_101_FPN", "24_epochs_ms", 40.8),
        ("fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco", "mmdet_rgb", "X_101_64x4d_torch_FPN", "24_epochs_ms", 42.6),
        (f"fcos_r18_fpn_{_MM_TRICKS}_8xb8-amp-lsj-200e_coco", "mmdet_lsj", "R_18_torch_FPN", "200_epochs_lsj"),
        (f"fcos_r50_fpn_{_MM_TRICKS}_8xb8-amp-lsj-200e_coco", "mmdet_lsj", "R_50_torch_FPN", "200_epochs_lsj"),
        (f"fcos_r101_fpn_{_MM_TRICKS}_8xb8-amp-lsj-200e_coco", "mmdet_lsj", "R_101_torch_FPN", "200_epochs_lsj"),
    ),
    *_family(
        "mmdet",
        _MH,
        ("fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco", "mmdet_hrnet", "HRNet_W18_HRFPN", "12_epochs", 35.3),
        ("fcos_hrnetv2p-w18-gn-head_4xb4-2x_coco", "mmdet_hrnet_2x", "HRNet_W18_HRFPN", "24_epochs", 38.2),
        ("fcos_hrnetv2p-w32-gn-head_4xb4-1x_coco", "mmdet_hrnet", "HRNet_W32_HRFPN", "12_epochs", 39.5),
        ("fcos_hrnetv2p-w32-gn-head_4xb4-2x_coco", "mmdet_hrnet_2x", "HRNet_W32_HRFPN", "24_epochs", 40.8),
        ("fcos_hrnetv2p-w18-gn-head_ms-640-800-4xb4-2x_coco", "mmdet_hrnet_2x", "HRNet_W18_HRFPN", "24_epochs_ms",
         38.3),
        ("fcos_hrnetv2p-w32-gn-head_ms-640-800-4xb4-2x_coco", "mmdet_hrnet_2x", "HRNet_W32_HRFPN", "24_epochs_ms",
         41.9),
        ("fcos_hrnetv2p-w40-gn-head_ms-640-800-4xb4-2x_coco", "mmdet_hrnet_2x", "HRNet_W40_HRFPN", "24_epochs_ms",
         42.7),
    ),
    *_family(
        "mmdet",
        _MN,
        ("nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco", "mmdet_nas_fcos_head", "R_50_NASFPN_nearest",
         "12_epochs", 39.4),
        ("nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco", "mmdet_nas_fcos", "R_50_NASFPN_nearest",
         "12_epochs", 38.5),
    ),
    *_family(
        "vovnet",
        _O,
        ("fcos_V_39_FPN_1x", "fcos_vovnet", "V_39_FPN", "1x_ms", 37.7),
        ("fcos_V_57_FPN_2x_ms", "fcos_vovnet_2x", "V_57_FPN", "2x", 41.6),
        ("fcos_V_93_FPN_2x_ms", "fcos_vovnet_2x", "V_93_FPN", "2x", 42.1),
        ("fcos_R_50_FPN_1x", "fcos_vovnet", "R_50_FPN", "1x", 37.5),
        ("fcos_R_101_FPN_2x", "fcos_vovnet", "R_101_FPN", "2x", 41.3),
        ("fcos_X_101_32x8d_FPN_2x", "fcos_vovnet", "X_101_32x8d_FPN", "2x", 42.5),
    ),
    *_family(
        "hrnet",
        _H,
        ("fcos_hrnet_w18_5l_2x", "fcos_hrnet", "HRNet_W18_HRFPN", "2x_single", 37.7),
        ("fcos_hrnet_w18_5l_ms_2x_syncbn", "fcos_hrnet", "HRNet_W18_syncbn_HRFPN", "2x", 39.4),
        ("fcos_hrnet_w18_6l_2x", "fcos_hrnet_6l", "HRNet_W18_HRFPN_6l", "2x_single", 37.8),
        ("fcos_hrnet_w32_5l_2x", "fcos_hrnet", "HRNet_W32_HRFPN", "2x", 41.9),
        ("fcos_hrnet_w32_5l_2x_syncbn", "fcos_hrnet", "HRNet_W32_syncbn_HRFPN", "2x", 42.5),
        ("fcos_hrnet_w32_6l_2x", "fcos_hrnet_6l", "HRNet_W32_HRFPN_6l", "2x", 42.1),
        ("fcos_hrnet_w32_6l_2x_syncbn", "fcos_hrnet_6l", "HRNet_W32_syncbn_HRFPN_6l", "2x", 42.9),
        ("fcos_hrnet_w40_6l_3x", "fcos_hrnet_6l", "HRNet_W40_HRFPN_6l", "3x", 42.6),
        ("ResNet_50_5l_2x", "fcos_hrnet", "R_50_FPN", "2x_single", 37.1),
        ("ResNet_50_6l_2x", "fcos_hrnet_6l", "R_50_FPN_6l", "2x_single", 37.1),
        ("ResNet_101_5l_2x", "fcos_hrnet", "R_101_FPN", "2x", 41.4),
        ("ResNet_101_6l_2x", "fcos_hrnet_6l", "R_101_FPN_6l", "2x", 41.5),
    ),
    *_family(
        "nas_fcos",
        _N,
        ("Mobile_NAS", "nas_fcos", "MNV2_NASFPN", "1x", 32.6, 33.1, "Mobile_NAS_densebox"),
        ("Mobile_NAS_head", "nas_fcos_head", "MNV2_NASFPN", "1x", 34.4, 34.7),
        ("R_50_NAS", "nas_fcos", "R_50_NASFPN", "1x", 38.5, 38.9, "R_50_NAS_densebox"),
        ("R_50_NAS_head", "nas_fcos_head", "R_50_NASFPN", "1x", 39.5, 39.8),
        ("R_101_NAS", "nas_fcos_2x", "R_101_NASFPN", "2x", 42.1, 42.5, "R_101_NAS_densebox"),
        ("R_101_NAS_head", "nas_fcos_head_2x", "R_101_NASFPN", "2x", 42.8, 43.0),
        ("R_101_X_32x8d_NAS", "nas_fcos_2x", "X_101_32x8d_NASFPN", "2x", 43.4, 43.7, "R_101_X_32x8d_NAS_densebox"),
    ),
    *_family(
        "fad",
        _F,
        ("fad-fcos_imprv_R_50_FPN_1x", "fad", "R_50_FPN", "1x", 40.3),
        ("fad-fcos_imprv_R_101_FPN_2x", "fad", "R_101_FPN", "2x", 44.2, 44.1),
        ("fad-fcos_imprv_X_101_64x4d_FPN_2x", "fad_c128", "X_101_64x4d_FPN", "2x", 46.0, 46.0,
         "fad-fcos_imprv_R_101_64x4d_FPN_2x"),
        ("fad-fcos_imprv_R_50_FPN_1x-other", "fad_other", "R_50_FPN", "1x"),
    ),
    *_family(
        "small",
        _OURS,
        ("fcos_R_18_FPN_small", "small", "R_18_FPN", "small"),
        ("fcos_R_18_slim_FPN_small", "small", "R_18_slim_FPN", "small"),
    ),
)
# fmt: on


def names() -> list[str]:
    """Names of all one-stage variants, as `get_config` takes them: bare where that is clear, else `family/name`."""
    first = {v.name: v for v in reversed(VARIANTS)}
    return [v.name if first[v.name] is v else v.full_name for v in VARIANTS]


def find(name: str) -> Variant:
    """The row of a variant, or of one of `PROPOSALS`.

    Args:
        name: bare or with its family, as in "fcos_plus/fcos_R_50_FPN_1x"; a trailing ".py" or ".yaml" is ignored.
    Raises:
        FcosError: there is none; the message suggests the nearest.
    """
    wanted = name.removesuffix(".py").removesuffix(".yaml")
    for variant in (*VARIANTS, *PROPOSALS):
        if wanted in (variant.name, variant.full_name, *variant.aliases):
            return variant
    near = difflib.get_close_matches(wanted, [*names(), *(v.name for v in PROPOSALS)], n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise FcosError(f"There is no variant {name!r}.{hint} `fcos zoo` lists all {len(VARIANTS) + len(PROPOSALS)}.")


def is_name(name: str) -> bool:
    """Whether a word is the name of a variant."""
    return any(name in (v.name, v.full_name, *v.aliases) for v in (*VARIANTS, *PROPOSALS))
