"""What a stored config may name: a closed table of classes and functions, with the arguments that each may be given.

A stored config is somebody else's data. A `_target_` in it is looked up here and never imported. Our own classes are
found by their names, whichever module a file says, so that files outlive a move; Detectron2's by the module that
defines them or a package around it, as `LazyConfig.save` shortens paths. A new backbone is in the table with its row.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import detectron2.data as d2_data
import detectron2.data.samplers as d2_samplers
import detectron2.data.transforms as T
import detectron2.evaluation as d2_evaluation
import detectron2.modeling as d2_modeling
import detectron2.modeling.backbone.fpn as d2_fpn
import detectron2.modeling.backbone.regnet as d2_regnet
import detectron2.modeling.backbone.resnet as d2_resnet
import detectron2.modeling.meta_arch.fcos as d2_fcos
import torch
from detectron2.data.transforms import augmentation_impl
from detectron2.layers import ShapeSpec
from detectron2.modeling import anchor_generator, box_regression, matcher, poolers, roi_heads
from detectron2.modeling.meta_arch import panoptic_fpn, retinanet, semantic_seg
from detectron2.modeling.proposal_generator import rpn
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common import param_scheduler
from fvcore.common.registry import Registry
from torch import nn

from ..data.loader import build_test_loader, build_train_loader
from ..data.mapper import CloseMapper, FastMapper
from ..modeling import (
    ASSIGNER_REGISTRY,
    BACKBONES,
    FCOS,
    FCOS_HEAD_REGISTRY,
    LOSS_REGISTRY,
    SELECTOR_REGISTRY,
    DenseFCOS,
    FCOSProposals,
    LocationGrid,
    LTRBCoder,
)

__all__ = ["KINDS", "REGISTRIES", "Target", "arguments_of", "find", "import_path", "paths_of", "target"]

KINDS = ("model", "transform", "data", "optimizer", "evaluator")

# Classes that other projects register are allowed, too; see `plugins`.
REGISTRIES: tuple[Registry, ...] = (
    FCOS_HEAD_REGISTRY,
    ASSIGNER_REGISTRY,
    LOSS_REGISTRY,
    SELECTOR_REGISTRY,
    d2_modeling.META_ARCH_REGISTRY,
    d2_modeling.BACKBONE_REGISTRY,
    d2_modeling.PROPOSAL_GENERATOR_REGISTRY,
    d2_modeling.RPN_HEAD_REGISTRY,
    d2_modeling.ANCHOR_GENERATOR_REGISTRY,
    d2_modeling.SEM_SEG_HEADS_REGISTRY,
    d2_modeling.ROI_HEADS_REGISTRY,
    d2_modeling.ROI_BOX_HEAD_REGISTRY,
    d2_modeling.ROI_MASK_HEAD_REGISTRY,
    d2_modeling.ROI_KEYPOINT_HEAD_REGISTRY,
)

# Never given by data: configs in Detectron2's old form, files that are unpickled, functions, what training fills in.
_REFUSED = {
    "cfg", "proposal_files", "proposal_file", "collate_fn", "lr_factor_func", "block_class", "norm_layer", "act_layer",
    "model", "self",
}  # fmt: skip

_T = TypeVar("_T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Target:
    """A row of the table.

    Attributes:
        make: the class or function.
        kind: one of `KINDS`; "any" for a part of another project.
        arguments: names that a stored config may give.
        path: where it can be imported from, as short as it is.
    """

    make: Callable[..., Any]
    kind: str
    arguments: frozenset[str]

    @property
    def path(self) -> str:
        return import_path(self.make)


_ADDED: dict[Callable[..., Any], str] = {}


def target(kind: str) -> Callable[[_T], _T]:
    """Decorator: put a class or function of a higher room of this package into the table."""

    def add(made: _T) -> _T:
        _ADDED[made] = kind
        _own.cache_clear()
        return made

    return add


def find(path: str) -> Target | None:
    """The row of a dotted path; nothing is imported."""
    if path.startswith("fcos_d2."):
        return _own().get(path.rpartition(".")[2])
    return _detectron2().get(path)


@cache
def _own() -> Mapping[str, Target]:
    """Our classes and functions, by name."""
    model: list[Any] = [FCOS, FCOSProposals, DenseFCOS, LTRBCoder, LocationGrid]
    for row in BACKBONES.values():
        model += [row.bottom_up, row.pyramid]
    for registry in REGISTRIES:
        model += [made for _, made in registry if made.__module__.startswith("fcos_d2.") and inspect.isclass(made)]
    data = (build_train_loader, build_test_loader, FastMapper, CloseMapper)
    found: dict[str, Target] = {}
    kinds: dict[Any, str] = {**dict.fromkeys(model, "model"), **dict.fromkeys(data, "data"), **_ADDED}
    for made, kind in kinds.items():
        found.setdefault(made.__name__, Target(made, kind, arguments_of(made)))  # the first of a name, FCOS say
    return found


@cache
def _detectron2() -> Mapping[str, Target]:
    """Detectron2's, fvcore's and PyTorch's, by every path that may stand for them."""
    found: dict[str, Target] = {}
    rows = [
        Target(made, kind, arguments_of(made) | _MORE_ARGUMENTS.get(made, frozenset()))
        for kind, parts in _foreign()
        for made in parts
    ]
    for row in rows:
        found[f"{row.make.__module__}.{row.make.__qualname__}"] = row
    for row in rows:
        for path in paths_of(row.make):
            found.setdefault(path, row)
    return found


