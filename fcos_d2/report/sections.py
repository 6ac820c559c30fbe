"""The sections of the report, in order: a name on the command line, a heading, and the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import accuracy, centers, learnable, mistakes, surroundings
from .material import Material
from .parts import Section

__all__ = ["SECTIONS", "Row"]


@dataclass(frozen=True)
class Row:
    """A section: its name, its heading, where in arXiv:1904.01355 the like is found, what makes it."""

    key: str
    title: str
    paper: str
    make: Callable[[Material], Section]


SECTIONS = (
    Row("summary", "Summary", "", accuracy.summary),
    Row("curves", "Curves", "", accuracy.curves),
    Row("kinds", "AP by size, class and overlap", "", accuracy.by_kind),
    Row("one-class", "Precision and recall, classes aside", "Figs. 4–6, Table 9", accuracy.one_class),
    Row("centerness", "Centerness over pictures", "Fig. 3", centers.maps),
    Row("score-iou", "Score against IoU", "Fig. 7", centers.scatter),
    Row("overlap", "Images with overlapping objects", "Table 6", accuracy.overlap),
    Row("rankings", "What centerness is worth", "Table 5", centers.rankings),
    Row("errors", "Errors", "", mistakes.errors),
    Row("calibration", "Calibration", "", mistakes.calibration),
    Row("confusion", "Confusion of classes", "", mistakes.matrix),
    Row("data", "The data", "", surroundings.data),
    Row("learnable", "What can be learned of the data", "Tables 1 and 2", learnable.learnable),
    Row("config", "Config", "", surroundings.config),
    Row("environment", "Environment", "", surroundings.environment),
)
