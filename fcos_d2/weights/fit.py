"""Weights into a model, with nothing dropped in silence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FcosError
from . import published
from .families import families_of
from .fetch import fetch
from .imagenet import load_backbone
from .read import load
from .write import Checkpointer

__all__ = ["load_model", "load_state"]

logger = logging.getLogger("fcos_d2")

# Missing from files of other origin without harm: counters, and the moving average of positives, which starts anew.
_FILLED = ("num_batches_tracked", "dense.loss.average")
_CLASS_LAYER = ".cls_logits."
_BOTTOM_UP = "backbone.bottom_up."
_DETECTOR = ("backbone.", "dense.", "proposal_generator.")


def load_model(
    model: nn.Module,
    path: str,
    *,
    class_names: Sequence[str] | None = None,
    classes: str = "check",
    allow_backbone: bool = False,
    averaged: bool = True,
) -> dict[str, Any]:
    """Load weights into a model; if they do not suit, the model stays as it was.

    Args:
        model: of any architecture; may be wrapped for distributed training.
        path: a file or an address.
        class_names: what the model's classes are called, if known.
        classes: "check": a file of other classes is an error; "drop": its class layer starts anew; "keep": only the
            number of classes counts.
        allow_backbone: accept a file with a backbone alone (ImageNet weights), as a start of training.
        averaged: take the averaged weights where the file has them.
    Returns:
        The checkpoint without its weights.
    Raises:
        FcosError: the file is missing, damaged, of other classes, or does not suit the model; one sentence.
    """
    file = fetch(path)
    payload = load(file)
    if file.suffix == ".pkl" or payload.get("matching_heuristics"):
        if not allow_backbone:
            raise FcosError(f"{path} holds no detector, only a backbone to start training from.")
        return _load_backbone(model, file)
    state = payload.pop("model", None)
    averages = payload.pop("ema", None)
    if averaged and averages is not None:
        state = averages
    if state is None:  # weights without anything around them
        state, payload = payload.pop("state_dict", payload), {}
    if _is_foreign(state):
        state, payload = _import(model, state, path, classes), {}
    elif allow_backbone and not any(name.removeprefix("module.").startswith(_DETECTOR) for name in state):
        return _import_backbone(model, file)
    load_state(
        model,
        state,
        path,
        file_classes=payload.get("class_names"),
        class_names=class_names,
        classes=classes,
        allow_backbone=allow_backbone,
    )
    return payload


def _is_foreign(state: dict[str, Tensor]) -> bool:
    """Whether these are weights of another project's FCOS."""
    return bool(families_of(name.removeprefix("module.") for name in state))


def _import_backbone(model: nn.Module, file: Path) -> dict[str, Any]:
    """ImageNet weights of torchvision, timm or a network's authors; see `imagenet.load_backbone`."""
    model = getattr(model, "module", model)
    imported = load_backbone(file, config=model)
    model.load_state_dict(imported.state_dict, strict=False)  # complete for the backbone, which is all there is
    logger.info("%s was converted:\n%s", file, imported.report)
    return {}


def _import(model: nn.Module, state: dict[str, Tensor], path: str, classes: str) -> dict[str, Tensor]:
    """Published weights under our names, for this model; see `published.load`."""
    model = getattr(model, "module", model)
    count = published.load(state).report.num_classes if classes == "drop" else None
    imported = published.load(state, config=model, num_classes=count)
    logger.info("%s was converted:\n%s", path, imported.report)
    return imported.state_dict


