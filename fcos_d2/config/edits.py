"""Edits of a config that reach what a user means by one word: from scratch, the size of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import getitem
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from .overrides import parameters_of
from .plain import nodes
from .yacs import read_yacs

__all__ = ["class_node", "freeze", "has_frozen_norms", "only_proposes", "resize", "thaw"]

_FROZEN = ("FrozenBN", "EvalBN")


def class_node(model: DictConfig) -> DictConfig | None:
    """The node of a model that has its `num_classes`: itself, or its second stage; None if it knows no classes."""
    if "num_classes" in model:
        return model
    second = model.get("roi_heads")
    return second if isinstance(second, DictConfig) and "num_classes" in second else None


def only_proposes(model: DictConfig) -> bool:
    """Whether a model proposes regions and detects nothing, so that it knows no classes."""
    translated = OmegaConf.select(model, "keys.MODEL.META_ARCHITECTURE")
    return translated == "ProposalNetwork" or ("proposal_generator" in model and "roi_heads" not in model)


def thaw(model: DictConfig) -> None:
    """Let all of a model train, in place: batch norms follow the data, and no stage is frozen.

    What is frozen belongs to weights; without them it would stay random.

    Args:
        model: node of a LazyConfig; defaults of what it calls count as if they were written there.
    """
    for path, value in list(nodes(OmegaConf.to_container(model))):
        if not isinstance(value, dict):
            continue
        node: Any = reduce(getitem, path, model)
        defaults = parameters_of(node)
        norm, frozen = (node.get(name, defaults.get(name)) for name in ("norm", "freeze_at"))
        if isinstance(norm, str) and norm in _FROZEN:
            node.norm = "BN"
        if isinstance(frozen, int) and frozen > 0:
            node.freeze_at = 0
    if "keys" in model:  # of a translated config, see `translate.model_from_keys`
        whole = read_yacs(OmegaConf.to_container(model["keys"]), "The node model.keys")  # type: ignore[arg-type]
        for path, value in nodes(whole):
            thawed = {"NORM": "BN" if value in _FROZEN else None, "FREEZE_AT": 0}.get(str(path[-1]) if path else "")
            if thawed is not None and value != thawed:
                OmegaConf.update(model["keys"], ".".join(map(str, path)), thawed, force_add=True)


def freeze(model: DictConfig, stages: int) -> None:
    """Let so many stages of a model's network keep their weights, in place, the stem being the first.

    A network whose builder has no `freeze_at`, or that freezes more already, stays as it is.

    Args:
        model: node of a LazyConfig; defaults of what it calls count as if they were written there.
    """
    for path, value in list(nodes(OmegaConf.to_container(model))):
        if isinstance(value, dict):
            node: Any = reduce(getitem, path, model)
            frozen = node.get("freeze_at", parameters_of(node).get("freeze_at"))
            if isinstance(frozen, int) and frozen < stages:
                node.freeze_at = stages


def has_frozen_norms(model: DictConfig) -> bool:
    """Whether norms of a model keep the statistics of its weights."""
    for path, value in nodes(OmegaConf.to_container(model)):
        if isinstance(value, dict):
            node: Any = reduce(getitem, path, model)
            if node.get("norm", parameters_of(node).get("norm")) in _FROZEN:
                return True
    return False


def resize(augmentations: Sequence[Any], size: int, scales: Sequence[float] = ()) -> bool:
    """Give images another size, in place; the aspect ratio of the network input stays.

    Args:
        augmentations: nodes of Detectron2's; `ResizeShortestEdge`, `ResizeScale` and `Resize` are changed, and what
            crops by a number of pixels after them (`FixedSizeCrop`, absolute `RandomCrop`).
        size: of the shorter side, pixels; for large-scale jittering that of the square.
        scales: draw from this and other sizes, in shares of it, where the shorter side is given; empty: it alone.
    Returns:
        whether one of them sets a size.
    """
    factor = 0.0
    for node in _flat(augmentations):
        before = next((node[key] for key in ("short_edge_length", "shape", "target_height") if key in node), None)
        if before is not None:
            before = list(before) if isinstance(before, (list, tuple, ListConfig)) else [before]
            if "target_width" in node:
                before.append(node.target_width)
            factor = size / (max if "short_edge_length" in node else min)(before)
        if "short_edge_length" in node:
            drawn = {max(32, 8 * round(scale * size / 8)) for scale in scales if scale != 1.0}
            node.short_edge_length = sorted(drawn | {size}) if scales else size
            node.max_size = round(max([size, *drawn]) * 5 / 3)
            if scales:
                node.sample_style = "choice"
        elif factor:
            absolute = str(node.get("crop_type", "absolute")).startswith("absolute")
            for key in ("target_height", "target_width", "shape", *["crop_size"] * absolute):
                if key in node:
                    given = node[key]
                    many = isinstance(given, (list, tuple, ListConfig))
                    node[key] = [round(x * factor) for x in given] if many else round(given * factor)
    return factor > 0


def _flat(augmentations: Sequence[Any]) -> Iterator[DictConfig]:
    """The nodes of augmentations, and of those within `AugmentationList` and `RandomApply`."""
    for node in augmentations:
        if isinstance(node, DictConfig):
            inner = node.get("augs", node.get("tfm_or_aug"))
            yield from [node] if inner is None else _flat(inner if isinstance(inner, ListConfig) else [inner])
