"""The published versions: what each stands for, written out once more and compared."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest
from scenes import dense_of

from fcos_d2.modeling import FCOS_HEAD_REGISTRY, FCOSLoss, LocationGrid, LTRBCoder, PointAssigner, Selector
from fcos_d2.zoo.recipes import RECIPES, Recipe

PARTS = {
    "grid": LocationGrid,
    "assigner": PointAssigner,
    "coder": LTRBCoder,
    "loss": FCOSLoss,
    "selector": Selector,
}

_T = {
    "grid.origin": "center",
    "assigner.range_ends": "closed",
    "assigner.area": "plus_one",
    "assigner.center_radius": 0.0,
    "coder.unit": "pixel",
    "coder.activation": "exp",
    "coder.inference": "same",
    "head.level_scale": True,
    "head.quality_on": "class",
    "head.conv_bias": True,
    "loss.quality": "centerness",
    "loss.box_loss": "iou",
    "loss.iou_rule": "plus_one",
    "loss.box_weight": "centerness",
    "loss.class_normalizer": "mean_positives",
    "loss.box_normalizer": "mean_weights",
    "loss.quality_normalizer": "mean_positives",
    "selector.threshold_on": "class",
    "selector.score_threshold": 0.05,
    "selector.topk": 1000,
    "selector.topk_by": "score",
    "selector.score_form": "sqrt",
    "selector.nms_threshold": 0.6,
    "selector.nms_convention": "plus_one",
    "selector.max_detections": 100,
    "selector.max_detections_ties": "keep",
    "selector.clip": "before",
    "selector.clip_margin": 1.0,
    "selector.drop_inverted": False,
}
_IMPROVED = {
    "assigner.center_radius": 1.5,
    "coder.unit": "stride",
    "coder.activation": "relu",
    "head.quality_on": "box",
    "loss.box_loss": "giou",
}
_PLUS = {
    "loss.class_normalizer": "positives_and_images",
    "loss.box_normalizer": "weights",
    "loss.quality_normalizer": "positives",
    "selector.score_form": "product",
}
_A = {
    **_IMPROVED,
    "assigner.area": "plain",
    "loss.iou_rule": "plus_one_exact",
    "selector.nms_convention": "plain",
    "selector.clip": "after",
    "selector.clip_margin": 0.0,
}
_D = {
    **_A,
    "assigner.range_ends": "open",
    "head.level_scale": False,
    "loss.iou_rule": "eps",
    "loss.box_weight": "none",
    "loss.class_normalizer": "moving_positives",
    "loss.box_normalizer": "moving_positives",
    "loss.quality_normalizer": "moving_positives",
    "loss.moving_start": 300.0,
    "loss.moving_momentum": 0.9,
    "selector.threshold_on": "score",
    "selector.score_threshold": 0.2,
    "selector.max_detections_ties": "cut",
}
_M = {
    "assigner.area": "plain",
    "head.conv_bias": False,
    "loss.iou_rule": "floor",
    "selector.score_form": "product",
    "selector.topk_by": "class",
    "selector.nms_threshold": 0.5,
    "selector.nms_convention": "plain",
    "selector.max_detections_ties": "cut",
    "selector.clip_margin": 0.0,
    "selector.min_size": 0.0,
}
# The decisions of each family as its difference from the first, read from the published sources.
PUBLISHED: dict[str, dict[str, Any]] = {
    "original": {},
    "improved": _IMPROVED,
    "fad": {**_IMPROVED, "coder.inference": "raw", "selector.drop_inverted": True, "head.conv_bias": None},
    "fcos_plus": _PLUS,
    "fcos_plus_center": {**_PLUS, "assigner.center_radius": 1.5},
    "fcos_plus_center_liou": {**_PLUS, "assigner.center_radius": 1.5, "loss.box_loss": "linear_iou"},
    "fcos_plus_center_giou": {**_PLUS, "assigner.center_radius": 1.5, "loss.box_loss": "giou"},
    "fcos_hrnet": _PLUS,
    "fcos_vovnet": {**_PLUS, "selector.score_form": "sqrt"},
    "nas_fcos": _PLUS,
    "adelaidet": _A,
    "adelaidet_iou": {
        **_A,
        "loss.quality": "iou",
        "loss.box_weight": "none",
        "loss.box_normalizer": "mean_positives",
    },
    "realtime": _A,
    "detectron2": _D,
    "torchvision": {
        **_D,
        "grid.origin": "corner",
        "loss.class_normalizer": "positives",
        "loss.box_normalizer": "positives",
        "loss.quality_normalizer": "positives",
        "selector.clip": "before",
    },
    "mmdet": _M,
    "mmdet_tricks": {**_M, **_IMPROVED, "head.conv_bias": True, "selector.nms_threshold": 0.6},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_decisions_of_each_family(name: str) -> None:
    dense = dense_of(name)
    for key, value in {**_T, **PUBLISHED[name]}.items():
        part, field = key.split(".")
        if value is not None:  # which says that there is no such choice
            assert getattr(getattr(dense, part), field) == value, key


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_built_and_says_where_it_is_from(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.source
    dense_of(recipe)
    for part, known in {**PARTS, "head": FCOS_HEAD_REGISTRY.get(recipe.head_name)}.items():
        assert set(getattr(recipe, part)) <= {f.name for f in fields(known)}


@pytest.mark.parametrize("name", RECIPES)
def test_levels_and_size_ranges_agree(name: str) -> None:
    """One range for each level; together they leave no gap, whatever the size."""
    recipe = RECIPES[name]
    ranges = recipe.assigner["size_ranges"]
    assert len(ranges) == len(recipe.features)
    assert ranges[0][0] < 0
    assert ranges[-1][1] == math.inf
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
    assert sum(int(f[1:]) > 5 for f in recipe.features) == recipe.top_levels


@pytest.mark.parametrize("name", RECIPES)
def test_pixel_statistics_are_in_the_order_of_the_channels(name: str) -> None:
    """Blue is darkest in ImageNet: its mean is the least, and comes first where the format is BGR."""
    recipe = RECIPES[name]
    order = {"BGR": list(recipe.pixel_mean), "RGB": list(reversed(recipe.pixel_mean))}[recipe.input_format]
    assert order == sorted(order)
    assert order[0] == pytest.approx(103, abs=1)
    std = {"BGR": list(recipe.pixel_std), "RGB": list(reversed(recipe.pixel_std))}[recipe.input_format]
    assert std in ([1.0, 1.0, 1.0], [57.375, 57.12, 58.395])


@pytest.mark.parametrize("name", RECIPES)
def test_solver_is_complete(name: str) -> None:
    solver = RECIPES[name].solver
    assert set(solver) >= {
        "base_lr",
        "bias_lr_factor",
        "weight_decay_bias",
        "weight_decay_norm",
        "warmup_method",
        "warmup_factor",
        "warmup_iters",
    }
    assert solver["warmup_method"] in ("constant", "linear")


def test_but_changes_what_it_names_only() -> None:
    first = Recipe("first", "here", coder={"unit": "pixel", "activation": "exp"}, loss={"box_loss": "iou"})
    second = first.derived("second", "there", coder={"unit": "stride"}, features=("p3", "p4"))
    assert (second.name, second.source) == ("second", "there")
    assert second.coder == {"unit": "stride", "activation": "exp"}
    assert second.loss == {"box_loss": "iou"}
    assert second.features == ("p3", "p4")
    assert first.coder == {"unit": "pixel", "activation": "exp"}
    assert first.features == ("p3", "p4", "p5", "p6", "p7")
