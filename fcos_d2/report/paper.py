"""A table or a figure of the paper made on other data, beside the numbers that the paper prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..train.own_data import image_size_of
from ..zoo.paper import PAPER, Published
from .material import Material
from .parts import Section
from .sections import SECTIONS, Row

__all__ = ["Comparison", "compare"]

# Figures that are one of several pictures of their section.
_PICTURES = {"figure4": "precision-recall-50", "figure5": "precision-recall-75", "figure6": "precision-recall-90"}


@dataclass(frozen=True)
class Comparison:
    """What the paper prints, and the like on other data.

    Attributes:
        name: such as "table5".
        here: label -> column -> number, from 0 to 1; `None` where there is nothing to count.
        differs: what is not the same here, in sentences.
        row, section: what shows it; `None` where no detector is needed.
    """

    name: str
    published: Published
    here: Mapping[str, Mapping[str, float | None]]
    differs: tuple[str, ...]
    row: Row | None = None
    section: Section | None = None

    def lines(self) -> list[tuple[str, str, list[float | None]]]:
        """(label, "published" or "here", numbers): each of ours below what it is compared with."""
        same, rows = self.published.same or {}, self.published.rows or {}
        found: list[tuple[str, str, list[float | None]]] = []
        for label, numbers in rows.items():
            found.append((label, "published", list(numbers)))
            found += [(own, "here", self._numbers(own)) for own in self.here if same.get(own) == label]
        found += [(own, "here", self._numbers(own)) for own in self.here if same.get(own) not in rows]
        return found

    def _numbers(self, label: str) -> list[float | None]:
        return [self.here[label].get(column) for column in self.published.columns]

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        return {
            "name": self.name, "title": self.published.title, "setting": self.published.setting,
            "columns": list(self.published.columns),
            "rows": [{"label": label, "of": of, **dict(zip(self.published.columns, numbers))}
                     for label, of, numbers in self.lines()],
            "differs": list(self.differs), "numbers": self.section.numbers if self.section else None,
            "left_out": list(self.section.absent) if self.section else [],
        }  # fmt: skip


def compare(name: str, m: Material) -> Comparison:
    """Make one of `PAPER` that a section of the report shows."""
    published = PAPER[name]
    row = next(row for row in SECTIONS if row.key == published.section)
    section = row.make(m)
    if only := _PICTURES.get(name):
        section = dataclasses.replace(section, pictures=[one for one in section.pictures if one.name == only])
    numbers = section.numbers.get("ap", section.numbers)
    here = {label: found for label, found in numbers.items() if isinstance(found, Mapping)} if published.columns else {}
    return Comparison(name, published, here, (_setting(m), *published.differs), row, section)


def _setting(m: Material) -> str:
    where = m.data.resolve().name if m.data is not None else m.objects.dataset
    size = image_size_of(m.cfg)
    return (
        f"Here are {len(m.objects.records):,} images of {where} with {m.objects.count:,} objects of {len(m.names)} "
        f"classes, seen by {Path(m.weights).name}" + (f" at {size} px." if size else ".")
    )
