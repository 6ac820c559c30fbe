"""What the paper prints beside the same of other data; Tables 1 and 2, which are of labels alone, are made here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..zoo.paper import LABELS, PAPER, Published, Row
from .objects import Objects
from .tables import RADIUS, paper_table

__all__ = ["PUBLISHED", "Comparison", "Line", "compare_labels"]

PUBLISHED = "published"
# Columns of Tables 1 and 2 are the names of quantities of `paper_table`.
_BOXES = (
    "The original program lets a box end at x + w − 1, a pixel of the picture earlier than here (x + w). "
    "Crowd regions, and boxes without area or outside of their picture, are left out."
)


class Line(NamedTuple):
    """A row: what of, whose numbers ("published", or a part of the data), and these, in the order of the columns."""

    label: str
    whose: str
    numbers: Row


@dataclass(frozen=True)
class Comparison:
    """A table or a figure of the paper, and the like here.

    Attributes:
        name: such as "table5".
        published: what the paper prints.
        here: part of the data -> label -> column -> number; a column that is not there is `None`.
        differs: what (data, boxes, thresholds, model, method) -> what is not the same here, in sentences.
        more: further data of it.
        absent: why there is nothing here, in sentences.
    """

    name: str
    published: Published
    here: Mapping[str, Mapping[str, Mapping[str, Any]]]
    differs: Mapping[str, Sequence[str]]
    more: Mapping[str, Any] = field(default_factory=dict)
    absent: Sequence[str] = ()

    def lines(self) -> Iterator[Line]:
        """Each row of the paper, and below it what is to be compared with it; then what the paper does not have."""
        same, rows = self.published.same, self.published.rows
        for label, numbers in rows.items():
            yield Line(label, PUBLISHED, numbers)
            yield from self._own(lambda own, label=label: same.get(own) == label)
        yield from self._own(lambda own: same.get(own) not in rows)

    def _own(self, wanted: Any) -> Iterator[Line]:
        labels = dict.fromkeys(label for rows in self.here.values() for label in rows if wanted(label))
        for label in labels:
            for part, rows in self.here.items():
                if label in rows:
                    yield Line(label, part, tuple(rows[label].get(column) for column in self.published.columns))

    def plain(self) -> dict[str, Any]:
        """As data for JSON; of published rows, null is what the paper does not give or is not confirmed."""
        names = [column.replace(" ", "_") for column in self.published.columns]
        return {
            "name": self.name, "title": self.published.title, "setting": self.published.setting, "columns": names,
            "rows": [{"label": one.label, "of": one.whose, **dict(zip(names, one.numbers))} for one in self.lines()],
            "differs": {what: list(sentences) for what, sentences in self.differs.items()},
            "left_out": list(self.absent), **self.more,
        }  # fmt: skip


def compare_labels(name: str, parts: Mapping[str, Objects], data: str) -> Comparison:
    """Make Table 1 or 2.

    Args:
        name: a key of `PAPER` that needs labels alone.
        parts: what `read_objects` returned.
        data: what the data set is called.
    """
    published = PAPER[name]
    if published.needs != LABELS:
        raise ValueError(f"{name} is not made of labels alone.")
    here: dict[str, dict[str, dict[str, Any]]] = {part: {} for part in parts}
    for row in paper_table(parts):
        label = row["levels"] + (", center sampling" if row["center_radius"] else "")
        for part in parts:
            if row["quantity"] in published.columns:
                here[part].setdefault(label, {})[row["quantity"]] = row[part]
    told = "; ".join(
        f"{part}, {len(objects.table.images):,} pictures with {len(objects):,} boxes" for part, objects in parts.items()
    )
    classes = next(iter(parts.values())).classes
    differs = {
        "data": [f"Published: COCO minival, 5,000 pictures, 80 classes. Here: {data}, {told}; number of "
                 f"classes: {classes}."],
        "boxes": [_BOXES],
        "thresholds": [f"There are none. With center sampling, the radius is {RADIUS:g} strides."],
        "model": ["None is needed: pictures are resized as in the paper (800 px, at most 1333), and locations assigned "
                  "by its rules, whatever your detector does; `fcos analyze` counts by a detector's own."],
        "method": list(published.method),
    }  # fmt: skip
    return Comparison(name, published, here, differs)
