"""yacs keys from the parts' fields, parts from yacs nodes, and AdelaiDet's files that mean what they meant."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from scenes import dense_of
from torch import Tensor

import fcos_d2
from fcos_d2.config.yacs import add_fcos_config, proposal_arguments, yaml_of_recipe
from fcos_d2.modeling import (
    ASSIGNER_REGISTRY,
    FCOS,
    DenseFCOS,
    FCOSHead,
    FCOSLoss,
    FCOSProposals,
    LocationGrid,
    LTRBCoder,
    PointAssigner,
    Selector,
)
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.options import keyed_fields
from fcos_d2.structures import Locations
from fcos_d2.zoo.recipes import RECIPES

PARTS = ("grid", "assigner", "coder", "head", "loss", "selector")


def config(**keys: Any) -> CfgNode:
    """A small model on the CPU; keyword arguments are keys of `MODEL.FCOS`."""
    cfg = get_cfg()
    add_fcos_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "FCOS"
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.BACKBONE.NAME = "build_fcos_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 32
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 64
    for key, value in keys.items():
        cfg.merge_from_list([f"MODEL.FCOS.{key}", value])
    return cfg


def build(**keys: Any) -> FCOS:
    with unfilled():
        return build_model(config(**keys))


def dense_from(**keys: Any) -> DenseFCOS:
    """The parts alone, as for a backbone that has p3..p7."""
    shapes = {f"p{i}": ShapeSpec(channels=64, stride=2**i) for i in range(3, 8)}
    with unfilled():
        return proposal_arguments(config(**keys), shapes)["dense"]


def options(part: Any) -> dict[str, Any]:
    """Class and field values."""
    return {"class": type(part).__name__, **{f.name: getattr(part, f.name) for f in fields(part)}}


# ----------------------------------------------------------------------------------------------------------------- keys
def test_the_keys_are_there_with_the_defaults_of_the_parts() -> None:
    node = config().MODEL.FCOS
    for part in (LocationGrid, PointAssigner, LTRBCoder, FCOSHead, FCOSLoss, Selector):
        for key, f in keyed_fields(part).items():
            assert node[key] == f.default, key


def test_adelaidets_keys_are_all_there_with_its_defaults() -> None:
    """adet/config/defaults.py, but for what belongs to its instance segmentation models."""
    theirs = {
        "NUM_CLASSES": 80,
        "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
        "FPN_STRIDES": [8, 16, 32, 64, 128],
        "PRIOR_PROB": 0.01,
        "INFERENCE_TH_TRAIN": 0.05,
        "INFERENCE_TH_TEST": 0.05,
        "NMS_TH": 0.6,
        "PRE_NMS_TOPK_TRAIN": 1000,
        "PRE_NMS_TOPK_TEST": 1000,
        "POST_NMS_TOPK_TRAIN": 100,
        "POST_NMS_TOPK_TEST": 100,
        "TOP_LEVELS": 2,
        "NORM": "GN",
        "USE_SCALE": True,
        "BOX_QUALITY": "ctrness",
        "THRESH_WITH_CTR": False,
        "LOSS_ALPHA": 0.25,
        "LOSS_GAMMA": 2.0,
        "LOSS_WEIGHT_CLS": 1.0,
        "LOSS_NORMALIZER_CLS": "fg",
        "SIZES_OF_INTEREST": [64, 128, 256, 512],
        "USE_RELU": True,
        "USE_DEFORMABLE": False,
        "NUM_CLS_CONVS": 4,
        "NUM_BOX_CONVS": 4,
        "NUM_SHARE_CONVS": 0,
        "CENTER_SAMPLE": True,
        "POS_RADIUS": 1.5,
        "LOC_LOSS_TYPE": "giou",
    }
    node = config().MODEL.FCOS
    assert {key: node[key] for key in theirs} == theirs


def test_adding_the_keys_again_changes_nothing() -> None:
    cfg = config(NUM_CLASSES=7)
    add_fcos_config(cfg)
    assert cfg.MODEL.FCOS.NUM_CLASSES == 7
    assert fcos_d2.add_fcos_config is add_fcos_config


def test_keys_of_another_project_stay() -> None:
    cfg = get_cfg()
    cfg.MODEL.FCOS = CfgNode({"NUM_CLASSES": 20, "YIELD_PROPOSAL": True})
    add_fcos_config(cfg)
    assert cfg.MODEL.FCOS.NUM_CLASSES == 20
    assert cfg.MODEL.FCOS.YIELD_PROPOSAL
    assert cfg.MODEL.FCOS.HEAD_NAME == "FCOSHead"


def test_a_config_does_not_share_its_lists_with_the_next() -> None:
    first, second = config().MODEL.FCOS, config().MODEL.FCOS
    shared = [key for key, value in first.items() if isinstance(value, list) and value is second[key]]
    assert not shared


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"Non-existent key: MODEL\.FCOS\.POS_RADIUSS"):
        config(POS_RADIUSS=1.0)


# ---------------------------------------------------------------------------------------------------------------- parts
@pytest.mark.parametrize("name", [n for n in RECIPES if RECIPES[n].features[0] == "p3"])
def test_keys_of_a_recipe_build_the_recipe(name: str) -> None:
    """recipe -> keys -> parts gives what recipe -> parts gives."""
    recipe = RECIPES[name]
    dense = dense_from(**yaml_of_recipe(recipe))
    expected = dense_of(recipe, num_classes=80, in_channels=64)
    for part in PARTS:
        built, wanted = options(getattr(dense, part)), options(getattr(expected, part))
        if part == "loss" and expected.loss.average is None:  # a start that is never used has no key
            built.pop("moving_start")
            wanted.pop("moving_start")
        assert built == wanted


def test_the_defaults_are_adelaidets_recipe() -> None:
    assert yaml_of_recipe(RECIPES["adelaidet"]) == {}


# Key, value, part, field, expected.
KEYS: list[tuple[str, Any, str, str, Any]] = [
    ("CENTER_SAMPLE", False, "assigner", "center_radius", 0.0),
    ("POS_RADIUS", 2.5, "assigner", "center_radius", 2.5),
    ("SIZE_RANGE_ENDS", "open", "assigner", "range_ends", "open"),
    ("BOX_AREA", "plus_one", "assigner", "area", "plus_one"),
    (
        "SIZES_OF_INTEREST",
        [32, 64, 128, 256],
        "assigner",
        "size_ranges",
        ((-1.0, 32.0), (32.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, math.inf)),
    ),
    ("LOCATION_ORIGIN", "corner", "grid", "origin", "corner"),
    ("DENSE_POINTS", 4, "grid", "points_per_cell", 4),
    ("DENSE_POINTS", 4, "head", "points_per_cell", 4),
    ("LTRB_ACTIVATION", "exp", "coder", "activation", "exp"),
    ("LTRB_UNIT", "pixel", "coder", "unit", "pixel"),
    ("NUM_CLASSES", 3, "head", "num_classes", 3),
    ("NUM_CLS_CONVS", 2, "head", "num_class_convs", 2),
    ("NUM_BOX_CONVS", 1, "head", "num_box_convs", 1),
    ("NUM_SHARE_CONVS", 1, "head", "num_shared_convs", 1),
    ("NORM", "BN", "head", "norm", "BN"),
    ("NORM_SHARED_AFFINE", True, "head", "norm_shared_affine", True),
    ("CONV_BIAS", False, "head", "conv_bias", False),
    ("QUALITY_ON", "class", "head", "quality_on", "class"),
    ("USE_SCALE", False, "head", "level_scale", False),
    ("PRIOR_PROB", 0.1, "head", "prior_prob", 0.1),
    ("LOSS_ALPHA", 0.5, "loss", "focal_alpha", 0.5),
    ("LOSS_GAMMA", 1.0, "loss", "focal_gamma", 1.0),
    ("LOC_LOSS_TYPE", "linear_iou", "loss", "box_loss", "linear_iou"),
    ("IOU_RULE", "eps", "loss", "iou_rule", "eps"),
    ("LOSS_WEIGHT_CLS", 2.0, "loss", "class_weight", 2.0),
    ("LOSS_WEIGHT_LOC", 2.0, "loss", "box_loss_weight", 2.0),
    ("LOSS_WEIGHT_QUALITY", 2.0, "loss", "quality_weight", 2.0),
    ("LOSS_NORMALIZER_CLS", "moving_fg", "loss", "class_normalizer", "moving_mean_positives"),
    ("LOSS_NORMALIZER_CLS", "all", "loss", "class_normalizer", "locations"),
    ("LOSS_NORMALIZER_CLS", "positives", "loss", "class_normalizer", "positives"),
    ("LOSS_NORMALIZER_LOC", "weights", "loss", "box_normalizer", "weights"),
    ("LOSS_NORMALIZER_QUALITY", "positives", "loss", "quality_normalizer", "positives"),
    ("MOVING_MOMENTUM", 0.5, "loss", "moving_momentum", 0.5),
    ("MOVING_START", 7.0, "loss", "moving_start", 7.0),
    ("BOX_QUALITY", "iou", "loss", "quality", "iou"),
    ("BOX_QUALITY", "iou", "loss", "box_weight", "none"),
    ("BOX_QUALITY", "iou", "loss", "box_normalizer", "mean_positives"),
    ("BOX_QUALITY", "centerness", "loss", "quality", "centerness"),
    ("BOX_WEIGHT", "none", "loss", "box_weight", "none"),
    ("BOX_WEIGHT", "none", "loss", "box_normalizer", "mean_positives"),
    ("INFERENCE_TH_TEST", 0.3, "selector", "score_threshold", 0.3),
    ("RECOMPUTE", False, "head", "recompute", False),
    ("THRESH_WITH_CTR", True, "selector", "threshold_on", "product"),
    ("THRESHOLD_ON", "score", "selector", "threshold_on", "score"),
    ("PRE_NMS_TOPK_TEST", 50, "selector", "topk", 50),
    ("POST_NMS_TOPK_TEST", 5, "selector", "max_detections", 5),
    ("NMS_TH", 0.5, "selector", "nms_threshold", 0.5),
    ("NMS_WITHIN", "level", "selector", "nms_within", "level"),
    ("NMS_CONVENTION", "plus_one", "selector", "nms_convention", "plus_one"),
    ("SCORE_FORM", "product", "selector", "score_form", "product"),
    ("TOPK_BY", "class", "selector", "topk_by", "class"),
    ("MAX_DETECTIONS_TIES", "cut", "selector", "max_detections_ties", "cut"),
    ("CLIP", "before", "selector", "clip", "before"),
    ("CLIP_MARGIN", 1.0, "selector", "clip_margin", 1.0),
    ("MIN_SIZE", 0.0, "selector", "min_size", 0.0),
    ("DROP_INVERTED", True, "selector", "drop_inverted", True),
    ("LTRB_INFERENCE", "raw", "coder", "inference", "raw"),
]


DETECTOR_KEYS = ("INCLUSIVE_FAR_CORNER", "KEEP_EMPTY", "BATCH_INVARIANT")
PROPOSAL_KEYS = ("CLASS_AGNOSTIC",)


@pytest.mark.parametrize("key", DETECTOR_KEYS)
def test_conventions_of_the_detector(key: str) -> None:
    assert getattr(build(), key.lower()) is False
    assert getattr(build(**{key: True}), key.lower()) is True


@pytest.mark.parametrize(("key", "value", "part", "field", "expected"), KEYS)
def test_every_key_reaches_its_part(key: str, value: Any, part: str, field: str, expected: Any) -> None:
    dense, plain = dense_from(**{key: value}), dense_from()
    assert getattr(getattr(dense, part), field) == expected
    changed = {p: options(getattr(dense, p)) for p in PARTS}
    default = {p: options(getattr(plain, p)) for p in PARTS}
    differences = {p for p in PARTS if changed[p] != default[p]}
    assert differences <= ({"grid", "head"} if key == "DENSE_POINTS" else {part})


def test_no_key_without_effect_is_forgotten_here() -> None:
    """All keys of the plain parts are in the table above, but for those that other tests turn."""
    elsewhere = {
        "IN_FEATURES",
        "FPN_STRIDES",
        "TOP_LEVELS",
        "USE_RELU",
        "USE_DEFORMABLE",
        *DETECTOR_KEYS,
        *PROPOSAL_KEYS,
    }
    in_training = {"INFERENCE_TH_TRAIN", "PRE_NMS_TOPK_TRAIN", "POST_NMS_TOPK_TRAIN"}
    names = {key for key in config().MODEL.FCOS if key.endswith("_NAME") or key.startswith(("NAS_", "FAD_", "YIELD_"))}
    assert set(config().MODEL.FCOS) == {key for key, *_ in KEYS} | elsewhere | in_training | names


def test_training_has_keys_of_its_own() -> None:
    cfg = config(INFERENCE_TH_TRAIN=0.1, PRE_NMS_TOPK_TRAIN=20, POST_NMS_TOPK_TRAIN=3)
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "FCOSProposals"
    with unfilled():
        generator = build_model(cfg).proposal_generator
    assert isinstance(generator, FCOSProposals)
    train, test = generator.train_selector, generator.dense.selector
    assert (train.score_threshold, train.topk, train.max_detections) == (0.1, 20, 3)
    assert (test.score_threshold, test.topk, test.max_detections) == (0.05, 1000, 100)
    assert train.nms_threshold == test.nms_threshold


def test_proposals_without_classes() -> None:
    cfg = config(CLASS_AGNOSTIC=True, NUM_CLASSES=7)
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "FCOSProposals"
    with unfilled():
        generator = build_model(cfg).proposal_generator
    assert generator.class_agnostic and (generator.num_classes, generator.dense.head.num_classes) == (1, 1)
    with pytest.raises(ValueError, match=r"CLASS_AGNOSTIC is True, which only FCOSProposals knows"):
        build(CLASS_AGNOSTIC=True)


def test_without_a_quality_branch() -> None:
    """One key, and head, box weights and normalizer follow."""
    dense = dense_from(BOX_QUALITY="none")
    assert (dense.head.quality_on, dense.loss.quality) == ("none", "none")
    assert (dense.loss.box_weight, dense.loss.box_normalizer) == ("none", "mean_positives")
    with pytest.raises(ValueError, match="both are 'none'"):
        dense_from(QUALITY_ON="none")


def test_pixel_statistics_and_format() -> None:
    cfg = config()
    cfg.merge_from_list(
        ["MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0], "MODEL.PIXEL_STD", [4.0, 5.0, 6.0], "INPUT.FORMAT", "RGB"]
    )
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    assert model.pixel_mean.flatten().tolist() == [1, 2, 3]
    assert model.pixel_std.flatten().tolist() == [4, 5, 6]
    assert model.input_format == "RGB"


@pytest.mark.parametrize(
    ("levels", "keys"),
    [
        (0, {"IN_FEATURES": ["p3", "p4", "p5"], "FPN_STRIDES": [8, 16, 32], "SIZES_OF_INTEREST": [64, 128]}),
        (
            1,
            {
                "IN_FEATURES": ["p3", "p4", "p5", "p6"],
                "FPN_STRIDES": [8, 16, 32, 64],
                "SIZES_OF_INTEREST": [64, 128, 256],
            },
        ),
    ],
)
def test_fewer_levels(levels: int, keys: dict[str, Any]) -> None:
    model = build(TOP_LEVELS=levels, **keys)
    assert model.strides == keys["FPN_STRIDES"]
    assert model.dense.head.num_levels == len(keys["IN_FEATURES"])


# ---------------------------------------------------------------------------------------------------- parts of others
@dataclass(frozen=True)
class EveryOther(PointAssigner):
    """An assigner of another project: it leaves the odd locations to the background."""

    def __call__(self, locations: Locations, boxes: Tensor, image: Tensor, num_images: int) -> Tensor:
        index = super().__call__(locations, boxes, image, num_images)
        index[:, 1::2] = -1
        return index


@pytest.fixture
def registered() -> Iterator[None]:
    ASSIGNER_REGISTRY.register(EveryOther)
    yield
    ASSIGNER_REGISTRY._obj_map.pop("EveryOther")


@pytest.mark.usefixtures("registered")
def test_another_part_by_its_name() -> None:
    model = build(ASSIGNER_NAME="EveryOther", POS_RADIUS=2.0)
    assert type(model.dense.assigner) is EveryOther
    assert model.dense.assigner.center_radius == 2.0


# ------------------------------------------------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"HEAD_NAME": "Head"}, "MODEL.FCOS.HEAD_NAME is 'Head', but it must be one of: 'FCOSHead'"),
        ({"ASSIGNER_NAME": "ATSS"}, "MODEL.FCOS.ASSIGNER_NAME is 'ATSS', but it must be one of: 'PointAssigner'"),
        ({"LOSS_NAME": "L"}, "MODEL.FCOS.LOSS_NAME is 'L', but it must be one of: 'FCOSLoss'"),
        ({"SELECTOR_NAME": "S"}, "MODEL.FCOS.SELECTOR_NAME is 'S', but it must be one of: 'Selector'"),
        (
            {"BOX_QUALITY": "area"},
            "MODEL.FCOS.BOX_QUALITY is 'area', but it must be one of: 'ctrness', 'centerness', 'iou', 'none'.",
        ),
        (
            {"LOSS_NORMALIZER_CLS": "sum"},
            "MODEL.FCOS.LOSS_NORMALIZER_CLS is 'sum', but it must be one of: 'positives', 'positives_and_images'",
        ),
        ({"LOC_LOSS_TYPE": "l1"}, "FCOSLoss.box_loss is 'l1', but it must be one of: 'iou', 'linear_iou', 'giou'"),
        ({"NORM": "LN"}, "FCOSHead.norm is 'LN', but it must be one of: 'GN', 'BN', 'SyncBN', 'none'."),
        (
            {"YIELD_PROPOSAL": True},
            "MODEL.FCOS.YIELD_PROPOSAL is True, but only detection is available: set it to False.",
        ),
        (
            {"IN_FEATURES": ["p2", "p3"]},
            "MODEL.FCOS.IN_FEATURES names 'p2', but the backbone has: p3, p4, p5, p6, p7.",
        ),
        (
            {"FPN_STRIDES": [4, 8, 16, 32, 64]},
            "MODEL.FCOS.FPN_STRIDES is [4, 8, 16, 32, 64], but the backbone has [8, 16, 32, 64, 128].",
        ),
    ],
)
def test_one_clear_sentence(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build(**keys)


def test_top_levels() -> None:
    with pytest.raises(ValueError, match=r"^top_levels is 3, but a feature pyramid has 0, 1 or 2 levels above p5\.$"):
        build(TOP_LEVELS=3)
