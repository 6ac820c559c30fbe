"""What may be changed of a detector so that more is learned, and what of it a config can express."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config.edits import resize
from ..data.audit.reach import Rule
from .tables import level_name

__all__ = ["Change", "Possible", "apply", "possible", "scales_of", "set_size", "values_of"]

_SCALES = (0.8, 0.9, 1.0)  # of the input size, of which training draws one where the config draws from several

# Of the bottom-up features that a pyramid begins with, the one of twice the resolution.
_FINER = {"res3": "res2", "stage3": "stage2", "level3": "level2"}
# Pyramids that can have a level p2, and what makes them with it, where that is another function.
_HR = "fcos_d2.modeling.backbone.hrnet.hrfpn"
_PYRAMIDS = {"fcos_d2.modeling.backbone.pyramid.fpn": "", _HR: f"{_HR}_6l"}


@dataclass(frozen=True)
class Change:
    """How a rule differs from a detector's own; nothing by default.

    Attributes:
        finer: a level of half the finest stride more, which takes the lower half of the finest size range.
        image_size: shorter side of the input, pixels.
        range_factor: what the ends of the size ranges are multiplied by.
        center_radius: strides.
    """

    finer: bool = False
    image_size: int | None = None
    range_factor: float = 1.0
    center_radius: float | None = None

    def of(self, rule: Rule) -> Rule:
        """The rule with this change."""
        if self.image_size is not None:
            rule = replace(rule, image_size=self.image_size, max_size=round(self.image_size * 5 / 3))
        if self.finer:
            (low, high), *others = rule.size_ranges
            middle = high / 2 if math.isfinite(high) else 4.0 * rule.strides[0]
            ranges = ((low, middle), (middle, high), *others)
            rule = replace(rule, strides=(rule.strides[0] // 2, *rule.strides), size_ranges=ranges)
        if self.range_factor != 1:
            scaled = [tuple(end * self.range_factor if end > 0 else end for end in ends) for ends in rule.size_ranges]
            rule = replace(rule, size_ranges=tuple((low, high) for low, high in scaled))
        return rule if self.center_radius is None else replace(rule, center_radius=self.center_radius)

    def words(self, rule: Rule) -> Iterator[str]:
        """Each thing that is changed of a rule."""
        new = self.of(rule)
        if self.finer:
            yield f"a level {level_name(new.strides[0])} of stride {new.strides[0]}"
        if self.image_size is not None:
            yield f"an input of {self.image_size} px instead of {rule.image_size}"
        if self.range_factor != 1:
            yield f"size ranges times {self.range_factor:g}"
        if self.center_radius is not None:
            yield f"{region_words(self.center_radius)} instead of {region_words(rule.center_radius)}"

    def __len__(self) -> int:
        return len(list(self.words(Rule())))


def region_words(center_radius: float) -> str:
    """What of a box is positive."""
    return f"center radius {center_radius:g}" if center_radius else "the whole box"


@dataclass(frozen=True)
class Possible:
    """What a config lets us change."""

    finer: bool
    assigner: bool
    size: bool


def possible(cfg: DictConfig) -> Possible:
    """Which changes a config can express."""
    assigner = OmegaConf.select(cfg, "model.dense.assigner") is not None
    features = OmegaConf.select(cfg, "model.in_features") or ()
    begins = (OmegaConf.select(cfg, "model.backbone.in_features") or [""])[0]
    pyramid = _name(OmegaConf.select(cfg, "model.backbone._target_"))
    finer = pyramid in _PYRAMIDS and (begins in _FINER or bool(_PYRAMIDS[pyramid])) and list(features[:1]) == ["p3"]
    sizes = [OmegaConf.select(cfg, f"dataloader.{part}.mapper.augmentations") or () for part in ("train", "test")]
    sized = all(any("short_edge_length" in node for node in one) for one in sizes)
    return Possible(finer and assigner, assigner, sized)


def _name(target: Any) -> str:
    """Where a node's `_target_` lives."""
    return target if isinstance(target, str) else "" if target is None else f"{target.__module__}.{target.__qualname__}"


def values_of(cfg: DictConfig, change: Change, rule: Rule) -> dict[str, Any]:
    """Key of a config -> its value with a change, all but the input size."""
    new, found = change.of(rule), dict[str, Any]()
    if change.finer:
        features = list(cfg.model.in_features)
        begins = list(cfg.model.backbone.in_features)
        if other := _PYRAMIDS[_name(OmegaConf.select(cfg, "model.backbone._target_"))]:
            found["model.backbone._target_"] = other
        else:
            found["model.backbone.in_features"] = [_FINER[begins[0]], *begins]
        found["model.in_features"] = [level_name(new.strides[0]), *features]
        found["model.dense.head.num_levels"] = len(new.strides)
    if new.size_ranges != rule.size_ranges:
        found["model.dense.assigner.size_ranges"] = [list(ends) for ends in new.size_ranges]
    if change.center_radius is not None:
        found["model.dense.assigner.center_radius"] = change.center_radius
    return found


def apply(cfg: DictConfig, change: Change, rule: Rule) -> DictConfig:
    """A copy of a config with a change of its `rule`."""
    cfg = cfg.copy()
    for key, value in values_of(cfg, change, rule).items():
        OmegaConf.update(cfg, key, value, merge=False)
    if change.image_size is not None:
        set_size(cfg, change.image_size)
    return cfg


def set_size(cfg: DictConfig, size: int) -> bool:
    """Set the shorter side of the input, in place; whether the config has something that sets it for test images."""
    train, test = (OmegaConf.select(cfg, f"dataloader.{part}.mapper.augmentations") or () for part in ("train", "test"))
    resize(train, size, scales_of(cfg))
    return resize(test, size)


def scales_of(cfg: DictConfig) -> tuple[float, ...]:
    """What training draws its sizes from, in shares of the input size; empty where it has one."""
    nodes = OmegaConf.select(cfg, "dataloader.train.mapper.augmentations") or ()
    sizes = next((node.short_edge_length for node in nodes if "short_edge_length" in node), 0)
    return () if isinstance(sizes, int) or len(sizes) < 2 else _SCALES
