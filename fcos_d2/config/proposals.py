"""Detectron2's `ProposalNetwork` and `GeneralizedRCNN` with FCOS or RPN in front, as LazyConfig and as yacs.

    model, dataloader, optimizer, lr_multiplier, train = compose_proposals(
        architecture="GeneralizedRCNN", generator="FCOSProposals", recipe="proposals", backbone="R_50_FPN_6l",
        schedule="1x_choice",
    )

The second stage, and the RPN, are those of Detectron2's Faster R-CNN with FPN. The number of classes is
`model.roi_heads.num_classes` alone; a first stage has none, for every object is one to it.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import GeneralizedRCNN, ProposalNetwork
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, FastRCNNOutputLayers, StandardROIHeads
from omegaconf import DictConfig

from ..modeling import FCOSProposals, Selector
from ..modeling.backbone import BACKBONES
from ..options import one_of
from ..zoo.proposals import ARCHITECTURES, GENERATORS, PROPOSAL_RECIPES, ProposalVariant
from ..zoo.recipes import Recipe
from ..zoo.schedules import SCHEDULES
from .compose import Composed, backbone_node, dense_node, pixel_statistics, with_training

__all__ = ["RECALL", "compose_proposals", "proposal_keys"]

RECALL = "box_proposals/AR@1000"  # which decides what is best, where nothing is detected
_POOLED = 7  # side of what the second stage sees of a proposal, cells
_ANCHOR_SIDES = (32, 64, 128, 256, 512)  # one for each level
_ASPECT_RATIOS = (0.5, 1.0, 2.0)


def compose_proposals(
    architecture: str, generator: str, recipe: str, backbone: str, schedule: str, fc_dim: int = 1024, rois: int = 512
) -> Composed:
    """Put a proposal network or a two-stage detector and its training together.

    Args:
        architecture: of Detectron2, "ProposalNetwork" or "GeneralizedRCNN".
        generator: "FCOSProposals", or Detectron2's "RPN".
        recipe: name in `zoo.proposals.PROPOSAL_RECIPES`; an RPN has its levels, pixels and solver.
        backbone: name in `modeling.BACKBONES`, with the features that the recipe's levels need.
        schedule: name in `zoo.schedules.SCHEDULES`.
        fc_dim, rois: of the second stage, see `ProposalVariant`.
    Raises:
        ValueError: no such name; the message lists those there are.
    """
    one_of("architecture", architecture, ARCHITECTURES)
    one_of("generator", generator, GENERATORS)
    one_of("recipe", recipe, list(PROPOSAL_RECIPES))
    one_of("backbone", backbone, list(BACKBONES))
    one_of("schedule", schedule, list(SCHEDULES))
    chosen, row, plan = PROPOSAL_RECIPES[recipe], BACKBONES[backbone], SCHEDULES[schedule]
    mean, std = pixel_statistics(chosen, row)
    parts: dict[str, Any] = {
        "backbone": backbone_node(chosen, row),
        "proposal_generator": _fcos(chosen) if generator == "FCOSProposals" else _rpn(chosen),
        "pixel_mean": list(mean),
        "pixel_std": list(std),
    }
    if architecture == "ProposalNetwork":
        composed = with_training(L(ProposalNetwork)(**parts), chosen, row, plan)
        composed.train.best_metric = RECALL
        return composed
    parts |= {"roi_heads": _second_stage(chosen, fc_dim, rois), "input_format": chosen.input_format}
    return with_training(L(GeneralizedRCNN)(**parts), chosen, row, plan)


def _strides(recipe: Recipe) -> list[int]:
    """Of the levels, pixels."""
    return [2 ** int(name.removeprefix("p")) for name in recipe.features]


def _fcos(recipe: Recipe) -> DictConfig:
    return L(FCOSProposals)(
        dense=dense_node(recipe, 1, "${....backbone.out_channels}"),
        train_selector=L(Selector)(**{**recipe.selector, **recipe.train_selector}),
        in_features=list(recipe.features),
        strides=_strides(recipe),
        num_classes=1,
        class_agnostic=True,
    )


def _numbers(recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Proposals before and after suppression, (training, inference), as `RPN` takes them."""
    phases = {**recipe.selector, **recipe.train_selector}, recipe.selector
    before, after = (tuple(phase[key] for phase in phases) for key in ("topk", "max_detections"))
    return {"pre_nms_topk": before, "post_nms_topk": after}


