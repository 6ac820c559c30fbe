"""A config -> the rule by which its detector assigns locations to boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from ..data.audit.reach import Rule
from ..errors import FcosError
from ..modeling import LocationGrid, PointAssigner

__all__ = ["detector_rule", "rule_of"]


def rule_of(cfg: DictConfig) -> Rule:
    """What a config assigns, at the size that it evaluates; what it does not say is FCOS's usual."""
    found: dict[str, Any] = {}
    nodes = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations") or []
    for node in nodes:
        if "short_edge_length" in node:
            size = node.short_edge_length
            found["image_size"] = int(size if isinstance(size, int) else max(size))
            found["max_size"] = int(node.get("max_size", 1 << 30))
    model = "model.proposal_generator" if OmegaConf.select(cfg, "model.proposal_generator") else "model"
    features = OmegaConf.select(cfg, f"{model}.in_features") or OmegaConf.select(cfg, "model.head_in_features") or ()
    if features and all(name[:1] == "p" and name[1:].isdigit() for name in features):
        found["strides"] = tuple(2 ** int(name[1:]) for name in features)
    assigner = OmegaConf.select(cfg, f"{model}.dense.assigner") or {}
    if "size_ranges" in assigner:
        found["size_ranges"] = tuple((float(low), float(high)) for low, high in assigner["size_ranges"])
    for key in ("range_ends", "center_radius", "area"):
        if key in assigner:
            found[key] = assigner[key]
    for key, name in (("origin", f"{model}.dense.grid.origin"), ("inclusive_far_corner", "model.inclusive_far_corner")):
        if (value := OmegaConf.select(cfg, name)) is not None:
            found[key] = value
    rule = Rule(**found)
    return rule if len(rule.strides) == len(rule.size_ranges) else Rule(rule.image_size, rule.max_size)


def detector_rule(cfg: DictConfig) -> Rule:
    """The rule of a config's detector as it is built, whatever the config looks like.

    Raises:
        FcosError: it has no part that assigns locations to boxes, or one with a rule of its own.
    """
    nodes = [OmegaConf.select(cfg, f"model.dense.{part}") for part in ("assigner", "grid")]
    if all(nodes) and OmegaConf.select(cfg, "model.in_features"):
        assigner, grid, part = *map(instantiate, nodes), None
    else:
        model = instantiate(cfg.model)
        part = next((one for one in model.modules() if hasattr(getattr(one, "dense", None), "assigner")), None)
        if part is None:
            raise FcosError(f"The detector {type(model).__name__} assigns no locations to boxes, as FCOS does.")
        assigner, grid = part.dense.assigner, part.dense.grid
    if not isinstance(assigner, PointAssigner) or not isinstance(grid, LocationGrid) or grid.points_per_cell != 1:
        kind = type(assigner).__name__ if not isinstance(assigner, PointAssigner) else f"{grid}"
        raise FcosError(f"The detector assigns locations by {kind}; only FCOS's PointAssigner on one point is known.")
    rule = rule_of(cfg)
    if part is not None:
        corner: Any = getattr(part, "inclusive_far_corner", False)
        rule = replace(rule, strides=tuple(map(int, part.strides)), inclusive_far_corner=corner)
    shared = ("size_ranges", "range_ends", "center_radius", "area")
    return replace(rule, origin=grid.origin, **{key: getattr(assigner, key) for key in shared})
