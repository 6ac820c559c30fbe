"""`load_backbone`: ImageNet weights that detectors start from, complete and under our names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FcosError
from .adjust import fit_counters
from .expected import Target, suit_pixels, target_of
from .families.imagenet import CLASSIFIER, origin_of, without_prefixes
from .read import Weights, read
from .report import Report
from .rules import EPSILON, difference, matches, some, to_ours

_OURS = "backbone.bottom_up."
# Convolutions that compute the offsets of deformable ones: no ImageNet file has them.
_OFFSETS = re.compile(r".*(\.|_)offset\.(weight|bias)")


@dataclass(frozen=True)
class Backbone:
    """Weights of a network below the pyramid, under our names.

    Attributes:
        state_dict: our name -> tensor; all begin with `backbone.bottom_up.`.
        report: what was done; `report.initial` are the names of deformable convolutions' offsets, which start anew.
    """

    state_dict: dict[str, Tensor]
    report: Report


def load_backbone(path: str | Path, config: Any = None) -> Backbone:
    """Read ImageNet weights on the CPU; nothing in the file is run.

    Args:
        path: .pkl of Detectron2's or Caffe2's model zoo, or .pth of torchvision, timm, or the network's authors.
        config: what the weights are for: name of a variant, config or model. With it they are checked to be complete,
            and the first convolution is changed to the pixels that it reads.
    Raises:
        FcosError: the file is damaged, hostile, of no known network, or of another than the config's.
    """
    return backbone_for(read(path), config)


def backbone_for(weights: Weights, config: Any = None) -> Backbone:
    """The same of weights that were read."""
    tensors = without_prefixes(weights.tensors)
    target = None if config is None else target_of(config)
    origin = origin_of(tensors)
    bare = {n: t for n, t in tensors.items() if origin is None or not origin.ignores(n)}
    renamed = to_ours(bare, origin.rules if origin else ())
    if origin is None or (target and not any(name in target.shapes for name in renamed.tensors)):
        if target and (same := _same_names(weights, tensors, target)):
            return same
        if origin is None:
            raise FcosError(
                f"{weights.path} holds no known backbone: the first of its {len(tensors)} tensors is "
                f"{next(iter(tensors))!r}{_wanted(target)}."
            )
    report = Report(weights.path, origin.name, ignored=[name for name in tensors if name not in bare])
    if renamed.left_over:
        raise FcosError(f"{weights.path} looks like {origin.name}, but has also {some(renamed.left_over)}.")
    state = _fill_statistics(renamed.tensors, report)
    if target is None:
        report.facts += [f"input: {weights.pixels}"] * (weights.pixels is not None)
    else:
        state = _suit(state, weights, target, report)
    report.tensors, report.renamed = len(state), sum(name not in weights.tensors for name in state)
    return Backbone(state, report)


def backbone_prefix(names: Iterable[str]) -> str:
    """What the names of a model's network below the pyramid begin with; without a pyramid, of its backbone."""
    return _OURS if any(name.startswith(_OURS) for name in names) else "backbone."


def _same_names(weights: Weights, tensors: dict[str, Tensor], target: Target) -> Backbone | None:
    """Weights of a network that this package does not know, if their names are those of the target's."""
    prefix = backbone_prefix(target.shapes)
    wanted = {name: shape for name, shape in target.shapes.items() if name.startswith(prefix)}
    report = Report(weights.path, "names of the backbone itself")
    report.ignored = [n for n in tensors if f"{prefix}{n}" not in wanted and matches(CLASSIFIER, n)]
    state = {f"{prefix}{name}": tensor for name, tensor in tensors.items() if name not in report.ignored}
    if not any(name in wanted for name in state):
        return None
    state, _, report.done = fit_counters(state, wanted)
    found = difference(state, wanted)
    if found:
        raise FcosError(f"{weights.path} does not suit the backbone of {target.title}: {found}.")
    report.facts.append("the first convolution is used as it is, whatever pixels it was trained on")
    report.tensors = len(state)
    return Backbone(state, report)


def _wanted(target: Target | None) -> str:
    if target is None:
        return ""
    prefix = backbone_prefix(target.shapes)
    first = next((name for name in target.shapes if name.startswith(prefix)), None)
    return f", and the first of {target.title}'s backbone {first!r}" if first else ""


def _fill_statistics(state: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
    """Caffe2's affine layers have no statistics: mean 0, and a variance that makes 1 with the epsilon."""
    filled = dict(state)
    norms = [n.removesuffix(".weight") for n in state if n.endswith(".norm.weight") and state[n].dim() == 1]
    bare = [norm for norm in norms if f"{norm}.running_var" not in state]
    for norm in bare:
        filled[f"{norm}.running_mean"] = torch.zeros_like(state[f"{norm}.weight"])
        filled[f"{norm}.running_var"] = torch.full_like(state[f"{norm}.weight"], 1.0) - EPSILON
    if bare:
        report.done.append(f"{len(bare)} norms have their statistics absorbed: mean 0, variance 1 - {EPSILON:g}")
    return filled


def _suit(state: dict[str, Tensor], weights: Weights, target: Target, report: Report) -> dict[str, Tensor]:
    wanted = {name: shape for name, shape in target.shapes.items() if name.startswith(_OURS)}
    report.initial = [name for name in wanted if _OFFSETS.fullmatch(name) and name not in state]
    wanted = {name: shape for name, shape in wanted.items() if name not in report.initial}
    state, _, done = fit_counters(state, wanted)
    report.done += done
    if found := difference(state, wanted):
        raise FcosError(f"{weights.path} does not suit the backbone of {target.title}: {found}.")
    if report.initial:
        report.facts.append("the offsets of deformable convolutions start at their initial values")
    if weights.pixels is None:
        report.facts.append("the first convolution is used as it is, whatever pixels it was trained on")
        return state
    return suit_pixels(state, {weights.pixels}, target, report)