def _rpn(recipe: Recipe) -> DictConfig:
    return L(RPN)(
        in_features=list(recipe.features),
        head=L(StandardRPNHead)(in_channels="${...backbone.out_channels}", num_anchors=len(_ASPECT_RATIOS)),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[side] for side in _ANCHOR_SIDES], aspect_ratios=[list(_ASPECT_RATIOS)], strides=_strides(recipe),
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        **{key: list(values) for key, values in _numbers(recipe).items()},
        nms_thresh=recipe.selector["nms_threshold"],
    )  # fmt: skip


def _pooled_levels(recipe: Recipe) -> list[str]:
    """Levels that the second stage takes regions from: those of the network itself, p5 the last."""
    return [name for name in recipe.features if int(name.removeprefix("p")) <= 5]


def _second_stage(recipe: Recipe, fc_dim: int, rois: int) -> DictConfig:
    names = _pooled_levels(recipe)
    return L(StandardROIHeads)(
        num_classes=80,
        batch_size_per_image=rois,
        positive_fraction=0.25,
        proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
        box_in_features=names,
        box_pooler=L(ROIPooler)(
            output_size=_POOLED, scales=[1.0 / stride for stride in _strides(recipe)[: len(names)]], sampling_ratio=0,
            pooler_type="ROIAlignV2",
        ),
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", height=_POOLED, width=_POOLED),
            conv_dims=[], fc_dims=[fc_dim] * 2,
        ),
        box_predictor=L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=fc_dim), test_score_thresh=0.05,
            box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]), num_classes="${..num_classes}",
        ),
    )  # fmt: skip


def proposal_keys(variant: ProposalVariant) -> dict[str, Any]:
    """The yacs keys of a row that are not those of its recipe, backbone and schedule."""
    recipe = PROPOSAL_RECIPES[variant.recipe]
    keys: dict[str, Any] = {
        "META_ARCHITECTURE": variant.architecture, "PROPOSAL_GENERATOR": {"NAME": variant.generator},
    }  # fmt: skip
    if variant.generator == "RPN":
        pairs = ((phase, i) for i, phase in enumerate(("TRAIN", "TEST")))
        numbers = {f"{key.upper()}_{phase}": n[i] for phase, i in pairs for key, n in _numbers(recipe).items()}
        keys["ANCHOR_GENERATOR"] = {
            "SIZES": [[side] for side in _ANCHOR_SIDES], "ASPECT_RATIOS": [list(_ASPECT_RATIOS)],
        }  # fmt: skip
        keys["RPN"] = {"IN_FEATURES": list(recipe.features), "NMS_THRESH": recipe.selector["nms_threshold"], **numbers}
    else:
        keys["FCOS"] = {"CLASS_AGNOSTIC": True}
    if variant.architecture == "GeneralizedRCNN":
        keys["ROI_HEADS"] = {
            "NAME": "StandardROIHeads", "IN_FEATURES": _pooled_levels(recipe), "BATCH_SIZE_PER_IMAGE": variant.rois,
        }  # fmt: skip
        keys["ROI_BOX_HEAD"] = {
            "NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "FC_DIM": variant.fc_dim, "POOLER_RESOLUTION": _POOLED,
        }  # fmt: skip
        return {"MODEL": keys}
    return {"MODEL": keys, "TRAIN": {"BEST_METRIC": RECALL}}
