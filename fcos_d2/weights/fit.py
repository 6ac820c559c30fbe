"""`fit`: weights into a model, one way for all of them, with nothing dropped in silence."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FcosError
from .adjust import COUNTER, choose_classes, fit_counters
from .classes import CLASS_LAYER, keep_equal, names_of, pairs
from .expected import other_recipe, target_of
from .families import FAMILIES, OURS
from .fetch import fetch
from .imagenet import backbone_prefix, load_backbone
from .published import imported, num_classes_of, stored_targets
from .read import Weights, read
from .report import Report
from .rules import some
from .stages import is_first_stage_only, of_one_stage

__all__ = ["Policy", "fit", "load_model"]

logger = logging.getLogger("fcos_d2")

# Missing from files of other origin without harm: counters, and the moving average of positives, which starts anew.
_STARTS_ANEW = ("num_batches_tracked", "dense.loss.average")
_CHOICES = ("check", "match", "drop", "keep")


@dataclass(frozen=True)
class Policy:
    """What is accepted when weights go into a model.

    Attributes:
        classes: "check": a file of other classes is an error; "match": classes of equal names keep their channels (see
            `classes.pairs`), the others start anew; "drop": the class layer starts anew; "keep": only the number of
            classes counts.
        class_names: what the model's classes are called, if known.
        some_classes: take some of the file's classes, by their names, where the model has only those (an evaluation).
        other_recipe: "refuse" weights that were trained for another recipe (see `expected.other_recipe`), or "warn".
        allow_backbone: accept a file with a backbone alone (ImageNet weights), as a start of training.
        averaged: take the averaged weights where the file has them.
    """

    classes: str = "check"
    class_names: Sequence[str] | None = None
    some_classes: bool = False
    other_recipe: str = "refuse"
    allow_backbone: bool = False
    averaged: bool = True

    def __post_init__(self) -> None:
        if self.classes not in _CHOICES:
            raise FcosError(f"classes is {self.classes!r}; it must be one of: {', '.join(_CHOICES)}.")
        if self.other_recipe not in ("refuse", "warn"):
            raise FcosError(f"other_recipe is {self.other_recipe!r}; it must be refuse or warn.")


def load_model(model: nn.Module, path: str, **policy: Any) -> Report:
    """Fetch, read and fit a file of weights; see `fetch`, `read`, `fit` and `Policy`."""
    return fit(model, read(fetch(path)), Policy(**policy))


def fit(model: nn.Module, weights: Weights, policy: Policy | None = None) -> Report:
    """Load weights into a model, and log what was done; if they do not suit, the model stays as it was.

    Args:
        model: of any architecture; may be wrapped for distributed training.
        weights: of ours, of a published FCOS, ImageNet weights of a backbone, or any others with the model's own names.
        policy: what is accepted; by default a whole detector of the same classes.
    Returns:
        What was done. Every tensor of the model either comes from the file, or is named in `report.initial`.
    Raises:
        FcosError: the weights are of other classes, incomplete, or of another model; one sentence.
    """
    policy = policy or Policy()
    model = getattr(model, "module", model)
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    report = Report(weights.path, weights.kind or "names of the model itself", class_names=weights.class_names)
    if is_first_stage_only(model, weights):
        if not policy.allow_backbone:
            raise FcosError(f"{weights.path} holds a one-stage detector, which a two-stage one can only start from.")
        state = of_one_stage(model, own, weights, policy.averaged, report)
        policy = replace(policy, classes="keep")
    else:
        state = _translate(model, own, weights, policy, report)
    _check_recipe(weights, policy, report)
    if unused := tuple(f"{name}." for name, part in model.named_modules() if getattr(part, "weights_unused", False)):
        report.ignored += [name for name in state if name.startswith(unused)]
        state = {name: value for name, value in state.items() if not name.startswith(unused)}
    if not any(name in own for name in state):
        raise FcosError(f"{weights.path} holds no weight of this model; the first in it is {next(iter(state))!r}.")
    if policy.classes == "drop":
        state = {name: value for name, value in state.items() if CLASS_LAYER not in name or name not in own}
    elif policy.classes == "match":
        state = _match_classes(model, own, state, weights, policy, report)
    else:
        state = _choose_classes(model, state, weights, policy, report)
        _check_classes(own, state, weights, policy)
    _check_shapes(own, state, weights)
    state = _complete(own, state, weights, policy, report)
    model.load_state_dict({**own, **state})
    report.tensors = len(state)
    if any(CLASS_LAYER in name for name in state):
        report.num_classes = report.num_classes or getattr(model, "num_classes", 0)
    logger.info("%s", report)
    for text in report.warnings:
        logger.warning("%s: %s.", weights.path, text)
    return report


def _translate(
    model: nn.Module, own: Mapping[str, Tensor], weights: Weights, policy: Policy, report: Report
) -> dict[str, Tensor]:
    """The tensors under the model's names, with numbers as the model means them."""
    chosen = dict(weights.chosen(policy.averaged))
    if weights.averages and policy.averaged:
        report.facts.append("the averaged weights (ema) of the training")
    if weights.kind in FAMILIES and hasattr(model, "dense"):
        count, channels = num_classes_of(weights), FAMILIES[weights.kind].channels_of_classes or ()
        chooses = policy.classes not in ("drop", "match") and getattr(model, "num_classes", 0) == len(channels) < count
        found = imported(weights, config=model, num_classes=len(channels) if chooses else count or None)
        report.adopt(found.report)
        return found.state_dict
    if weights.kind == OURS.name and hasattr(model, "dense"):
        report.other_recipe = other_recipe(stored_targets(weights), target_of(model), pixels=True)
        there = [name for name in own if not name.endswith(COUNTER) or name in chosen]
        chosen, _ = fit_counters(chosen, there, report)  # norms may be frozen here that were not there
    known = any(name in own for name in chosen)
    if own.keys() <= chosen.keys() or (weights.kind != "backbone" and (known or not policy.allow_backbone)):
        return chosen
    if not policy.allow_backbone:
        raise FcosError(f"{weights.path} holds no detector, only a backbone to start training from.")
    part = load_backbone(weights, model)
    report.adopt(part.report)
    return part.state_dict


