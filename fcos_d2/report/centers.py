"""What the quality branch, FCOS's centerness, sees and what it is worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluation import breakdown
from ..evaluation.matching import best_overlaps
from ..evaluation.ranking import RANKINGS
from ..visualize.boxes import draw_boxes
from ..visualize.charts import Bars, bar_chart, scatter_chart
from ..visualize.heat import draw_heat, heat_scale
from .material import Material
from .parts import Picture, Section, Table, number, percent, photo

__all__ = ["maps", "rankings", "scatter"]

_NONE = "This model has no centerness or IoU branch of FCOS's, so there is nothing to show."
_POINTS = 20_000  # of a chart
_SEEN = 0.05  # class score from which on a map is seen


def maps(m: Material) -> Section:
    """Centerness over pictures (Fig. 3)."""
    if not m.observed.maps:
        return Section(absent=[m.several_looks or _NONE])
    kind = m.observed.kind
    pictures: list[Picture] = []
    for nth, (place, found) in enumerate(sorted(m.observed.maps.items()), 1):
        image, group = m.image(place), m.name(place)
        rows = (m.observed.found.image == place) & (m.observed.found.scores > m.min_score)
        boxes = m.observed.found.boxes[rows]
        corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
        drawn = draw_boxes(image, corners, m.observed.found.label[rows], m.observed.found.scores[rows], m.names)
        seen = np.sqrt((found.class_score - _SEEN).clip(0) / (1 - _SEEN)).clip(0, 1)
        count = f"{int(rows.sum())} detections with a score above {m.min_score:.3f}"
        shown = (
            ("detections", count, drawn),
            (kind, f"predicted {kind}, where the class score is above {_SEEN}", draw_heat(image, found.quality, seen)),
            ("target", f"true {kind}, at the locations that training would assign",
             draw_heat(image, found.target, (found.target > 0).astype(float))),
        )  # fmt: skip
        pictures += [photo(f"{nth}-{name}", caption, picture, group, 480) for name, caption, picture in shown]
    pictures.append(photo("scale", f"{kind} from 0 (left) to 1", heat_scale(480, 20)))
    text = [
        f"The branch says how central a location is in its object, so that boxes from its rim rank lower ({kind}, blue "
        "is 0, red 1). All levels are in one picture: at each pixel that with the highest class score.",
    ]
    told = {m.name(place): {"mean_predicted": float(found.quality[found.target > 0].mean())
                            if (found.target > 0).any() else None,
                            "mean_target": float(found.target[found.target > 0].mean())
                            if (found.target > 0).any() else None}
            for place, found in m.observed.maps.items()}  # fmt: skip
    return Section(text, pictures=pictures, numbers=told)


def scatter(m: Material) -> Section:
    """Score against IoU, without and with centerness (Fig. 7)."""
    alone, quality = m.observed.class_scores, m.observed.quality
    if alone is None or quality is None or not len(alone):
        return Section(
            absent=[
                m.several_looks or _NONE if alone is None else "Nothing was detected, so there is nothing to compare."
            ]
        )
    iou, kind = best_overlaps(m.observed.found, m.objects.truth), m.observed.kind
    some = np.random.default_rng(0).permutation(len(iou))[:_POINTS]
    rows: list[tuple[str, ...]] = []
    pictures: list[Picture] = []
    told: dict[str, dict[str, Any]] = {}
    for name, title, scores in (
        ("without", "class score", alone), ("with", f"class score × {kind}", alone * quality),
    ):  # fmt: skip
        low = (scores > 0.5) & (iou < 0.5)
        told[name] = {
            "rank_correlation": _rank_correlation(scores, iou), "above_0.5": int((scores > 0.5).sum()),
            "above_0.5_with_iou_below_0.5": int(low.sum()),
            "of_low_iou_above_0.5": float(low.sum() / max((iou < 0.5).sum(), 1)),
        }  # fmt: skip
        rows.append((title, number(told[name]["rank_correlation"]), str(told[name]["above_0.5"]), str(int(low.sum())),
                     percent(int(low.sum()), int((iou < 0.5).sum()))))  # fmt: skip
        chart = scatter_chart(scores[some], iou[some], title, "IoU with its object", f"Score: {title}")
        caption = f"Each point is a detection{'' if len(some) == len(iou) else f', {_POINTS} of {len(iou)}'}."
        pictures.append(Picture(f"{name}-{kind}", caption, chart))
    heads = ("score", "rank correlation with IoU", "score > 0.5", "of them IoU < 0.5", "of all with IoU < 0.5")
    text = [
        "A good score says how well a box lies. Points below the dotted line are boxes that score higher than they "
        f"overlap their object; those at the lower right do harm. {kind.capitalize()} is there to move them left.",
    ]
    return Section(text, tables=[Table(heads, rows)], pictures=pictures, numbers=told)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's, -1 to 1; `None` where one of them is constant."""
    ranks = []
    for values in (x, y):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])  # equal values share their mean rank
    if min(np.ptp(row) for row in ranks) == 0:
        return None
    one, other = (row - row.mean() for row in ranks)
    return float((one * other).sum() / np.sqrt((one * one).sum() * (other * other).sum()))


def rankings(m: Material) -> Section:
    """The quality branch off, from the regression, as predicted, and the truth in its place (Table 5)."""
    if not m.observed.by_ranking:
        return Section(absent=[m.several_looks or _NONE])
    kind = m.observed.kind
    told = {one.name: one.told for one in RANKINGS}
    told[(branch := f"predicted {kind}")] = "as the model is: times what its branch predicts"
    order = ("none", "from the regression", branch, "oracle")
    found = {**m.observed.by_ranking, branch: m.observed.found}
    numbers = {name: m.numbers if name == branch else breakdown.evaluated(m.objects, found[name]) for name in order}
    summaries = {name: breakdown.summary(one) for name, one in numbers.items()}
    keys = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    rows = [(name, *(number(summaries[name][key]) for key in keys)) for name in order]
    series = [Bars(name, [summaries[name][key] for key in ("AP", "AP50", "AP75")]) for name in order]
    chart = bar_chart(("AP", "AP50", "AP75"), series, "", f"What {kind} is worth")
    gain = _difference(summaries[branch]["AP"], summaries["none"]["AP"])
    left = _difference(summaries["oracle"]["AP"], summaries[branch]["AP"])
    text = [
        f"The same predictions, ranked in other ways; nothing is trained anew. The branch changes AP by {gain}, and a "
        f"perfect one would change it by {left} more.",
        "; ".join(f"{name}: {told[name]}" for name in order) + ".",
    ]
    data = {name: {**summaries[name], "told": told[name]} for name in order}
    heads = (kind, *(key.replace("_", " ") for key in keys))
    pictures = [Picture("rankings", "AP with each ranking.", chart)]
    return Section(text, tables=[Table(heads, rows)], pictures=pictures, numbers=data)


def _difference(one: float | None, other: float | None) -> str:
    return "–" if one is None or other is None else f"{one - other:+.3f}"
