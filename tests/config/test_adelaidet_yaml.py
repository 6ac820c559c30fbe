"""Config files written for AdelaiDet's FCOS build our equal models: its keys, its names, its builders."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
import yaml
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model

import fcos_d2
from fcos_d2 import zoo
from fcos_d2.modeling.unfilled import unfilled

# What all of AdelaiDet's FCOS files have in common, by key.
BASE = {
    "MODEL": {
        "META_ARCHITECTURE": "OneStageDetector",
        "BACKBONE": {"NAME": "build_fcos_resnet_fpn_backbone"},
        "RESNETS": {"OUT_FEATURES": ["res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res3", "res4", "res5"]},
        "PROPOSAL_GENERATOR": {"NAME": "FCOS"},
    }
}
X_101 = {"STRIDE_IN_1X1": False, "DEPTH": 101, "DEFORM_ON_PER_STAGE": [False, False, True, True]}
X_101 |= {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8, "DEFORM_MODULATED": True}
THREE_LEVELS = {
    "TOP_LEVELS": 0,
    "SIZES_OF_INTEREST": [64, 128],
    "FPN_STRIDES": [8, 16, 32],
    "IN_FEATURES": ["p3", "p4", "p5"],
}
DLA = {
    "BACKBONE": {"NAME": "build_fcos_dla_fpn_backbone", "FREEZE_AT": -1},
    "DLA": {"CONV_BODY": "DLA34", "NORM": "SyncBN"},
    "FPN": {"IN_FEATURES": ["level3", "level4", "level5"]},
}
VOVNET = {
    "BACKBONE": {"NAME": "build_fcos_vovnet_fpn_backbone", "FREEZE_AT": 0},
    "VOVNET": {"CONV_BODY": "V-39-eSE", "OUT_FEATURES": ["stage3", "stage4", "stage5"]},
    "FPN": {"IN_FEATURES": ["stage3", "stage4", "stage5"]},
}
STD = [57.375, 57.120, 58.395]
CASES = {
    "FCOS_R_50_1x": {"RESNETS": {"DEPTH": 50}},
    "FCOS_R_50_1x_iou": {"RESNETS": {"DEPTH": 50}, "FCOS": {"BOX_QUALITY": "iou"}},
    "FCOS_MS_R_101_2x": {"RESNETS": {"DEPTH": 101}},
    "FCOS_MS_X_101_32x8d_dcnv2_2x": {"RESNETS": X_101, "FCOS": {"USE_DEFORMABLE": True}, "PIXEL_STD": STD},
    "FCOS_RT_MS_R_50_4x": {"RESNETS": {"DEPTH": 50, "NORM": "SyncBN"}, "FCOS": THREE_LEVELS},
    "FCOS_RT_MS_DLA_34_4x": DLA | {"FCOS": THREE_LEVELS},
    "FCOS_RT_MS_DLA_34_4x_shtw_bn": DLA
    | {"FCOS": THREE_LEVELS | {"NUM_SHARE_CONVS": 4, "NUM_BOX_CONVS": 0, "NUM_CLS_CONVS": 0, "NORM": "SyncBN"}},
    "FCOS_MS_V_39_3x": VOVNET,
}


def load(tmp_path, model: dict):
    """A base file and a file on top of it, as AdelaiDet's are."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"VERSION": 2}))
    (tmp_path / "top.yaml").write_text(yaml.safe_dump({"_BASE_": "base.yaml", "MODEL": model}))
    cfg = get_cfg()
    fcos_d2.add_fcos_config(cfg)
    cfg.merge_from_file(str(tmp_path / "top.yaml"))
    cfg.MODEL.DEVICE = "meta"
    return cfg


def build(cfg) -> torch.nn.Module:
    with unfilled():
        return build_model(cfg)


@pytest.mark.parametrize("name", CASES)
def test_builds_our_variant(name, tmp_path):
    theirs = build(load(tmp_path, CASES[name]))
    with unfilled():
        ours = instantiate(zoo.get_config(name).model)
    assert isinstance(theirs, fcos_d2.FCOS)
    for part in ("grid", "assigner", "coder", "selector", "head", "loss"):
        a, b = getattr(theirs.dense, part), getattr(ours.dense, part)
        assert {f.name: getattr(a, f.name) for f in fields(a)} == {f.name: getattr(b, f.name) for f in fields(b)}
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in (theirs, ours)]
    assert shapes[0] == shapes[1]
    assert (theirs.strides, theirs.head_in_features) == (ours.strides, ours.head_in_features)


def test_keys_that_change_behaviour(tmp_path):
    keys = {
        "BOX_QUALITY": "iou",
        "THRESH_WITH_CTR": True,
        "INFERENCE_TH_TEST": 0.1,
        "CENTER_SAMPLE": False,
        "LOSS_NORMALIZER_CLS": "moving_fg",
        "LOSS_WEIGHT_CLS": 2.0,
        "USE_SCALE": False,
        "NORM": "NaiveGN",
        "LOC_LOSS_TYPE": "linear_iou",
        "NUM_CLASSES": 7,
    }
    dense = build(load(tmp_path, {"RESNETS": {"DEPTH": 50}, "FCOS": keys})).dense
    assert (dense.loss.quality, dense.loss.box_weight, dense.loss.box_normalizer) == ("iou", "none", "mean_positives")
    assert (dense.loss.class_normalizer, dense.loss.class_weight) == ("moving_mean_positives", 2.0)
    assert dense.loss.moving_start == 100.0
    assert (dense.selector.threshold_on, dense.selector.score_threshold) == ("product", 0.1)
    assert dense.assigner.center_radius == 0.0
    assert (dense.head.scales, dense.head.norm, dense.head.num_classes) == (None, "GN", 7)
    assert dense.loss.box_loss == "linear_iou"


@pytest.mark.parametrize("key", ["YIELD_PROPOSAL", "YIELD_BOX_FEATURES"])
def test_what_belongs_to_segmentation_is_refused(key, tmp_path):
    with pytest.raises(ValueError, match=f"MODEL.FCOS.{key} is True"):
        build(load(tmp_path, {"RESNETS": {"DEPTH": 50}, "FCOS": {key: True}}))


def test_another_proposal_generator_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"PROPOSAL_GENERATOR\.NAME is 'CondInst'"):
        build(load(tmp_path, {"RESNETS": {"DEPTH": 50}, "PROPOSAL_GENERATOR": {"NAME": "CondInst"}}))
