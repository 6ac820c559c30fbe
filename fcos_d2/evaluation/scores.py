"""COCO's numbers as this package tells them: from 0 to 1, with one for each class, and none where there is nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

__all__ = ["distinct", "percents", "scores", "shares", "true_boxes"]


def scores(results: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The COCO numbers of an evaluation, from 0 to 1; None where there is nothing to find.

    Args:
        results: of Detectron2's `COCOEvaluator`, from 0 to 100; not a number where nothing was found.
        dataset: name in Detectron2's catalog of what was evaluated on.
    Returns:
        AP, AP50, AP75, AP_small, AP_medium, AP_large, and `per_class` {name: AP}; all None where regions were proposed
        and nothing was to be detected.
    """
    boxes = results.get("bbox", {})
    detects = bool(boxes) or "box_proposals" not in results
    names = distinct(MetadataCatalog.get(dataset).get("thing_classes") or [])
    objects = Counter(names[box["category_id"]] for record in DatasetCatalog.get(dataset) for box in true_boxes(record))

    def share(key: str, count: int) -> float | None:
        value = float(boxes.get(key, math.nan))
        if math.isfinite(value) and value >= 0:
            return round(value / 100, 6)
        return 0.0 if count and detects else None

    found: dict[str, Any] = {key: share(key, objects.total()) for key in ("AP", "AP50", "AP75")}
    found |= {f"AP_{size}": share(f"AP{size[0]}", 0) for size in ("small", "medium", "large")}
    found["per_class"] = {name: share(f"AP-{name}", objects[name]) for name in names}
    if len(names) == 1:  # which Detectron2 does not list
        found["per_class"] = {names[0]: found["AP"]}
    return found


def distinct(names: Sequence[str]) -> list[str]:
    """The names of classes, a repeated one with its number: cat, dog, cat (2)."""
    return [name if (nth := names[:i].count(name)) == 0 else f"{name} ({nth + 1})" for i, name in enumerate(names)]


def shares(results: Mapping[str, Any]) -> dict[str, Any]:
    """Detectron2's results with each AP and AR, there from 0 to 100, from 0 to 1; all else stays."""
    return _with_ap(results, lambda value: None if value is None else value / 100)


def percents(results: Mapping[str, Any]) -> dict[str, Any]:
    """What `shares` was made of, null being not a number."""
    return _with_ap(results, lambda value: math.nan if value is None else value * 100)


def _with_ap(results: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Results whose AP and AR are changed."""
    return {
        key: _with_ap(value, change) if isinstance(value, Mapping)
        else change(value) if key.startswith(("AP", "AR")) and isinstance(value, (int, float, NoneType)) else value
        for key, value in results.items()
    }  # fmt: skip


def true_boxes(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The annotations of an image that are objects, crowd regions left out."""
    return [box for box in record.get("annotations", ()) if not box.get("iscrowd", 0)]