def _complete(
    own: Mapping[str, Tensor], state: dict[str, Tensor], weights: Weights, policy: Policy, report: Report
) -> dict[str, Tensor]:
    """What goes into the model; `report` says which of its tensors keep their initial values.

    Raises FcosError if something is missing or left over that the policy does not allow.
    """
    missing = [name for name in own if name not in state]
    fresh = [name for name in missing if name.endswith(_STARTS_ANEW) or name in report.initial]
    if policy.classes == "drop":
        fresh += [name for name in missing if CLASS_LAYER in name]
    missing = [name for name in missing if name not in fresh]
    left_over = [name for name in state if name not in own]
    if missing and not any(name in state for name in own if not name.startswith("backbone.")):
        if not policy.allow_backbone:
            raise FcosError(f"{weights.path} holds no detector, only a backbone to start training from.")
        prefix = backbone_prefix(own)
        fresh += [name for name in missing if not name.startswith(prefix)]
        missing = [name for name in missing if name.startswith(prefix)]
        report.ignored += left_over
        left_over = []
    if missing or left_over:
        parts = [f"lacks {some(missing)}"] * bool(missing) + [f"has also {some(left_over)}"] * bool(left_over)
        raise FcosError(f"{weights.path} was made for another model: it {' and '.join(parts)}{_hint(weights)}.")
    report.initial = fresh
    return {name: value for name, value in state.items() if name in own}


def _check_recipe(weights: Weights, policy: Policy, report: Report) -> None:
    """Raise FcosError, or warn, if the weights were trained for another recipe."""
    if not report.other_recipe:
        return
    text = f"trained for another recipe: {report.other_recipe}"
    if policy.other_recipe == "warn":
        report.warnings += [text] * (text not in report.warnings)
        return
    remedy = _hint(weights) or "; name its own variant"
    raise FcosError(
        f"{weights.path} was {text}{remedy}, or add --force-recipe (Predictor: force_recipe=True; a config: "
        "train.force_recipe=True) to use it all the same."
    )


