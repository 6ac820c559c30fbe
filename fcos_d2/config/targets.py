"""What a stored config may name: a closed table of classes and functions, with the arguments that each may be given.

A stored config is somebody else's data. A `_target_` in it is looked up here and never imported. Our own classes are
found by their names, whichever module a file says, so that files outlive a move; Detectron2's by the module that
defines them or a package around it, as `LazyConfig.save` shortens paths. A new backbone is in the table with its row.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

import detectron2.data.transforms as T
import detectron2.modeling as d2_modeling
import torch
from detectron2.data.transforms import augmentation_impl
from fvcore.common import param_scheduler
from fvcore.common.registry import Registry

from ..data.loader import RandomSubsetSampling, RepeatFactorSampling, build_test_loader, build_train_loader
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
    *(FCOS_HEAD_REGISTRY, ASSIGNER_REGISTRY, LOSS_REGISTRY, SELECTOR_REGISTRY),
    *(value for name, value in vars(d2_modeling).items() if name.endswith("_REGISTRY")),
)

# Kind -> module -> names in it: what Detectron2's own LazyConfigs name (configs/common and new baselines). Version 0.6
# has not all of them.
_FOREIGN: dict[str, dict[str, str]] = {
    "model": {
        "detectron2.layers": "ShapeSpec",
        "detectron2.modeling": "GeneralizedRCNN PanopticFPN ProposalNetwork ViT SimpleFeaturePyramid MViT "
        "SwinTransformer",
        "detectron2.modeling.anchor_generator": "DefaultAnchorGenerator RotatedAnchorGenerator",
        "detectron2.modeling.backbone.fpn": "FPN LastLevelMaxPool LastLevelP6P7",
        "detectron2.modeling.backbone.regnet": "RegNet SimpleStem ResStem",
        "detectron2.modeling.backbone.resnet": "ResNet ResNet.make_default_stages BasicStem",
        "detectron2.modeling.box_regression": "Box2BoxTransform Box2BoxTransformLinear Box2BoxTransformRotated",
        "detectron2.modeling.matcher": "Matcher",
        "detectron2.modeling.meta_arch.fcos": "FCOS FCOSHead",
        "detectron2.modeling.meta_arch.retinanet": "RetinaNet RetinaNetHead",
        "detectron2.modeling.meta_arch.semantic_seg": "SemanticSegmentor SemSegFPNHead",
        "detectron2.modeling.poolers": "ROIPooler",
        "detectron2.modeling.proposal_generator.rpn": "RPN StandardRPNHead",
        "detectron2.modeling.roi_heads": "StandardROIHeads CascadeROIHeads Res5ROIHeads FastRCNNConvFCHead "
        "FastRCNNOutputLayers MaskRCNNConvUpsampleHead KRCNNConvDeconvUpsampleHead",
        "torch.nn": "Identity ReLU GELU SiLU Conv2d BatchNorm2d GroupNorm LayerNorm",
    },
    "transform": {"detectron2.data.transforms": "AugmentationList"},
    "data": {
        "detectron2.data": "get_detection_dataset_dicts build_detection_train_loader build_detection_test_loader "
        "DatasetMapper",
        "detectron2.data.samplers": "TrainingSampler RandomSubsetTrainingSampler RepeatFactorTrainingSampler "
        "InferenceSampler RepeatFactorTrainingSampler.repeat_factors_from_category_frequency",
    },
    "optimizer": {
        "detectron2.solver": "WarmupParamScheduler",
        "detectron2.solver.build": "get_default_optimizer_params",
    },
    "evaluator": {
        "detectron2.evaluation": "COCOEvaluator LVISEvaluator PascalVOCDetectionEvaluator RotatedCOCOEvaluator "
        "SemSegEvaluator COCOPanopticEvaluator DatasetEvaluators"
    },
}
# Kind, module and a class: the module's public classes that derive from it.
_FOREIGN_FAMILIES: tuple[tuple[str, Any, type], ...] = (
    ("transform", augmentation_impl, T.Augmentation),
    ("optimizer", torch.optim, torch.optim.Optimizer),
    ("optimizer", param_scheduler, param_scheduler.ParamScheduler),
)
# `ResNet.make_default_stages` hands all others on to the blocks.
_MORE_ARGUMENTS = {"ResNet.make_default_stages": {"norm", "stride_in_1x1", "num_groups", "dilation"}}

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


_OWN: dict[str, Target] = {}


def target(kind: str) -> Callable[[_T], _T]:
    """Decorator: put a class or function of this package into the table."""

    def add(made: _T) -> _T:
        _OWN.setdefault(made.__name__, Target(made, kind, arguments_of(made)))  # the first of a name, FCOS say
        return made

    return add


def find(path: str) -> Target | None:
    """The row of a dotted path; nothing is imported."""
    return _OWN.get(path.rpartition(".")[2]) if path.startswith("fcos_d2.") else _detectron2().get(path)


@cache
def _detectron2() -> Mapping[str, Target]:
    """Detectron2's, fvcore's and PyTorch's, by every path that may stand for them: their own first."""
    rows = [Target(made, kind, arguments_of(made)) for made, kind in _foreign()]
    found = {path: row for row in reversed(rows) for path in paths_of(row.make)}
    return found | {paths_of(row.make)[-1]: row for row in rows}


def _foreign() -> Iterator[tuple[Callable[..., Any], str]]:
    for kind, modules in _FOREIGN.items():
        for name, parts in modules.items():
            for part in parts.split():
                with suppress(AttributeError):
                    yield attrgetter(part)(importlib.import_module(name)), kind
    for kind, module, parent in _FOREIGN_FAMILIES:
        for name, made in vars(module).items():
            if inspect.isclass(made) and issubclass(made, parent) and made is not parent and not name.startswith("_"):
                yield made, kind


def arguments_of(made: Callable[..., Any], others: bool = False) -> frozenset[str]:
    """Names of the arguments that data may give.

    Args:
        made: a class or function; of a class that hands others on, those of its parents are among them.
        others: whether "**" is among them where the signature takes any name.
    """
    names = set(_MORE_ARGUMENTS.get(made.__qualname__, ()))
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


_MODEL: list[Any] = [FCOS, FCOSProposals, DenseFCOS, LTRBCoder, LocationGrid]
_MODEL += [part for row in BACKBONES.values() for part in (row.bottom_up, row.pyramid)]
_CLASSES = [made for registry in REGISTRIES for _, made in registry if inspect.isclass(made)]
_MODEL += [made for made in _CLASSES if made.__module__.startswith("fcos_d2.")]
_DATA: list[Any] = [
    build_train_loader,
    build_test_loader,
    FastMapper,
    CloseMapper,
    RepeatFactorSampling,
    RandomSubsetSampling,
]
for _kind, _parts in (("model", _MODEL), ("data", _DATA)):
    for _made in _parts:
        target(_kind)(_made)
