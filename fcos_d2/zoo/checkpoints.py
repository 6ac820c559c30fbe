"""Published weights of the variants: where they lie, what their bytes are, under which licence; data only.

A variant without a row has no published weights. Sizes are estimates from the number of parameters unless exact. The
reasons tell what was known on 2026-11-25.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import FcosError
from .addresses import Address
from .variants import VARIANTS, Variant, find

__all__ = ["DEFAULT", "DETECTORS", "near", "published"]

DEFAULT = "fcos_resnet50_fpn"  # the one whose weights are where their publisher puts them, and freely licensed

# What a file holds.
_CORE = '{"model": {"module.NAME": tensor}}, of maskrcnn-benchmark'
_STATE, _SOLVER = "state dict, or {'model': state dict}", "{'model', 'optimizer', 'scheduler', 'iteration'}, of fvcore"
_MMENGINE = "{'meta', 'state_dict'}"
# Why a program cannot have it, or may fail to.
_OUTAGES = "download.openmmlab.com was unreachable for days in August 2025 and June 2026"
_DROPBOX = "links of 2019 and 2020; no report that they are dead"
_BAIDU = "Baidu gives it to signed-in browsers only"
_ONEDRIVE = "OneDrive gives it to browsers only, if at all"
_MEGA = "Mega gives it to a browser or to its own client (megatools), which decrypts it"

_MB = 1_000_000


def _huggingface(family: str, repository: str, layout: str, *rows: tuple) -> dict[str, Address]:
    """Rows (variant, MB, name of the file where it is another) of the author's repository on Hugging Face."""
    base, found = f"https://huggingface.co/{repository}/resolve/main", {}
    for name, size, *other in rows:
        file = other[0] if other else f"FCOS{name.removeprefix('fcos').removeprefix('FCOS')}"
        found[f"{family}/{name}"] = Address(
            f"{base}/{file}.pth", licence=family, backbone=False, size=size * _MB, layout=layout
        )
    return found


def _openmmlab(*rows: tuple) -> dict[str, Address]:
    """Rows (variant, MB, folder, rest of the file's name, which ends in digits of its digest)."""
    base, found = "https://download.openmmlab.com/mmdetection/v2.0", {}
    for name, size, folder, rest in rows:
        url, digits = f"{base}/{folder}/{folder.partition('/')[2]}{rest}.pth", rest.rpartition("-")[2]
        found[f"mmdet/{name}"] = Address(
            url, digits, "openmmlab", False, size=size * _MB, layout=_MMENGINE, reason=_OUTAGES
        )
    return found


def _dropbox(family: str, licence: str, layout: str, *rows: tuple) -> dict[str, Address]:
    """Rows (variant, MB, folder and file)."""
    return {
        f"{family}/{name}": Address(
            f"https://dl.dropbox.com/s/{file}?dl=1", "", licence, False, (f"https://www.dropbox.com/s/{file}?dl=1",),
            size * _MB, layout=layout, reason=_DROPBOX,
        )
        for name, size, file in rows
    }  # fmt: skip


def _by_hand(family: str, base: str, reason: str, *rows: tuple) -> dict[str, Address]:
    """Rows (variant, MB, rest of the address, name of the file where it is known, what else) of links for browsers."""
    found = {}
    for name, size, rest, *more in rows:
        file, also = (*more, "", "")[:2]
        found[f"{family}/{name}"] = Address(
            base + rest, "", family, False, size=size * _MB, layout=_CORE, state="browser",
            reason=f"{reason}{also}", name=file or f"{name}.pth",
        )  # fmt: skip
    return found