def load_state(
    model: nn.Module,
    state: dict[str, Tensor],
    origin: str,
    *,
    file_classes: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    classes: str = "check",
    allow_backbone: bool = False,
) -> None:
    """Load named weights into a model; see `load_model`."""
    model = getattr(model, "module", model)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise FcosError(f"{origin} holds no weights of a model.")
    if state and all(name.startswith("module.") for name in state):  # saved from a wrapped model
        state = {name.removeprefix("module."): value for name, value in state.items()}
    own = model.state_dict()
    if not any(name in own for name in state):
        raise FcosError(f"{origin} holds no weight of this model; the first in it is {next(iter(state), 'none')!r}.")
    state = dict(state)
    if classes == "drop":
        for name in [name for name in own if _CLASS_LAYER in name and name in state]:
            del state[name]
    else:
        _check_classes(own, state, origin, file_classes, class_names if classes == "check" else None)
    _check_shapes(own, state, origin)

    missing = [name for name in own if name not in state]
    filled = [name for name in missing if name.endswith(_FILLED)]
    missing = [name for name in missing if not name.endswith(_FILLED)]
    if classes == "drop":
        dropped = [name for name in missing if _CLASS_LAYER in name]
        missing = [name for name in missing if name not in dropped]
        logger.info("The class layer starts anew: %s.", ", ".join(dropped))
    unexpected = [name for name in state if name not in own]
    if missing and not _has_detector(own, state):
        if not allow_backbone:
            raise FcosError(f"{origin} holds no detector, only a backbone to start training from.")
        gone = [name for name in missing if name.startswith(_BOTTOM_UP)]
        logger.info("%s has a backbone only; %d other weights start at random.", origin, len(missing) - len(gone))
        missing = gone
        if unexpected:
            logger.warning("Not used of %s: %s.", origin, _some(unexpected))
            unexpected = []
    if missing or unexpected:
        parts = [f"lacks {_some(missing)}"] * bool(missing) + [f"has also {_some(unexpected)}"] * bool(unexpected)
        raise FcosError(f"{origin} was made for another model: it {' and '.join(parts)}.")
    if filled:
        logger.info("Not in %s, left at their defaults: %s.", origin, _some(filled))
    model.load_state_dict({**{name: own[name] for name in own if name not in state}, **_known(state, own)})


def _known(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name in own}


def _has_detector(own: dict[str, Tensor], state: dict[str, Tensor]) -> bool:
    return any(name in state for name in own if not name.startswith("backbone."))


def _check_classes(
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    origin: str,
    file_classes: Sequence[str] | None,
    class_names: Sequence[str] | None,
) -> None:
    """Raise FcosError if a class layer has another number of classes, or the names differ."""
    for name in own:
        if _CLASS_LAYER not in name or name not in state or own[name].shape == state[name].shape:
            continue
        there, here = state[name].shape[0], own[name].shape[0]
        if own[name].shape[1:] == state[name].shape[1:]:
            named = f" ({_some(list(file_classes))})" if file_classes else ""
            raise FcosError(
                f"{origin} was trained for {there} classes{named}, but the model has {here}: set "
                f"model.num_classes={there} (MODEL.FCOS.NUM_CLASSES) to use it as it is, or train.init_classes=drop to "
                "start only the class layer anew."
            )
    if file_classes and class_names and list(file_classes) != list(class_names):
        differing = next((pair for pair in zip(file_classes, class_names) if pair[0] != pair[1]), None)
        first = f"the first difference is {differing[0]!r} there, {differing[1]!r} here" if differing else "more follow"
        raise FcosError(
            f"{origin} was trained for other classes than those of the data set ({first}): set train.init_classes=drop "
            "to start the class layer anew, or train.init_classes=keep if only the names differ."
        )


def _check_shapes(own: dict[str, Tensor], state: dict[str, Tensor], origin: str) -> None:
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if wrong:
        there, here = tuple(state[wrong[0]].shape), tuple(own[wrong[0]].shape)
        raise FcosError(
            f"{origin} was made for another model: {len(wrong)} of its weights have another shape, the first "
            f"{wrong[0]} ({there} there, {here} here)."
        )


def _load_backbone(model: nn.Module, file: Path) -> dict[str, Any]:
    """Through Detectron2's matching of names, which knows the model zoo's.

    Raises:
        FcosError: nothing in the file suits the backbone.
    """
    model = getattr(model, "module", model)
    before = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(_BOTTOM_UP)}
    quiet = logging.getLogger("fvcore.common.checkpoint")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it lists every weight of the detector as missing
    try:
        payload = Checkpointer(model, "").load(str(file), checkpointables=[])
    finally:
        quiet.setLevel(level)
    after = model.state_dict()
    if all(torch.equal(value, after[name]) for name, value in before.items()):
        raise FcosError(f"{file} has no weight that suits the backbone of this model.")
    return payload


def _some(names: Sequence[str]) -> str:
    """The first few names and how many more."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
