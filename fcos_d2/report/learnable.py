"""What can be learned of the images' objects at all: the paper's Tables 1 and 2, and the same of this detector."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..analysis import LOST, Assignment, Lost, Objects, lost, paper_table, plain_assignment, read_objects
from ..analysis.pictures import crops
from ..analysis.reasons import told
from ..analysis.rules import detector_rule
from ..analysis.tables import plain_rule
from ..data import DatasetLayout, Split
from ..errors import FcosError
from ..visualize.charts import Bars, bar_chart
from ..visualize.crops import tile_around
from .material import Material
from .parts import Picture, Section, Table, number, percent, photo

__all__ = ["learnable"]

_EXAMPLES = 4  # of each reason


def learnable(m: Material) -> Section:
    """What training assigns to the objects of these images, and those that it assigns nothing to."""
    try:
        objects = _objects(m)
    except FcosError as error:
        return Section(absent=[f"This is left out: {error}"])
    part = objects.table.name
    paper = [{"here": row.pop(part), **row} for row in paper_table({part: objects})]
    table = _papers(paper)
    try:
        rule = detector_rule(m.cfg)
    except FcosError as error:
        absent = [f"What this detector learns is left out: {error}"]
        return Section([_METHOD], tables=[table], numbers={"paper": paper}, absent=absent)
    found = objects.assign(rule)
    those = lost(objects, found)
    own = plain_assignment(objects, found)
    counts = Counter(one.reason for one in those)
    reasons = {reason: counts[reason] for reason in LOST}
    numbers = {
        **own, "rule": plain_rule(rule), "paper": paper, "unlearnable": reasons,
        "unlearnable_objects": [told(objects, one, rule) for one in those],
    }  # fmt: skip
    tables = [table, *_tables(own, reasons)]
    pictures = [_levels(own), *_examples(objects, those)]
    return Section([_METHOD, _said(own, len(those), found)], tables=tables, pictures=pictures, numbers=numbers)


_METHOD = (
    "Only what at least one location is assigned to in training can be learned; the share of such objects is the best "
    "possible recall. A location that lies in the regions of several objects is ambiguous: the smallest has it. This "
    "is counted of the labels, without the network."
)


def _objects(m: Material) -> Objects:
    """The objects that were evaluated, as training has them.

    Raises:
        FcosError: their file cannot be read, or has none.
    """
    metadata = MetadataCatalog.get(m.objects.dataset)
    file, part = Path(PathManager.get_local_path(metadata.json_file)), m.split or "val"
    split = Split(file, Path(PathManager.get_local_path(metadata.image_root)))
    return read_objects(DatasetLayout("coco", split.images, {part: split}))[part]


def _papers(rows: list[dict[str, Any]]) -> Table:
    """Tables 1 and 2."""
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:  # without center sampling, then with it
        pairs.setdefault((row["quantity"], row["levels"]), []).append(row)
    heads = ("by the paper's rules, 800 px", "levels", "COCO, published", "here", "with center sampling")
    lines = [(quantity, levels, number(one["published"], 4), number(one["here"], 4), number(other["here"], 4))
             for (quantity, levels), (one, other) in pairs.items()]  # fmt: skip
    return Table(heads, lines, "The published numbers are of COCO minival, without center sampling.")


def _said(own: dict[str, Any], missing: int, found: Assignment) -> str:
    size, total = found.rule.image_size, max(own["positives"], 1)
    across = sum(one["ambiguous_across_classes"] for one in own["levels"])
    learned = f"{missing} of {own['boxes']} objects have no location that learns them" if missing else (
        f"each of {own['boxes']} objects has a location that learns it"
    )  # fmt: skip
    return (
        f"By this detector's rule, at a shorter side of {size} pixels, {learned}: the best possible recall is "
        f"{number(own['best_possible_recall'], 4)}. Of all positive locations "
        f"{percent(sum(one['ambiguous'] for one in own['levels']), total)} are ambiguous, {percent(across, total)} "
        "between classes. `fcos analyze` looks for what would help."
    )


def _tables(own: dict[str, Any], reasons: dict[str, int]) -> list[Table]:
    sizes = {size: row for size, row in own["sizes"].items() if row["objects"]}
    why = [(LOST[reason], str(count)) for reason, count in reasons.items() if count]
    tables = [
        Table(("level", "stride", "objects", "positives", "ambiguous", "across classes"), [
            (one["level"], str(one["stride"]), str(one["objects"]), str(one["positives"]),
             percent(one["ambiguous"], one["positives"]), percent(one["ambiguous_across_classes"], one["positives"]))
            for one in own["levels"]
        ], "Objects that have a location on the level; locations that are assigned to one."),
        Table(("size", "objects", "never learned", "positives of an object, median", "mean"), [
            (size, str(row["objects"]), str(row["none"]), f"{row['median']:g}", f"{row['mean']:.1f}")
            for size, row in sizes.items()
        ], "Small objects have less than 32² pixels of the picture, large ones more than 96²."),
    ]  # fmt: skip
    return [*tables, Table(("never learned, because", "objects"), why)] if why else tables


def _levels(own: dict[str, Any]) -> Picture:
    levels = own["levels"]
    series = []
    for name in ("positives", "objects"):
        total = max(sum(one[name] for one in levels), 1)
        series.append(Bars(name, [one[name] / total for one in levels]))
    chart = bar_chart([one["level"] for one in levels], series, "share of all levels", "Where objects are learned")
    return Picture("levels", "Positive locations, and objects that have some, by level.", chart)


def _examples(objects: Objects, those: list[Lost]) -> Iterator[Picture]:
    """Some objects that are never learned, by their reason."""
    by_reason: dict[str, list[Lost]] = defaultdict(list)
    for one in those:
        by_reason[one.reason].append(one)
    for reason in LOST:
        heading = f"Never learned, {reason}: {len(by_reason[reason])} ({LOST[reason]})"
        shown = crops(objects, by_reason[reason][:_EXAMPLES])
        for nth, (_, crop) in enumerate(shown, 1):
            if crop is not None:
                tile = tile_around(crop, objects.table.class_names)
                yield photo(f"{reason.replace(' ', '-')}-{nth}", ", ".join(crop.lines), tile, heading)