# fmt: off
DETECTORS: dict[str, Address] = {
    **_huggingface(
        "fcos", "tianzhi/FCOS", _CORE,
        ("fcos_R_50_FPN_1x", 129),
        ("fcos_R_101_FPN_2x", 205),
        ("fcos_X_101_32x8d_FPN_2x", 381),
        ("fcos_X_101_64x4d_FPN_2x", 360),
        ("fcos_imprv_R_50_FPN_1x", 129),
        ("fcos_imprv_dcnv2_R_50_FPN_1x", 133),
        ("fcos_imprv_R_101_FPN_2x", 205),
        ("fcos_imprv_dcnv2_R_101_FPN_2x", 213),
        ("fcos_imprv_X_101_32x8d_FPN_2x", 381),
        ("fcos_imprv_dcnv2_X_101_32x8d_FPN_2x", 411),
        ("fcos_imprv_X_101_64x4d_FPN_2x", 360),
        ("fcos_imprv_dcnv2_X_101_64x4d_FPN_2x", 389),
        ("fcos_bn_bs16_MNV2_FPN_1x", 39),
        ("fcos_syncbn_bs32_MNV2_FPN_1x", 39),
        ("fcos_syncbn_bs32_c128_MNV2_FPN_1x", 16),
    ),
    **_by_hand(
        "fcos_plus", "https://pan.baidu.com/s/", _BAIDU,
        ("fcos_R_50_FPN_1x", 129, "1Xcbx7EfOGvwnexXAuovM0A"),
        ("fcos_R_50_FPN_1x_center", 129, "1Gs7AzmJRmeYhXUPDQZuSLA"),
        ("fcos_R_50_FPN_1x_center_liou", 129, "1HpYrkAsVXNvXRFTd06SGgA"),
        ("fcos_R_50_FPN_1x_center_giou", 129, "13_o6343Ikg4td01kVXxGSw"),
        ("fcos_R_101_FPN_2x", 205, "1u_5OD5NURYe1EYFWnohgEA"),
        ("fcos_R_101_FPN_2x_center_giou", 205, "1qhHM067ywwlEXfamaFq23g"),
    ),
    **_huggingface(
        "adelaidet", "tianzhi/AdelaiDet-FCOS", _STATE,
        ("FCOS_R_50_1x", 129),
        ("FCOS_MS_R_50_2x", 129),
        ("FCOS_MS_R_101_2x", 205),
        ("FCOS_MS_X_101_32x8d_2x", 381),
        ("FCOS_MS_X_101_64x4d_2x", 360),
        ("FCOS_MS_X_101_32x8d_dcnv2_2x", 411),
        ("FCOS_R_50_1x_iou", 129),
        ("FCOS_MS_R_50_2x_iou", 129),
        ("FCOS_MS_R_101_2x_iou", 205),
        ("FCOS_MS_X_101_32x8d_2x_iou", 381),
        ("FCOS_MS_X_101_32x8d_2x_dcnv2_iou", 411),
        ("FCOS_RT_MS_DLA_34_4x_shtw", 79, "FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers"),
        ("FCOS_RT_MS_DLA_34_4x", 89, "FCOS_RT_MS_DLA_34_4x_syncbn"),
        ("FCOS_RT_MS_R_50_4x", 124, "FCOS_RT_MS_R_50_4x_syncbn"),
        ("FCOS_RT_MS_DLA_34_4x_shtw_bn", 79, "FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers_bn_head"),
        ("FCOS_RT_MS_DLA_34_4x_bn", 89, "FCOS_RT_MS_DLA_34_4x_syncbn_bn_head"),
        ("FCOS_RT_MS_R_50_4x_bn", 124, "FCOS_RT_MS_R_50_4x_syncbn_bn_head"),
    ),
    **_dropbox(  # with the state of the solver, which doubles their size; the README's link for V-57 is another file
        "adelaidet", "adelaidet", _SOLVER,
        ("FCOS_MS_V_39_3x", 270, "t51vrqiekid49vp/fcos_V_39_eSE_FPN_ms_3x.pth"),
        ("FCOS_MS_V_57_3x", 400, "u58m71le1q2hlrb/fcos_V_57_eSE_FPN_ms_3x.pth"),
        ("FCOS_MS_V_99_3x", 624, "cztd5jry52cy6vx/fcos_V_99_eSE_FPN_ms_3x.pth"),
    ),
    "torchvision/fcos_resnet50_fpn": Address(
        "https://download.pytorch.org/models/fcos_resnet50_fpn_coco-99b0c9b7.pth",
        "99b0c9b7cfb1527d782db86b91d207f00547c792fb4103fc612b651d0a07b9e7", "torchvision", False,
        size=129_612_099, exact=True,
    ),
    **_openmmlab(
        ("fcos_r50-caffe_fpn_gn-head_1x_coco", 129,
         "fcos/fcos_r50_caffe_fpn_gn-head_1x_coco", "-821213aa"),
        ("fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco", 129,
         "fcos/fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco", "-0a0d75a8"),
        ("fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco", 133,
         "fcos/fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_dcn_1x_coco", "-ae4d8b3d"),
        ("fcos_r101-caffe_fpn_gn-head-1x_coco", 205,
         "fcos/fcos_r101_caffe_fpn_gn-head_1x_coco", "-0e37b982"),
        ("fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco", 129,
         "fcos/fcos_r50_caffe_fpn_gn-head_mstrain_640-800_2x_coco", "-d92ceeea"),
        ("fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco", 205,
         "fcos/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco", "-511424d6"),
        ("fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco", 361,
         "fcos/fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco", "-ede514a8"),
        ("fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco", 70,
         "hrnet/fcos_hrnetv2p_w18_gn-head_4x4_1x_coco", "_20201212_100710-4ad151de"),
        ("fcos_hrnetv2p-w18-gn-head_4xb4-2x_coco", 70,
         "hrnet/fcos_hrnetv2p_w18_gn-head_4x4_2x_coco", "_20201212_101110-5c575fa5"),
        ("fcos_hrnetv2p-w32-gn-head_4xb4-1x_coco", 149,
         "hrnet/fcos_hrnetv2p_w32_gn-head_4x4_1x_coco", "_20201211_134730-cb8055c0"),
        ("fcos_hrnetv2p-w32-gn-head_4xb4-2x_coco", 149,
         "hrnet/fcos_hrnetv2p_w32_gn-head_4x4_2x_coco", "_20201212_112133-77b6b9bb"),
        ("fcos_hrnetv2p-w18-gn-head_ms-640-800-4xb4-2x_coco", 70,
         "hrnet/fcos_hrnetv2p_w18_gn-head_mstrain_640-800_4x4_2x_coco", "_20201212_111651-441e9d9f"),
        ("fcos_hrnetv2p-w32-gn-head_ms-640-800-4xb4-2x_coco", 149,
         "hrnet/fcos_hrnetv2p_w32_gn-head_mstrain_640-800_4x4_2x_coco", "_20201212_090846-b6f2b49f"),
        ("fcos_hrnetv2p-w40-gn-head_ms-640-800-4xb4-2x_coco", 214,
         "hrnet/fcos_hrnetv2p_w40_gn-head_mstrain_640-800_4x4_2x_coco", "_20201212_124752-f22d2ce5"),
        ("nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco", 154,
         "nas_fcos/nas_fcos_nashead_r50_caffe_fpn_gn-head_4x4_1x_coco", "_20200520-1bdba3ce"),
        ("nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco", 156,
         "nas_fcos/nas_fcos_fcoshead_r50_caffe_fpn_gn-head_4x4_1x_coco", "_20200521-7fdcbce0"),
    ),
    **_dropbox(
        "vovnet", "vovnet", _CORE,
        ("fcos_V_39_FPN_1x", 120, "8n0wyypfggliplw/FCOS-V-39-FPN-1x.pth"),
        ("fcos_V_57_FPN_2x_ms", 176, "f1posfwebb2ynnp/FCOS-V-57-MS-FPN-2x.pth"),
        ("fcos_V_93_FPN_2x_ms", 259, "2v7go4lenvvjd1s/FCOS-V-93-MS-FPN-2x.pth"),
    ),
    **_by_hand(
        "hrnet", "https://1drv.ms/u/s!", _ONEDRIVE,
        ("fcos_hrnet_w18_5l_2x", 70, "Av9x_1oQAAoqeRND03CfS4HBONM?e=wT0G0O"),
        ("fcos_hrnet_w18_5l_ms_2x_syncbn", 70, "Av9x_1oQAAoqgQlVjkAUDdV9Ej0A?e=9bh7VW"),
        ("fcos_hrnet_w18_6l_2x", 72, "Av9x_1oQAAoqeumBsKzXzZjE8Qs?e=fT1edk"),
        ("fcos_hrnet_w32_5l_2x", 149, "Av9x_1oQAAoqfPuN69wCHx26k0o?e=L7c5FX"),
        ("fcos_hrnet_w32_5l_2x_syncbn", 149, "Av9x_1oQAAoqgQHJWCW0-u0zOgzi?e=yrtKUt"),
        ("fcos_hrnet_w32_6l_2x", 152, "Av9x_1oQAAoqfZn3Xt2CrKUI2rk?e=ZdJSPG"),
        ("fcos_hrnet_w32_6l_2x_syncbn", 152, "Av9x_1oQAAoqf6I0plglrSXPuys?e=lzdDwu"),
        ("fcos_hrnet_w40_6l_3x", 217, "Av9x_1oQAAoqfu-2x6aOIsGxSsg?e=OBbs5Z"),
        ("ResNet_101_6l_2x", 207, "Av9x_1oQAAoqe7UH3Bh-kB8JuKA?e=EF9K0B"),
    ),
    **_by_hand(
        "nas_fcos", "https://mega.nz/#!", _MEGA,
        ("Mobile_NAS", 66, "Gu4DAS7K!Cp46jUVhOIvVhPUOtukrHKJfao_Pk5vAwaU_xz8haR0", "mbv2-NAS.pth",
         "; also https://pan.baidu.com/s/1wx1qeiIVo64d51zyiJAauQ with the code 3dm9"),
        ("Mobile_NAS_head", 64, "ruIzSSxR!NIQEk-PG-aPYdSryRpSscE3pD81YJysVs6z1-o48-V0", "mbv2-NAS-head.pth"),
        ("R_50_NAS", 156, "y34TGYbJ!Vv_k-GcGTW7A_F_Ov5f44PfzCfpK6oYrtS1ZIC9gFK8", "R-50-NAS.pth",
         "; also https://pan.baidu.com/s/1-eH5Rs0KKGpx7nQa22vJOA with the code f88u"),
        ("R_50_NAS_head", 154, "H7g0TQ6R!VL9jEjviVMSuPoOYeZceS8usnoy3bulZDrHc0QDIO6A", "R-50-NAS-head.pth"),
        ("R_101_NAS", 232, "Xqx1TS7S!MPiiasknw6M2aJjdR6SkevFFadgmJW8_TOJig_naXnE", "R-101-NAS.pth",
         "; also https://pan.baidu.com/s/1pRgVIsWtXdDea1EE23JGRg with the code euuz"),
        ("R_101_NAS_head", 230, "uiJj3ICR!NdU3VaBtsdySFS0QezVpiV8Yz4h4CaqG63ST357860E", "R-101-NAS-head.pth"),
        ("R_101_X_32x8d_NAS", 409, "qqpRUCaI!tj24t4tLWF_Qn56ZvdTkdxWzoXcP1gFEwgk4OK__Shw", "R-101X-NAS.pth",
         "; also https://pan.baidu.com/s/1tn6mfXKsaVH9-HBxQCNrTg with the code 4cci"),
    ),
}
# fmt: on
# Its link led to CloudStor, which was shut down in December 2023, under the identifier of the original's file.
DETECTORS["hrnet/ResNet_101_5l_2x"] = DETECTORS["fcos/fcos_R_101_FPN_2x"]


def published(name: str) -> Address | None:
    """The row of a variant's published weights; `None` if there are none, or no such variant."""
    try:
        return DETECTORS.get(find(name).full_name)
    except FcosError:
        return None


def near(variant: Variant) -> list[str]:
    """Names of variants whose weights a program can fetch, the most similar first, the default among them."""

    def unlikeness(other: Variant) -> tuple[bool, ...]:
        return other.backbone != variant.backbone, other.family != variant.family, other.recipe != variant.recipe

    default = find(DEFAULT)
    rows: Iterable[Variant] = (v for v in VARIANTS if (row := DETECTORS.get(v.full_name)) and not row.is_dead)
    similar = [v for v in sorted(rows, key=unlikeness) if v not in (variant, default) and not all(unlikeness(v)[:2])]
    return [v.full_name for v in (*similar[:3], default)]
