"""A one-stage FCOS as the start of a two-stage detector: its backbone, its pyramid, and its head as the first stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import FcosError
from .adjust import COUNTER, Pixels, change_pixels
from .classes import CLASS_LAYER
from .expected import other_recipe, target_of, variant_target
from .families import FAMILIES, OURS
from .imagenet import backbone_prefix
from .published import imported, num_classes_of, stored_targets
from .read import Weights
from .report import Report

__all__ = ["is_first_stage_only", "of_one_stage"]

_HEAD, _BELOW = "dense.head.", "proposal_generator."


def is_first_stage_only(model: nn.Module, weights: Weights) -> bool:
    """Whether a file holds a one-stage detector, and the model proposes regions with FCOS or with anything else."""
    one_stage = weights.kind == OURS.name or weights.kind in FAMILIES
    return one_stage and getattr(model, "proposal_generator", None) is not None


def of_one_stage(
    model: Any, own: Mapping[str, Tensor], weights: Weights, averaged: bool, report: Report
) -> dict[str, Tensor]:
    """The tensors of a one-stage detector that a two-stage one starts from, under its names.

    Backbone and pyramid keep all levels that both have. The head is taken if it is the model's in all but the classes,
    since predictors without their towers know nothing; what the model has besides starts anew.

    Args:
        model: with a `proposal_generator`.
        own: its tensors.
        weights: of this package or published.
        averaged: take the averaged weights where there are any.
        report: gets what was done, `initial` and `ignored`.
    Raises:
        FcosError: the file is of another backbone.
    """
    state, known = _named(weights, averaged, report)
    moved = {f"{_BELOW}{name}" if name.startswith("dense.") else name: tensor for name, tensor in state.items()}
    suits = {name for name, tensor in moved.items() if name in own and own[name].shape == tensor.shape}
    head = {name for name in own if name.startswith(f"{_BELOW}{_HEAD}")}
    whole = bool(head) and {name for name in head if CLASS_LAYER not in name} <= suits
    kept = {name: moved[name] for name in suits if whole or not name.startswith(_BELOW)}
    network = [name for name in own if name.startswith(backbone_prefix(own)) and not name.endswith(COUNTER)]
    if not set(network) <= kept.keys():
        raise FcosError(
            f"{weights.path} is a one-stage detector with another backbone than the model: give one with the same."
        )
    if whole:
        report.other_recipe = other_recipe(known, target_of(model))
    parts = "backbone, pyramid and head" if whole else "backbone and pyramid"
    report.done.append(f"the one-stage detector starts {parts} of the two-stage one")
    report.ignored += [name for name in state if (f"{_BELOW}{name}" if name.startswith("dense.") else name) not in kept]
    report.initial = [name for name in own if name not in kept]
    theirs = {target.pixels for target in known if target.pixels}
    return change_pixels(kept, theirs, _pixels(model), report) if theirs else kept


def _named(weights: Weights, averaged: bool, report: Report) -> tuple[dict[str, Tensor], list[Any]]:
    """The tensors under this package's names, and the models that they may have been trained as."""
    if weights.kind == OURS.name:
        return dict(weights.chosen(averaged)), stored_targets(weights)
    found = imported(weights)
    report.adopt(found.report)
    return dict(found.state_dict), [variant_target(v, num_classes_of(weights)) for v in found.variants]


def _pixels(model: Any) -> Pixels:
    """What a two-stage detector reads; Detectron2's `ProposalNetwork` does not say the order, which is BGR there."""
    mean, std = (tuple(x.flatten().tolist()) for x in (model.pixel_mean, model.pixel_std))
    return Pixels(getattr(model, "input_format", None) or "BGR", mean, std)
