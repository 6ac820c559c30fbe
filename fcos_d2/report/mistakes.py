"""What the detector does wrong: misses and false alarms with pictures, confused classes, scores that mislead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation import confusion
from ..evaluation.calibration import calibration_error, reliability
from ..evaluation.ledger import FALSE_ALARMS, MISSES
from ..train.gallery import crop_of
from ..train.mistakes import by_cause, labels_of
from ..visualize.charts import calibration_chart
from ..visualize.crops import tile_around
from .material import IOU, Material
from .parts import Picture, Section, Table, number, percent, photo

__all__ = ["calibration", "errors", "matrix"]

_EXAMPLES = 8  # of each kind
_MOST = 24  # classes that a matrix has room for


def errors(m: Material) -> Section:
    """What became of every object and of every detection, each with one cause."""
    if m.ledger is None:
        return _without_causes(m)
    told, labels = m.ledger.summary(), labels_of(m.names)
    text = [
        f"With the score threshold {m.min_score:.3f} and an IoU of {IOU:g}, {told['found']} of {told['objects']} "
        f"objects are found, and {told['wrong']} of {told['detections']} detections are wrong. Each miss and each "
        "false alarm has one cause: the first of the table that holds.",
    ]
    tables = [
        Table((what, "how many", "share", "what it means"), [
            (cause, str(count), percent(told[f"{key}_percent"][cause], 100), meanings[cause])
            for cause, count in told[key].items()
        ])
        for what, key, meanings in (("missed", "misses", MISSES), ("wrongly found", "false_alarms", FALSE_ALARMS))
    ]  # fmt: skip
    pictures = [
        photo(f"{nth}-{i}", ", ".join(filter(None, crop.lines)), tile_around(crop, labels), heading)
        for nth, (heading, crops) in enumerate(by_cause(m.ledger), 1)
        for i, crop in enumerate(crops[: _EXAMPLES // 2], 1)
    ]  # fmt: skip
    hits = [
        _example(pair, f"hit-{nth}", "Found as what they are, the best first", m.names)
        for nth, pair in enumerate(confusion.best_hits(m.pairs, _EXAMPLES // 2), 1)
    ]
    return Section(text, tables=tables, pictures=[*pictures, *hits], numbers=told)


def _without_causes(m: Material) -> Section:
    """The same of a model whose selection cannot be followed."""
    counts = {
        "found": sum(pair.is_hit for pair in m.pairs),
        "taken for another class": sum(not pair.is_hit and -1 not in (pair.found_class, pair.truth_class)
                                       for pair in m.pairs),
        "missed": sum(pair.found is None for pair in m.pairs),
        "false alarms": sum(pair.truth is None for pair in m.pairs),
    }  # fmt: skip
    groups = (
        ("miss", "Not found, the largest first", confusion.largest_misses(m.pairs, _EXAMPLES)),
        ("false-alarm", "Found wrongly, the highest score first", confusion.false_alarms(m.pairs, _EXAMPLES)),
        ("hit", "Found as what they are, the best first", confusion.best_hits(m.pairs, _EXAMPLES // 2)),
    )
    pictures = [
        _example(pair, f"{name}-{nth}", heading, m.names)
        for name, heading, pairs in groups for nth, pair in enumerate(pairs, 1)
    ]  # fmt: skip
    text = [
        f"With the score threshold {m.min_score:.3f} and an IoU of {IOU:g}: "
        + ", ".join(f"{count} {name}" for name, count in counts.items()) + ".",
    ]  # fmt: skip
    why = m.several_looks or "They are told of FCOS alone."
    absent = [f"The causes of errors are left out. {why}"]
    return Section(text, pictures=pictures, numbers={"iou": IOU, "score": m.min_score, **counts}, absent=absent)


def _example(pair: confusion.Pair, name: str, group: str, names: Sequence[str]) -> Picture:
    crop = crop_of(pair, names)
    told, where = crop.lines
    return photo(name, f"{told}, in {where}", tile_around(crop, names), group)


def matrix(m: Material) -> Section:
    """What is taken for what."""
    counts = confusion.confusion(m.pairs, len(m.names))
    told = confusion.report(counts, m.names, IOU, m.min_score)
    pairs = [(row["truth"], row["found"], str(row["count"])) for row in told["most_confused"][:10]]
    tables = [Table(("is", "found as", "times"), pairs, "What is confused most")] if pairs else []
    absent = []
    if len(m.names) <= _MOST:
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        shares[-1] = counts[-1] / np.maximum(counts.sum(0), 1)
        names = [*m.names, "background"]
        rows = [(name, *(str(count) if count else "" for count in row)) for name, row in zip(names, counts.tolist())]
        caption = (
            "Rows are what is there, columns what was found; color: share of the row, in the last row of the column"
        )
        tables.insert(0, Table(("", *names), rows, caption, shares))
    else:
        absent.append(f"The matrix of {len(m.names)} classes is in the JSON file; here is what is confused most.")
    text = [f"Each detection with a score above {m.min_score:.3f} takes the object that it overlaps most, whatever the "
            f"classes, if the IoU is at least {IOU:g}."]  # fmt: skip
    return Section(text, tables=tables, numbers=told, absent=absent)


def calibration(m: Material) -> Section:
    """Whether a score of 0.8 means that four of five are right."""
    scored, stored = m.scored, m.thresholds
    bins = [reliability(scored.scores, scored.right)]
    names = ["scores"]
    numbers: dict[str, Any] = {"error": calibration_error(bins[0])}
    temperature = stored.temperature if stored else None
    if temperature is not None:
        bins.append(reliability(scored.scores, scored.right, temperature))
        names.append(f"temperature {temperature:.2f}")
        numbers |= {"temperature": temperature, "error_calibrated": calibration_error(bins[1])}
    if numbers["error"] is None:
        return Section(absent=["Nothing was detected, so there are no scores to look at."])
    text = [
        "A score is calibrated if of all detections with it just that share is right: then the curve is the dotted "
        f"line. On average it is {number(numbers['error'])} away from it"
        + (f", and {number(numbers['error_calibrated'])} if the logits of scores are divided by {temperature:.2f}."
           if temperature is not None else "."),
    ]  # fmt: skip
    chart = calibration_chart(np.stack(bins), names, f"Calibration, IoU {IOU:g}")
    rows = []
    if stored is not None:
        rows = [(name, str(boxes), f"{value:.3f}{'' if own else ' (for all)'}") for name, boxes, value, own in
                zip(m.names, stored.boxes, stored.values, stored.own)]  # fmt: skip
        numbers["thresholds"] = {name: value for name, _, value in zip(m.names, stored.boxes, stored.values)}
    tables = [Table(("class", "objects", "score of the best F1"), rows)] if rows else []
    numbers["bins"] = {
        name: {"detections": one[0], "scores": one[1], "right": one[2]} for name, one in zip(names, bins)
    }
    return Section(
        text, tables=tables, pictures=[Picture("calibration", "All classes together.", chart)], numbers=numbers
    )
