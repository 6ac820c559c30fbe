"""FCOS in place of a region proposal network (arXiv:1904.01355, Sec. 5), and Detectron2's RPN at equal settings.

The recipes keep to what Detectron2's Faster R-CNN with FPN does around its RPN: the levels p2..p6, a head of one 3x3
convolution, the numbers of proposals, suppression within a level at an IoU of 0.7. What FCOS itself decides is
AdelaiDet's choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .recipes import RECIPES, Recipe
from .rows import Variant

__all__ = ["ARCHITECTURES", "GENERATORS", "PROPOSALS", "PROPOSAL_RECIPES", "ProposalVariant"]

ARCHITECTURES = ("ProposalNetwork", "GeneralizedRCNN")
GENERATORS = ("FCOSProposals", "RPN")


@dataclass(frozen=True)
class ProposalVariant(Variant):
    """A row: a network that proposes regions, or a two-stage detector that takes its proposals.

    Attributes:
        architecture: of Detectron2, one of `ARCHITECTURES`.
        generator: one of `GENERATORS`; of Detectron2's RPN a recipe says levels, pixels and solver only.
        fc_dim: channels of the two linear layers of the second stage.
        rois: proposals of an image that the second stage learns from.
    """

    architecture: str = "ProposalNetwork"
    generator: str = "FCOSProposals"
    fc_dim: int = 1024
    rois: int = 512


_LEVELS = ("p2", "p3", "p4", "p5", "p6")
# A level answers for the objects that the RPN's anchors of it are made for, 32 to 512 pixels from p2 to p6: half of
# that is how far the centre of an object lies from its sides. Ranges twice as wide leave most small objects to p2.
_RANGES = ((-1.0, 16.0), (16.0, 32.0), (32.0, 64.0), (64.0, 128.0), (128.0, math.inf))
_SELECTION = {
    "score_threshold": 0.0, "topk": 1000, "nms_threshold": 0.7, "nms_within": "level", "max_detections": 1000,
    "max_detections_ties": "cut", "clip": "before", "min_size": 0.0,
}  # fmt: skip
# Detectron2's schedules are for 0.02 with 16 images.
_SOLVER = {"base_lr": 0.02}
_SOURCE = "arXiv:1904.01355, Sec. 5 and Table 8; settings of detectron2, configs/Base-RCNN-FPN.yaml"


def _recipe(base: Recipe, name: str, **choices: object) -> Recipe:
    return base.derived(name, _SOURCE, **choices)


_WHOLE = _recipe(
    RECIPES["adelaidet"], "proposals_towers", selector=_SELECTION, train_selector={"topk": 2000}, solver=_SOLVER
)
_SHARED = _recipe(
    _WHOLE, "proposals", features=_LEVELS, top_levels=1, assigner={"size_ranges": _RANGES},
    head={"num_shared_convs": 1, "num_class_convs": 0, "num_box_convs": 0},
)  # fmt: skip
_WITHOUT = _recipe(
    _SHARED, "proposals_no_centerness", head={"quality_on": "none"}, selector={"score_form": "product"},
    loss={"quality": "none", "box_weight": "none", "box_normalizer": "mean_positives"},
)  # fmt: skip
PROPOSAL_RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (_SHARED, _WITHOUT, _WHOLE)}


def _rows(size: str, backbone: str, schedule: str, **more: int) -> tuple[ProposalVariant, ...]:
    """Proposal networks and two-stage detectors, with FCOS, FCOS without centerness and RPN, on one backbone."""
    found = []
    for architecture, start in (("ProposalNetwork", ""), ("GeneralizedRCNN", "faster_rcnn_")):
        for middle, recipe, generator in (
            ("fcos" if start else "fcos_rpn", "proposals", "FCOSProposals"),
            ("fcos_no_centerness" if start else "fcos_rpn_no_centerness", "proposals_no_centerness", "FCOSProposals"),
            ("" if start else "rpn", "proposals", "RPN"),
        ):
            name = f"{start}{middle}_{size}".replace("__", "_")
            given: dict[str, Any] = {"architecture": architecture, "generator": generator, "source": _SOURCE, **more}
            found.append(ProposalVariant(name, "proposals", recipe, backbone, schedule, **given))
    return tuple(found)


PROPOSALS: tuple[ProposalVariant, ...] = (
    *_rows("R_50_FPN_1x", "R_50_FPN_6l", "1x_choice"),
    # The levels and the head of a one-stage FCOS, whose weights start it whole, the class layer aside.
    ProposalVariant(
        "faster_rcnn_fcos_towers_R_50_FPN_1x",
        "proposals",
        "proposals_towers",
        "R_50_FPN",
        "1x_choice",
        source=_SOURCE,
        architecture="GeneralizedRCNN",
    ),
    *_rows("R_18_FPN_small", "R_18_FPN_6l", "small", fc_dim=256, rois=128),
    *_rows("R_18_slim_FPN_small", "R_18_slim_FPN_6l", "small", fc_dim=256, rois=128),
)
