"""The published versions of FCOS, each as its difference from another, with its source.

A recipe holds the arguments of the parts (data, no classes), so that LazyConfig, YAML and code build the same thing
from it. Fields that a recipe does not name have the part's default, which is AdelaiDet's choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """One published set of choices.

    Attributes:
        name: how it is called in configs and on the command line.
        source: repository and file that the choices were read from.
        grid, assigner, coder, head, loss, selector: arguments of `LocationGrid`, `PointAssigner`, `LTRBCoder`,
            `FCOSHead`, `FCOSLoss` and `Selector`.
        train_selector: what selects proposals while training, as its difference from `selector`.
        detector: conventions of boxes, arguments of `FCOS`.
        head_name: class of the head, by its name in `FCOS_HEAD_REGISTRY`.
        features: names of the feature maps, finest first.
        top_levels: levels above p5.
        pixel_mean, pixel_std: in 0..255 and the order of `input_format`.
        input_format: "BGR" or "RGB".
        solver: optimizer and warm-up: base_lr, bias_lr_factor, weight_decay_bias, weight_decay_norm, warmup_method,
            warmup_factor, warmup_iters.
    """

    name: str
    source: str
    grid: Mapping[str, Any] = field(default_factory=dict)
    assigner: Mapping[str, Any] = field(default_factory=dict)
    coder: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    selector: Mapping[str, Any] = field(default_factory=dict)
    detector: Mapping[str, Any] = field(default_factory=dict)
    head_name: str = "FCOSHead"
    features: tuple[str, ...] = ("p3", "p4", "p5", "p6", "p7")
    top_levels: int = 2
    pixel_mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    input_format: str = "BGR"
    solver: Mapping[str, Any] = field(default_factory=dict)
    train_selector: Mapping[str, Any] = field(default_factory=dict)

    def derived(self, name: str, source: str, **changes: Any) -> Recipe:
        """A recipe that differs from this one in some choices; mappings are merged into those of this recipe."""
        merged: dict[str, Any] = {
            key: {**getattr(self, key), **value} if isinstance(value, Mapping) else value
            for key, value in changes.items()
        }
        return replace(self, name=name, source=source, **merged)


_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf))

# ImageNet pixel statistics as torchvision's and mmdetection's PyTorch-style networks expect them.
_RGB_MEAN = (123.675, 116.28, 103.53)
_RGB_STD = (58.395, 57.12, 57.375)

# Detectron2's solver defaults.
_SOLVER = {
    "base_lr": 0.01,
    "bias_lr_factor": 1.0,
    "weight_decay_bias": 0.0001,
    "weight_decay_norm": 0.0,
    "warmup_method": "linear",
    "warmup_factor": 0.001,
    "warmup_iters": 1000,
}
# Biases learn at twice the rate and do not decay, norm weights decay, and the warm-up is a constant third.
_CAFFE_SOLVER = {
    "base_lr": 0.01,
    "bias_lr_factor": 2.0,
    "weight_decay_bias": 0.0,
    "weight_decay_norm": 0.0001,
    "warmup_method": "constant",
    "warmup_factor": 1.0 / 3,
    "warmup_iters": 500,
}

RECIPES: dict[str, Recipe] = {}


def _recipe(base: str, name: str, source: str, **choices: Any) -> None:
    """Add a recipe, as its difference from another where one is named."""
    RECIPES[name] = RECIPES[base].derived(name, source, **choices) if base else Recipe(name, source, **choices)


# fmt: off
_recipe(
    "", "original", "tianzhi0549/FCOS, configs/fcos/fcos_R_50_FPN_1x.yaml and fcos_core/modeling/rpn/fcos",
    assigner={"size_ranges": _RANGES, "center_radius": 0.0, "area": "plus_one"},
    coder={"activation": "exp", "unit": "pixel"}, head={"quality_on": "class"},
    loss={"box_loss": "iou", "iou_rule": "plus_one"},
    selector={"nms_convention": "plus_one", "clip": "before", "clip_margin": 1.0},
    detector={"inclusive_far_corner": True},
    pixel_mean=(102.9801, 115.9465, 122.7717), solver=_CAFFE_SOLVER,
)
_recipe(
    "original", "improved", "tianzhi0549/FCOS, configs/fcos/fcos_imprv_R_50_FPN_1x.yaml",
    assigner={"center_radius": 1.5},
    coder={"activation": "relu", "unit": "stride"}, head={"quality_on": "box"}, loss={"box_loss": "giou"},
)
_recipe(
    "improved", "improved_dcnv2", "tianzhi0549/FCOS, configs/fcos/fcos_imprv_dcnv2_R_50_FPN_1x.yaml",
    head={"deformable": True},
)
_recipe(
    "improved", "fad", "msight-tech/research-fad, configs/fad/augment/fad-fcos_imprv_R_50_FPN_1x.yaml",
    head_name="FADHead", head={"genotype": "paper"}, coder={"inference": "raw"}, selector={"drop_inverted": True},
)
_recipe(
    "fad", "fad_c128", "msight-tech/research-fad, configs/fad/augment/fad-fcos_imprv_X_101_64x4d_FPN_2x.yaml",
    head={"edge_channels": 128},
)
_recipe(
    "fad", "fad_other", "msight-tech/research-fad, README.md, the second pair of genotypes (no config file there)",
    head={"genotype": "other"},
)
_recipe(
    "original", "fcos_plus", "yqyao/FCOS_PLUS, configs/fcos/fcos_R_50_FPN_1x.yaml",
    loss={"class_normalizer": "positives_and_images", "box_normalizer": "weights", "quality_normalizer": "positives"},
    selector={"score_form": "product"},
)
_recipe(
    "fcos_plus", "fcos_plus_center", "yqyao/FCOS_PLUS, configs/fcos/fcos_R_50_FPN_1x_center.yaml",
    assigner={"center_radius": 1.5},
)
_recipe(
    "fcos_plus_center", "fcos_plus_center_liou", "yqyao/FCOS_PLUS, README.md (no config file there)",
    loss={"box_loss": "linear_iou"},
)
_recipe(
    "fcos_plus_center", "fcos_plus_center_giou", "yqyao/FCOS_PLUS, configs/fcos/fcos_R_50_FPN_1x_center_giou.yaml",
    loss={"box_loss": "giou"},
)
_recipe("fcos_plus", "fcos_hrnet", "HRNet/HRNet-FCOS, configs/fcos/fcos_hrnet_w18_5l_2x.yaml")
_recipe(
    "fcos_hrnet", "fcos_hrnet_6l", "HRNet/HRNet-FCOS, configs/fcos/fcos_hrnet_w18_6l_2x.yaml",
    assigner={"size_ranges": ((-1.0, 32.0), (32.0, 64.0), *_RANGES[1:])}, features=("p2", "p3", "p4", "p5", "p6", "p7"),
)
_recipe(
    "fcos_plus", "fcos_vovnet", "vov-net/VoVNet-FCOS, configs/vovnet/fcos_V_39_FPN_1x.yaml",
    selector={"score_form": "sqrt"},
)
_recipe(
    "fcos_vovnet", "fcos_vovnet_2x", "vov-net/VoVNet-FCOS, configs/vovnet/fcos_V_57_FPN_2x_ms.yaml",
    solver={"warmup_method": "linear"},
)
_recipe(
    "fcos_plus", "nas_fcos", "Lausannen/NAS-FCOS, configs/search/R_50_NAS_densebox.yaml",
    solver={"warmup_method": "linear"},
)
_recipe(
    "nas_fcos", "nas_fcos_2x", "Lausannen/NAS-FCOS, configs/search/R_101_NAS_densebox.yaml",
    solver={"warmup_method": "constant"},
)
_recipe(
    "nas_fcos", "nas_fcos_head", "Lausannen/NAS-FCOS, configs/search/R_50_NAS_head.yaml", head_name="NASFCOSHead",
    head={"conv_bias": False},
)
_recipe(
    "nas_fcos_head", "nas_fcos_head_2x", "Lausannen/NAS-FCOS, configs/search/R_101_NAS_head.yaml",
    solver={"warmup_method": "constant"},
)
_recipe(
    "", "adelaidet", "aim-uofa/AdelaiDet, configs/FCOS-Detection/R_50_1x.yaml and adet/modeling/fcos",
    assigner={"size_ranges": _RANGES}, solver=_SOLVER,
)
_recipe(
    "adelaidet", "adelaidet_iou", "aim-uofa/AdelaiDet, configs/FCOS-Detection/R_50_1x_iou.yaml",
    loss={"quality": "iou", "box_weight": "none", "box_normalizer": "mean_positives"},
)
_recipe(
    "adelaidet", "adelaidet_dcnv2", "aim-uofa/AdelaiDet, configs/FCOS-Detection/MS_X_101_32x8d_2x_dcnv2.yaml",
    head={"deformable": True},
)
_recipe(
    "adelaidet_iou", "adelaidet_dcnv2_iou",
    "aim-uofa/AdelaiDet, configs/FCOS-Detection/MS_X_101_32x8d_2x_dcnv2_iou.yaml",
    head={"deformable": True},
)
_recipe(
    "adelaidet", "realtime", "aim-uofa/AdelaiDet, configs/FCOS-Detection/FCOS_RT/Base-FCOS_RT.yaml",
    assigner={"size_ranges": ((-1.0, 64.0), (64.0, 128.0), (128.0, math.inf))}, features=("p3", "p4", "p5"),
    top_levels=0,
)
_recipe(
    "realtime", "realtime_shared",
    "aim-uofa/AdelaiDet, configs/FCOS-Detection/FCOS_RT/MS_DLA_34_4x_syncbn_shared_towers.yaml",
    head={"num_shared_convs": 4, "num_class_convs": 0, "num_box_convs": 0},
)
_recipe(
    "realtime", "realtime_bn", "aim-uofa/AdelaiDet, configs/FCOS-Detection/FCOS_RT/MS_DLA_34_4x_syncbn_bn_head.yaml",
    head={"norm": "SyncBN"},
)
_recipe(
    "realtime_shared", "realtime_shared_bn",
    "aim-uofa/AdelaiDet, configs/FCOS-Detection/FCOS_RT/MS_DLA_34_4x_syncbn_shared_towers_bn_head.yaml",
    head={"norm": "SyncBN"},
)
_recipe(
    "original", "mmdet", "open-mmlab/mmdetection, configs/fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    assigner={"area": "plain"},
    head={"conv_bias": False}, loss={"iou_rule": "floor"},
    selector={
        "score_form": "product", "topk_by": "class", "nms_threshold": 0.5, "nms_convention": "plain",
        "max_detections_ties": "cut", "clip_margin": 0.0, "min_size": 0.0,
    },
    detector={"inclusive_far_corner": False},
)
_recipe(
    "mmdet", "mmdet_center", "open-mmlab/mmdetection, configs/fcos/fcos_r50-caffe_fpn_gn-head-center_1x_coco.py",
    assigner={"center_radius": 1.5},
)
_recipe(
    "mmdet", "mmdet_rgb", "open-mmlab/mmdetection, configs/fcos/fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco.py",
    pixel_mean=_RGB_MEAN, pixel_std=_RGB_STD, input_format="RGB",
)
_recipe(
    "mmdet", "mmdet_tricks",
    "open-mmlab/mmdetection, configs/fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    assigner={"center_radius": 1.5}, coder={"activation": "relu", "unit": "stride"},
    head={"quality_on": "box", "conv_bias": True}, loss={"box_loss": "giou"}, selector={"nms_threshold": 0.6},
    pixel_mean=(103.53, 116.28, 123.675), solver={"warmup_method": "linear"},
)
_recipe(
    "mmdet_tricks", "mmdet_tricks_dcnv2",
    "open-mmlab/mmdetection, configs/fcos/fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    head={"deformable": True},
)
_recipe(
    "mmdet_tricks", "mmdet_lsj",
    "open-mmlab/mmdetection, configs/fcos/"
    "fcos_r50_fpn_gn-head-center-normbbox-centeronreg-giou_8xb8-amp-lsj-200e_coco.py",
    pixel_mean=_RGB_MEAN, pixel_std=_RGB_STD, input_format="RGB",
    solver={"base_lr": 0.04, "warmup_factor": 0.067, "warmup_iters": 1000, "weight_decay_norm": 4e-05},
)
_recipe(
    "mmdet", "mmdet_hrnet", "open-mmlab/mmdetection, configs/hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py",
    pixel_mean=(103.53, 116.28, 123.675), pixel_std=(57.375, 57.12, 58.395),
)
_recipe(
    "mmdet_hrnet", "mmdet_hrnet_2x", "open-mmlab/mmdetection, configs/hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-2x_coco.py",
    solver={"warmup_method": "linear", "warmup_factor": 0.001},
)
_recipe(
    "mmdet", "mmdet_nas_fcos",
    "open-mmlab/mmdetection, configs/nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py",
    selector={"nms_threshold": 0.6}, pixel_mean=(103.53, 116.28, 123.675),
    solver={"warmup_method": "linear", "warmup_factor": 0.001},
)
_recipe(
    "mmdet_nas_fcos", "mmdet_nas_fcos_head",
    "open-mmlab/mmdetection, configs/nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py",
    head_name="NASFCOSHead",
)
_recipe(
    "adelaidet", "detectron2",
    "facebookresearch/detectron2, configs/common/models/fcos.py and detectron2/modeling/meta_arch/fcos.py",
    assigner={"range_ends": "open"}, head={"level_scale": False, "norm_shared_affine": True},
    loss={
        "iou_rule": "eps", "box_weight": "none", "class_normalizer": "moving_positives",
        "box_normalizer": "moving_positives", "quality_normalizer": "moving_positives", "moving_start": 300.0,
    },
    selector={"score_threshold": 0.2, "threshold_on": "score", "max_detections_ties": "cut"},
)
_recipe(
    "detectron2", "torchvision", "pytorch/vision, torchvision/models/detection/fcos.py", grid={"origin": "corner"},
    loss={"class_normalizer": "positives", "box_normalizer": "positives", "quality_normalizer": "positives"},
    selector={"clip": "before"}, detector={"keep_empty": True},
    pixel_mean=_RGB_MEAN, pixel_std=_RGB_STD, input_format="RGB", solver={"weight_decay_norm": 0.0001},
)
_recipe(
    "adelaidet", "small",
    "fcos_d2: AdelaiDet's choices with towers of two convolutions, for small networks that are trained from scratch",
    head={"num_class_convs": 2, "num_box_convs": 2},
)
# fmt: on
