"""`load_backbone`: ImageNet weights that detectors start from, complete and under our names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FcosError
from .adjust import change_pixels, fit_counters
from .expected import Target, target_of
from .families.family import Family
from .families.imagenet import CLASSIFIER, NOBODY, origin_of, without_prefixes
from .published import Imported
from .read import Weights, read
from .report import Report
from .rules import EPSILON, difference, matches, some, to_ours

_OURS = "backbone.bottom_up."
# Convolutions that compute the offsets of deformable ones: no ImageNet file has them.
_OFFSETS = re.compile(r".*(\.|_)offset\.(weight|bias)")


def load_backbone(path: str | Path | Weights, config: Any = None) -> Imported:
    """Read ImageNet weights on the CPU; nothing in the file is run.

    Args:
        path: .pkl of Detectron2's or Caffe2's model zoo, or .pth of torchvision, timm, or the network's authors; or
            what `read` returned.
        config: what the weights are for: name of a variant, config or model. With it they are checked to be complete,
            and the first convolution is changed to the pixels that it reads.
    Returns:
        Tensors whose names begin with `backbone.bottom_up.`; `report.initial` has those of deformable convolutions'
        offsets, which start anew.
    Raises:
        FcosError: the file is damaged, hostile, of no known network, or of another than the config's.
    """
    weights = path if isinstance(path, Weights) else read(path)
    tensors = without_prefixes(weights.tensors)
    target = None if config is None else target_of(config)
    origin = origin_of(tensors)
    bare = {n: t for n, t in tensors.items() if origin is None or not origin.ignores(n)}
    renamed = to_ours(bare, origin.rules if origin else ())
    if origin is None or (target and not any(name in target.shapes for name in renamed.tensors)):
        if target and (same := _same_names(weights, tensors, target)):
            return same
        if origin is None:
            shapes = target.shapes if target else {}
            wanted = [name for name in shapes if name.startswith(backbone_prefix(shapes))]
            ours = f", and the first of {target.title}'s backbone {wanted[0]!r}" if target and wanted else ""
            raise FcosError(
                f"{weights.path} holds no known backbone: the first of its {len(tensors)} tensors is "
                f"{next(iter(tensors))!r}{ours}."
            )
    report = Report(weights.path, origin.name, ignored=[name for name in tensors if name not in bare])
    if renamed.left_over:
        raise FcosError(f"{weights.path} looks like {origin.name}, but has also {some(renamed.left_over)}.")
    state = _fill_statistics(renamed.tensors, origin, report)
    report.facts += [f"made by {weights.made.maker}"] * bool(weights.made.maker)
    if target is None:
        report.facts += [f"input: {weights.pixels}"] * (weights.pixels is not None)
        if (first := weights.made.stride_in_1x1) is not None:
            report.facts.append(f"strides in its {'1x1' if first else '3x3'} convolutions")
    else:
        offsets = (name for name in target.shapes if name.startswith(_OURS) and _OFFSETS.fullmatch(name))
        report.initial = [name for name in offsets if name not in state]
        state = _suit(state, _OURS, weights, target, report)
    report.tensors, report.renamed = len(state), sum(name not in weights.tensors for name in state)
    return Imported(state, report, report.family)


def backbone_prefix(names: Iterable[str]) -> str:
    """What the names of a model's network below the pyramid begin with; without a pyramid, of its backbone."""
    return _OURS if any(name.startswith(_OURS) for name in names) else "backbone."


def _same_names(weights: Weights, tensors: dict[str, Tensor], target: Target) -> Imported | None:
    """Weights of a network that this package does not know, if their names are those of the target's."""
    prefix = backbone_prefix(target.shapes)
    report = Report(weights.path, "names of the backbone itself")
    report.ignored = [n for n in tensors if f"{prefix}{n}" not in target.shapes and matches(CLASSIFIER, n)]
    state = {f"{prefix}{name}": tensor for name, tensor in tensors.items() if name not in report.ignored}
    if not any(name in target.shapes for name in state):
        return None
    state = _suit(state, prefix, replace(weights, pixels=None, made=NOBODY), target, report)
    report.tensors = len(state)
    return Imported(state, report, report.family)


def _fill_statistics(state: Mapping[str, Tensor], origin: Family, report: Report) -> dict[str, Tensor]:
    """Caffe2's affine layers have no statistics: mean 0, and a variance that makes 1 with the epsilon.

    Raises FcosError for norms of other origin without statistics, which are group norms.
    """
    filled = dict(state)
    norms = [n.removesuffix(".weight") for n in state if n.endswith(".norm.weight") and state[n].dim() == 1]
    bare = [norm for norm in norms if f"{norm}.running_var" not in state]
    if bare and origin.mark != "conv1_w":
        raise FcosError(
            f"{report.file} has {len(bare)} norms without running statistics, the first {bare[0]}: they are no batch "
            "norms (group norms, perhaps), and the networks here have batch norms."
        )
    for norm in bare:
        filled[f"{norm}.running_mean"] = torch.zeros_like(state[f"{norm}.weight"])
        filled[f"{norm}.running_var"] = torch.full_like(state[f"{norm}.weight"], 1.0) - EPSILON
    if bare:
        report.done.append(f"{len(bare)} norms have their statistics absorbed: mean 0, variance 1 - {EPSILON:g}")
    return filled


def _suit(state: dict[str, Tensor], prefix: str, weights: Weights, target: Target, report: Report) -> dict[str, Tensor]:
    """The weights as the target's network, below `prefix`, wants them; `report.initial` names those that may lack."""
    wanted = {n: s for n, s in target.shapes.items() if n.startswith(prefix) and n not in report.initial}
    state, _ = fit_counters(state, wanted, report)
    if found := difference(state, wanted):
        raise FcosError(f"{report.file} does not suit the backbone of {target.title}: {found}.")
    _check_stride(weights, target, report)
    if report.initial:
        report.facts.append("the offsets of deformable convolutions start at their initial values")
    if weights.pixels is None:
        published = ", as the published detectors did" * bool(weights.made.maker)
        fact = f"the first convolution is used as it is, whatever pixels it was trained on{published}"
        report.facts.append(fact)
        return state
    return change_pixels(state, {weights.pixels}, target.pixels, report)


def _check_stride(weights: Weights, target: Target, report: Report) -> None:
    """Raise FcosError if the network strides elsewhere than that of the weights; warn where the file does not tell."""
    here, there = target.stride_in_1x1, weights.made.stride_in_1x1
    if not weights.made.maker:
        strides = f" and strides in its {'1x1' if here else '3x3'} convolutions" * (here is not None)
        report.warnings.append(
            f"the file does not say who made it: whether it was trained as the network here, which reads "
            f"{target.pixels or 'pixels'}{strides}, is not known"
        )
    if None not in (here, there) and here != there:
        kernels = ("3x3", "1x1")
        raise FcosError(
            f"{weights.path} ({weights.made.maker}) strides in its {kernels[bool(there)]} convolutions, but the "
            f"backbone of {target.title} in its {kernels[bool(here)]}: set "
            f"model.backbone.bottom_up.stride_in_1x1={there} (MODEL.RESNETS.STRIDE_IN_1X1 {there}), or take weights "
            f"that stride as it does, {'MSRA' if here else 'torchvision'}'s for instance."
        )
