"""Where the parts of a data set lie on disk, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DatasetFormat", "DatasetLayout", "DatasetNames", "Split"]


@dataclass(frozen=True)
class Split:
    """One part (train, val or test) of a data set on disk."""

    annotations: Path  # file or folder with the ground truth
    images: Path  # folder that the image names in the annotations are relative to


@dataclass(frozen=True)
class DatasetLayout:
    """A data set found on disk."""

    format: str  # name of the row of `FORMATS` that recognised it
    root: Path
    splits: Mapping[str, Split] = field(default_factory=dict)  # keys among "train", "val", "test"


@dataclass(frozen=True)
class DatasetNames:
    """The names under which the parts of a data set stand in Detectron2's catalog; None for a part that is absent."""

    train: str | None = None
    val: str | None = None
    test: str | None = None


@dataclass(frozen=True)
class DatasetFormat:
    """One format of data sets: how to recognise it and how to read it."""

    name: str
    looks_for: str  # what `find` looks for, in words that end an error sentence
    find: Callable[[Path], dict[str, Split]]  # the parts in a folder; empty when the folder has another format
    read: Callable[[Split], dict]  # ground truth of a part as COCO's JSON object