# `make_default_stages` hands all others on to the blocks.
_MORE_ARGUMENTS = {d2_resnet.ResNet.make_default_stages: frozenset({"norm", "stride_in_1x1", "num_groups", "dilation"})}


def _foreign() -> Iterator[tuple[str, Iterable[Callable[..., Any]]]]:
    """Kind, and classes and functions: what Detectron2's own LazyConfigs name (configs/common and new baselines)."""
    yield "model", (
        d2_resnet.ResNet, d2_resnet.ResNet.make_default_stages, d2_resnet.BasicStem,
        d2_regnet.RegNet, d2_regnet.SimpleStem, d2_regnet.ResStem,
        d2_fpn.FPN, d2_fpn.LastLevelMaxPool, d2_fpn.LastLevelP6P7,
        d2_fcos.FCOS, d2_fcos.FCOSHead, retinanet.RetinaNet, retinanet.RetinaNetHead,
        d2_modeling.GeneralizedRCNN, d2_modeling.ProposalNetwork, panoptic_fpn.PanopticFPN,
        semantic_seg.SemanticSegmentor, semantic_seg.SemSegFPNHead,
        anchor_generator.DefaultAnchorGenerator, anchor_generator.RotatedAnchorGenerator, matcher.Matcher,
        box_regression.Box2BoxTransform, box_regression.Box2BoxTransformLinear, box_regression.Box2BoxTransformRotated,
        rpn.RPN, rpn.StandardRPNHead, poolers.ROIPooler, ShapeSpec,
        *_named(roi_heads, (
            "StandardROIHeads", "CascadeROIHeads", "Res5ROIHeads", "FastRCNNConvFCHead", "FastRCNNOutputLayers",
            "MaskRCNNConvUpsampleHead", "KRCNNConvDeconvUpsampleHead",
        )),
        roi_heads.box_head.FastRCNNConvFCHead, roi_heads.fast_rcnn.FastRCNNOutputLayers,
        roi_heads.mask_head.MaskRCNNConvUpsampleHead, roi_heads.keypoint_head.KRCNNConvDeconvUpsampleHead,
        *_named(d2_modeling, ("ViT", "SimpleFeaturePyramid", "MViT", "SwinTransformer")),  # main has them
        nn.Identity, nn.ReLU, nn.GELU, nn.SiLU, nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm,
    )  # fmt: skip
    yield ("transform", [*_classes(augmentation_impl, T.Augmentation, without=(T.Augmentation,)), T.AugmentationList])
    yield "data", (
        d2_data.get_detection_dataset_dicts, d2_data.build_detection_train_loader, d2_data.build_detection_test_loader,
        d2_data.DatasetMapper, d2_samplers.TrainingSampler, d2_samplers.RandomSubsetTrainingSampler,
        d2_samplers.RepeatFactorTrainingSampler, d2_samplers.InferenceSampler,
        d2_samplers.RepeatFactorTrainingSampler.repeat_factors_from_category_frequency,
    )  # fmt: skip
    yield (
        "optimizer",
        (
            *_classes(torch.optim, torch.optim.Optimizer, without=(torch.optim.Optimizer,)),
            *_classes(param_scheduler, param_scheduler.ParamScheduler, without=(param_scheduler.ParamScheduler,)),
            WarmupParamScheduler,
            get_default_optimizer_params,
        ),
    )
    yield "evaluator", (
        d2_evaluation.COCOEvaluator, d2_evaluation.LVISEvaluator, d2_evaluation.PascalVOCDetectionEvaluator,
        d2_evaluation.RotatedCOCOEvaluator, d2_evaluation.SemSegEvaluator, d2_evaluation.COCOPanopticEvaluator,
        d2_evaluation.DatasetEvaluators,
    )  # fmt: skip


def _named(module: Any, names: Iterable[str]) -> list[Any]:
    return [getattr(module, name) for name in names if hasattr(module, name)]


def _classes(module: Any, parent: type, without: tuple[type, ...]) -> list[type]:
    """Public classes of a module that derive from one."""
    return [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, parent) and value not in without and not name.startswith("_")
    ]


def arguments_of(made: Callable[..., Any], others: bool = False) -> frozenset[str]:
    """Names of the arguments that data may give.

    Args:
        made: a class or function; of a class that hands others on, those of its parents are among them.
        others: whether "**" is among them where the signature takes any name.
    """
    names: set[str] = set()
    ancestors = made.__mro__[1:] if inspect.isclass(made) else ()
    parents = [vars(parent)["__init__"] for parent in ancestors if "__init__" in vars(parent)]
    for function in (made, *parents):
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            break
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return frozenset(names - _REFUSED)
    return frozenset(names - _REFUSED) | ({"**"} if others else set())


def paths_of(made: Callable[..., Any]) -> list[str]:
    """The dotted paths that stand for a class or function: its module, and each package around it."""
    parts = made.__module__.split(".")
    return [f"{'.'.join(parts[:end])}.{made.__qualname__}" for end in range(1, len(parts) + 1)]


def import_path(made: Callable[..., Any]) -> str:
    """The shortest of `paths_of` from which it can be imported as things stand; empty if there is none."""
    for path in paths_of(made):
        value: Any = sys.modules.get(path.removesuffix(f".{made.__qualname__}"))
        for name in made.__qualname__.split("."):
            value = getattr(value, name, None)
        if value is made:
            return path
    return ""
