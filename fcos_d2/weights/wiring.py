"""Weights of searched heads (FAD): names tell the operation of an edge, a genotype also which state the edge reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from omegaconf import OmegaConf
from torch import Tensor

from .. import zoo
from ..config.load import load_config
from ..errors import FcosError
from ..genotype import GENOTYPES, OPERATIONS, inlined, pair_of
from .expected import Target, target_of, without_counters

__all__ = ["config_with", "mismatch", "operations_of", "told"]

_EDGE = r"dense\.head\.(?P<tower>(?:bbox|cls)_tower)\.(?P<cell>\d+)\.nodes\.(?P<node>\d+)\.(?P<edge>\d+)"
_KERNEL = re.compile(rf"{_EDGE}\.(?P<kind>conv|depthwise)_(?P<layer>\d+)\.(?P<part>weight|bias)")
_KINDS = {("conv", "weight"): "std", ("depthwise", "weight"): "sep", ("depthwise", "bias"): "dil"}
_NAMES = {layers: name for name, layers in OPERATIONS.items()}


def operations_of(names: Iterable[str]) -> dict[str, str]:
    """Edge, as the publisher names it below its head ("bbox_tower.cells.0.dag.2.1") -> its operation.

    Args:
        names: of tensors, ours; other heads have no such edges.
    """
    found: dict[str, dict[int, str]] = {}
    for match in filter(None, map(_KERNEL.fullmatch, names)):
        layers = found.setdefault("{tower}.cells.{cell}.dag.{node}.{edge}".format(**match.groupdict()), {})
        kind, layer = _KINDS.get((match["kind"], match["part"])), int(match["layer"])
        if kind is not None and layers.get(layer) != "dil":  # which is told by its bias
            layers[layer] = kind
    chains = {edge: tuple(layers[i] for i in sorted(layers)) for edge, layers in found.items()}
    return {edge: _NAMES.get(chain, "+".join(chain)) for edge, chain in chains.items()}


def mismatch(tensors: Iterable[str], target: Target | None) -> str:
    """Where the operations of weights are not those of a model, in words; "" if they are, or have none."""
    if target is None or not (found := operations_of(tensors)) or not (wanted := operations_of(target.shapes)):
        return ""
    for edge in sorted({*found, *wanted}):
        there, here = (some.get(edge, "no edge") for some in (found, wanted))
        if there != here:
            asked = "give the genotype.log that it was trained with (`fcos convert`: --genotype FILE)"
            return f"its {edge} is {there}, where {target.title} has {here}: {asked}"
    return ""


def config_with(
    genotype: str | Path, tensors: Mapping[str, Tensor], variants: Sequence[zoo.Variant], config: Any, classes: int,
    origin: str,
) -> Any:  # fmt: skip
    """The config of weights, given the genotype that they were trained with.

    Args:
        genotype: name in `GENOTYPES`, a `genotype.log`, or its text.
        tensors: our names.
        variants: to choose from.
        config: name of a variant, config file or config; `None` to take the variant that has such weights.
        classes: of the weights.
        origin: of the weights, for messages.
    Returns:
        the config, or `None` if a variant has that genotype and such weights.
    Raises:
        FcosError: the head was not found by search, or no model with this genotype has such weights.
    """
    if not operations_of(tensors):
        raise FcosError(f"{origin} has no head that was found by search: leave out --genotype (genotype=...).")
    text = inlined(str(genotype))
    wanted, near = pair_of(text), None
    for source in [v.full_name for v in variants] if config is None else [config]:
        cfg = load_config(source) if isinstance(source, (str, Path)) else source
        made = _with(cfg, text, classes if config is None else None)
        target = target_of(made)
        if not without_counters(tensors, target):
            return None if config is None and wanted == pair_of(_get(cfg)) else made
        near = near or (target if mismatch(tensors, target) else None)
    name = f"the genotype {text!r}" if text in GENOTYPES else "that genotype"
    raise FcosError(
        f"{origin} was not trained with {name}: {mismatch(tensors, near) or 'no model with it has such weights'}."
    )


_LAZY = "model.dense.head.genotype"


def _get(cfg: Any) -> str:
    return cfg.MODEL.FCOS.FAD_GENOTYPE if isinstance(cfg, CfgNode) else OmegaConf.select(cfg, _LAZY, default="paper")


def _with(cfg: Any, text: str, classes: int | None) -> Any:
    """A copy of a config with another genotype, and other classes if their number is given."""
    if isinstance(cfg, CfgNode):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.FCOS.FAD_GENOTYPE = text
        return cfg
    cfg = cfg.copy()
    OmegaConf.update(cfg, _LAZY, text, force_add=True)
    if classes is not None:
        cfg.model.num_classes = classes
    return cfg


def told(genotype: str) -> list[str]:
    """What a reader of weights must have besides, a sentence each; empty for heads that were not found by search."""
    if not genotype:
        return []
    lines = " and ".join(map(repr, genotype.splitlines()))
    return [f"the file does not hold the genotype, whose two lines are {lines}"]
