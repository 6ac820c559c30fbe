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

__all__ = ["resize", "thaw"]

_FROZEN = ("FrozenBN", "EvalBN")


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


def resize(augmentations: Sequence[Any], size: int, train: bool) -> bool:
    """Give images another size, in place; the aspect ratio of the network input stays.

    Args:
        augmentations: nodes of Detectron2's; `ResizeShortestEdge`, `ResizeScale` and `Resize` are changed, and what
            crops by a number of pixels after them (`FixedSizeCrop`, absolute `RandomCrop`).
        size: of the shorter side, pixels; for large-scale jittering that of the square.
        train: draw from several sizes up to this one, where the shorter side is given.
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
            smaller = {max(32, 8 * round(scale * size / 8)) for scale in (0.8, 0.85, 0.9, 0.95)}
            node.short_edge_length = sorted(smaller | {size}) if train else size
            node.max_size = round(size * 5 / 3)
            if train:
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