def _choose_classes(
    model: nn.Module, state: dict[str, Tensor], weights: Weights, policy: Policy, report: Report
) -> dict[str, Tensor]:
    """Of a file's class channels those whose names the policy gives, if it wants some of them."""
    wanted, there = list(policy.class_names or ()), list(weights.class_names or ())
    if not policy.some_classes or wanted == there or not set(wanted) <= set(there) or policy.classes != "check":
        return state
    if len(wanted) == getattr(model, "num_classes", 0) and num_classes_of(weights) == len(there):
        state = choose_classes(state, [there.index(name) for name in wanted], len(there))
        report.done.append(f"class channels {len(there)} -> {len(wanted)}: those of the data set's classes, by name")
    return state


def _match_classes(
    model: nn.Module, own: Mapping[str, Tensor], state: dict[str, Tensor], weights: Weights, policy: Policy,
    report: Report,
) -> dict[str, Tensor]:  # fmt: skip
    """The class layer with the channels of classes that the file and the model both have, by their names."""
    count, wanted = num_classes_of(weights), getattr(model, "num_classes", 0)
    here, there = list(policy.class_names or ()), names_of(weights, count) if count else None
    if not count or ((there in (None, here) or not here) and count == wanted):
        return state
    found = pairs(there, here) if there and len(here) == wanted else {}
    kept = f"{some([here[i] for i in found])} of equal name" if found else "none"
    report.done.append(f"class channels {count} -> {wanted}: kept {kept}, {wanted - len(found)} start anew")
    return keep_equal(own, state, found, (wanted, count))


def _check_classes(own: Mapping[str, Tensor], state: Mapping[str, Tensor], weights: Weights, policy: Policy) -> None:
    """Raise FcosError if a class layer has another number of classes, or the names differ."""
    origin, file_classes = weights.path, weights.class_names
    class_names = policy.class_names if policy.classes == "check" else None
    for name in own.keys() & state.keys():
        there, here = state[name].shape, own[name].shape
        if CLASS_LAYER in name and there != here and there[1:] == here[1:]:
            named = f" ({some(file_classes)})" if file_classes else ""
            remedy = "set train.init_classes=drop (fcos train: --new-classes) to start only the class layer anew"
            if policy.some_classes:
                remedy = "evaluate it on data of its classes, or learn others with `fcos train --new-classes`"
            elif not class_names:
                as_it_is = f"set model.num_classes={there[0]} (MODEL.FCOS.NUM_CLASSES) to use it as it is"
                remedy = f"{as_it_is}, or train.init_classes=drop to start only the class layer anew"
            raise FcosError(
                f"{origin} was trained for {there[0]} classes{named}, but the model has {here[0]}: {remedy}."
            )
    if policy.some_classes and class_names and set(class_names) <= set(file_classes or ()):
        return
    if file_classes and class_names and list(file_classes) != list(class_names):
        differing = next((pair for pair in zip(file_classes, class_names) if pair[0] != pair[1]), None)
        first = f"the first difference is {differing[0]!r} there, {differing[1]!r} here" if differing else "more follow"
        raise FcosError(
            f"{origin} was trained for other classes than those of the data set ({first}): set train.init_classes=drop "
            "to start the class layer anew, or train.init_classes=keep if only the names differ."
        )


def _hint(weights: Weights) -> str:
    return "; leave out --model (--config), since the file holds its own" if weights.config else ""


def _check_shapes(own: Mapping[str, Tensor], state: Mapping[str, Tensor], weights: Weights) -> None:
    both = [(name, state[name], tensor) for name, tensor in own.items() if name in state]
    wrong = [f"{n} ({tuple(x.shape)} there, {tuple(y.shape)} here)" for n, x, y in both if x.shape != y.shape]
    if wrong:
        raise FcosError(
            f"{weights.path} was made for another model: {len(wrong)} of its weights have another shape, the first "
            f"{wrong[0]}{_hint(weights)}."
        )
    for name, given, wanted in both:
        if not torch.can_cast(given.dtype, wanted.dtype) or wanted.is_floating_point() > given.is_floating_point():
            raise FcosError(f"{weights.path} holds {given.dtype} at {name}, where the model has {wanted.dtype}.")
