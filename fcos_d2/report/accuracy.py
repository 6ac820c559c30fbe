"""How good the detections are: in one line, over the training, by size, class and overlap, and for one class alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FcosError
from ..evaluation import breakdown
from ..evaluation.breakdown import OVERLAPS, SIZES, Numbers
from ..evaluation.thresholds import Curve
from ..visualize.charts import Bars, Line, bar_chart, line_chart
from ..visualize.curves import course_of, loss_name
from .material import IOU, Material
from .parts import Picture, Section, Table, number, percent

__all__ = ["by_kind", "curves", "one_class", "overlap", "summary"]

_IOUS = (0.5, 0.75, 0.9)
_BARS = 12  # classes that a chart of bars has room for
_RECALL = np.linspace(0, 1, 101)
_LOGS = ("training.jsonl", "metrics.json")  # of a training, beside its checkpoints


def summary(m: Material) -> Section:
    found, numbers = breakdown.summary(m.numbers), m.numbers
    kept = sum(pair.found is not None for pair in m.pairs)
    right = sum(pair.is_hit for pair in m.pairs)
    f1 = 2 * right / (kept + m.objects.count) if kept + m.objects.count else None
    tiles = [
        ("AP", number(found["AP"])), ("AP50", number(found["AP50"])), ("AP75", number(found["AP75"])),
        ("AR100", number(found["AR100"])), (f"F1 at score {m.min_score:.2f}", number(f1)),
        ("images", f"{len(m.objects.records):,}"), ("objects", f"{m.objects.count:,}"),
        ("classes", str(len(m.names))),
    ]  # fmt: skip
    text = [
        "AP is COCO's average precision from 0 to 1, the mean over IoU thresholds from 0.5 to 0.95; AP50 is at 0.5. "
        f"With the score threshold {m.min_score:.3f}, {right} of {m.objects.count} objects "
        f"({percent(right, m.objects.count)}) are found, and {right} of {kept} detections ({percent(right, kept)}) "
        "are right.",
    ]
    of_class = {name: numbers.ap(label=k) for k, name in enumerate(m.names)}
    known = {name: ap for name, ap in of_class.items() if ap is not None}
    if len(known) > 1:
        best, worst = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
        text.append(f"Of the classes, {best} is found best (AP {known[best]:.3f}), {worst} worst ({known[worst]:.3f}).")
    told = {
        **found, "f1": f1, "score_threshold": m.min_score, "images": len(m.objects.records),
        "objects": m.objects.count, "detections": len(m.observed.found.scores), "kept": kept, "right": right,
    }  # fmt: skip
    return Section(text, tiles, numbers=told)


def curves(m: Material) -> Section:
    """The course of the training, if its log lies beside the weights, and what the score threshold does."""
    scored = m.scored
    curve = Curve.of(scored.scores, scored.right, m.objects.count)
    pictures: list[Picture] = []
    absent: list[str] = []
    if len(curve.scores):
        x = np.linspace(0, 1, 101)
        kept, right = np.array([curve.above(score) for score in x], float).T
        precision = np.divide(right, kept, out=np.full(len(x), math.nan), where=kept > 0)
        lines = [Line("precision", x, precision), Line("recall", x, right / max(curve.boxes, 1)),
                 Line("F1", x, 2 * right / np.maximum(kept + curve.boxes, 1))]  # fmt: skip
        marks = [(m.min_score, f"{m.min_score:.3f}")]
        svg = line_chart(lines, "score threshold", "", f"Score threshold, IoU {IOU:g}, all classes", marks=marks)
        pictures.append(Picture("score-threshold", "What is kept above each score, all classes together.", svg))
    log = next((path for name in _LOGS if (path := Path(m.weights).parent / name).is_file()), None)
    course: dict[int, dict[str, Any]] = {}
    if log is None:
        absent.append(f"The course of the training is left out: no {' or '.join(_LOGS)} lies beside {m.weights}.")
    else:
        try:
            course = course_of(log)
        except (FcosError, UnicodeDecodeError) as error:
            absent.append(f"The course of the training is left out: {error}")
        pictures += _course(course)
    last = max(course, default=None)
    numbers = {
        "threshold": m.min_score, "iterations": None if last is None else last + 1,
        "thresholds": dict(zip(m.names, m.thresholds.values)) if m.thresholds else None,
    }  # fmt: skip
    text = ["The score threshold is the trade between finding all objects and finding nothing wrong."]
    return Section(text, pictures=pictures, numbers=numbers, absent=absent)


def _course(points: Mapping[int, Mapping[str, Any]]) -> list[Picture]:
    losses = sorted({key for row in points.values() for key in row if key.startswith("loss_") and "/" not in key})
    pictures = []
    panels: tuple[tuple[str, str, dict[str, str], float, tuple[float, float] | None], ...] = (
        ("losses", "Losses", {"total_loss": "total", **{key: loss_name(key) for key in losses}}, 1.0, None),
        ("ap-while-training", "AP while training", {"bbox/AP": "AP", "bbox/AP50": "AP50", "bbox/AP75": "AP75"}, 100.0,
         (0.0, 1.0)),
    )  # fmt: skip
    for name, title, keys, whole, ylim in panels:
        lines = []
        for key, label in keys.items():
            known = [(step + 1, row[key] / whole) for step, row in points.items() if _is_number(row.get(key))]
            if known:
                x, y = np.array(known, float).T
                lines.append(Line(label, x, y))
        if lines:
            svg = line_chart(lines, "iteration", "", title, xlim=None, ylim=ylim)
            pictures.append(Picture(name, f"{title}, from the log of the training beside the weights.", svg))
    return pictures


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def by_kind(m: Material) -> Section:
    numbers, truth = m.numbers, m.objects.truth
    counts = np.bincount(truth.label[~truth.crowd], minlength=len(m.names))
    of_class = {
        name: {"objects": int(counts[k]), "AP": numbers.ap(label=k), "AP50": numbers.ap(0.5, k),
               **{f"AP_{size}": numbers.ap(label=k, size=size) for size in SIZES}}
        for k, name in enumerate(m.names)
    }  # fmt: skip
    heads = ("class", "objects", "AP", "AP50", *(f"AP {size}" for size in SIZES))
    rows = [
        (name, str(row["objects"]), *(number(value) for key, value in row.items() if key != "objects"))
        for name, row in of_class.items()
    ]
    of_size = {size: {"AP": numbers.ap(size=size), "AR100": numbers.ar(size=size)} for size in SIZES}
    found = breakdown.recall_by_overlap(m.objects, m.observed.found)
    of_overlap = {name: {"objects": there, "recall": hit / there if there else None}
                  for name, (there, hit) in found.items()}  # fmt: skip
    shown = sorted(range(len(m.names)), key=lambda k: -counts[k])[:_BARS]
    some = "" if len(shown) == len(m.names) else f", the {len(shown)} with the most objects"
    pictures = [
        Picture(
            "by-size", "Small objects have less than 32² pixels, large ones more than 96².",
            bar_chart(SIZES, [Bars(key, [row[key] for row in of_size.values()]) for key in ("AP", "AR100")], "",
                      "By size"),
        ),
        Picture(
            "by-class", f"Each class{some}.",
            bar_chart([m.names[k] for k in shown],
                      [Bars(key, [of_class[m.names[k]][key] for k in shown]) for key in ("AP", "AP50")], "",
                      "By class"),
        ),
        Picture(
            "by-overlap", "Objects by their largest IoU with another object of the image: what share is found "
            f"(IoU {IOU:g}, any score).",
            bar_chart(list(OVERLAPS), [Bars("recall", [row["recall"] for row in of_overlap.values()])], "recall",
                      "By overlap with another object"),
        ),
    ]  # fmt: skip
    text = ["A detector is rarely equally good at everything; the numbers say where more or other data would help."]
    told = {"by_class": of_class, "by_size": of_size, "by_overlap": of_overlap}
    return Section(text, tables=[Table(heads, rows)], pictures=pictures, numbers=told)


def one_class(m: Material) -> Section:
    """Precision and recall where all classes are taken for one (Figs. 4 to 6, Table 9)."""
    merged = breakdown.class_agnostic(m.objects, m.observed.found)
    pictures: list[Picture] = []
    of_iou: dict[str, Any] = {}
    for iou in _IOUS:
        lines = [
            Line("one class", _RECALL, merged.curve(iou)),
            Line("mean of the classes", _RECALL, m.numbers.curve(iou)),
        ]
        caption = f"IoU {iou:g}: recall reaches {number(merged.most_recall(iou))} for one class."
        svg = line_chart(lines, "recall", "precision", f"Precision and recall at IoU {iou:g}", ylim=(0, 1.02))
        pictures.append(Picture(f"precision-recall-{round(100 * iou)}", caption, svg))
        of_iou[f"{iou:g}"] = {
            "one_class": merged.curve(iou), "mean_of_classes": m.numbers.curve(iou),
            "most_recall": merged.most_recall(iou),
        }  # fmt: skip
    rows = {"one class": _agnostic_row(merged), "mean of the classes": _agnostic_row(m.numbers)}
    heads = ("", "AP", *(f"AP at IoU {iou:g}" for iou in _IOUS))
    table = Table(heads, [(name, *map(number, row.values())) for name, row in rows.items()])
    text = [
        "All classes are taken for one, in the data as in the detections: this is how well things are found at all, "
        "apart from what they are called. What the two curves differ by is lost between classes. At a high IoU, it "
        "shows how exact boxes are.",
    ]
    return Section(text, tables=[table], pictures=pictures, numbers={"ap": rows, "curves": of_iou})


def _agnostic_row(numbers: Numbers) -> dict[str, float | None]:
    return {"AP": numbers.ap(), **{f"AP{round(100 * iou)}": numbers.ap(iou) for iou in _IOUS}}


def overlap(m: Material) -> Section:
    """AP on the images in which objects overlap, and on the others (Table 6)."""
    some = m.objects.overlapping()
    rest = np.setdiff1d(np.arange(len(m.objects.records)), some)
    truth, shares = m.objects.truth, breakdown.object_overlaps(m.objects.truth)
    kinds = {"all": None, "with overlapping objects": some, "without": rest}
    rows: list[tuple[str, ...]] = []
    told: dict[str, dict[str, Any]] = {}
    for name, images in kinds.items():
        count = len(m.objects.records) if images is None else len(images)
        there = ~truth.crowd if images is None else ~truth.crowd & np.isin(truth.image, images)
        numbers = breakdown.evaluated(m.objects, m.observed.found, images) if count else None
        told[name] = {
            "images": count, "objects": int(there.sum()), "overlapping": int((there & (shares > 0)).sum()),
            **({key: numbers.ap(iou) if numbers else None for key, iou in
                (("AP", None), ("AP50", 0.5), ("AP75", 0.75))}),
        }  # fmt: skip
        row = told[name]
        rows.append((name, *(str(row[key]) for key in ("images", "objects", "overlapping")),
                     *(number(row[key]) for key in ("AP", "AP50", "AP75"))))  # fmt: skip
    heads = ("images", "images", "objects", "of them overlapping", "AP", "AP50", "AP75")
    series = [Bars(name, [told[name][key] for key in ("AP", "AP50", "AP75")]) for name in kinds]
    chart = bar_chart(("AP", "AP50", "AP75"), series, "", "Images with and without overlapping objects")
    text = [
        "A location can learn one object only, the smallest that it lies in. If overlapping objects were a problem for "
        "the detector, AP would be lower where they are. Crowd regions do not count as objects.",
    ]
    pictures = [Picture("overlap", "Images in which two objects share an area, and the others.", chart)]
    return Section(text, tables=[Table(heads, rows)], pictures=pictures, numbers=told)
