"""Where the parts of a data set lie on disk, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PART_NAMES", "PLACE", "UNREADABLE", "DatasetFormat", "DatasetLayout", "DatasetNames", "Split"]

# Names of a part, the usual one first; the others are COCO's own, Roboflow's and Keras'. Letter case does not matter.
PART_NAMES = {
    "train": ("train", "train2017", "train2014", "training"),
    "val": ("val", "valid", "validation", "val2017", "val2014"),
    "test": ("test", "test2017"),
}

# What readers of formats without ids add to an annotation of COCO's JSON object.
PLACE = "fcos_place"  # file, and line or number in it
UNREADABLE = "fcos_unreadable"  # why a label is no box, instead of "bbox"; `clean` counts these


@dataclass(frozen=True)
class Split:
    """One part (train, val or test) of a data set on disk."""

    annotations: Path  # file or folder with the ground truth
    images: Path  # folder that the image names in the annotations are relative to
    part: str = ""  # "train", "val" or "test" where the annotations have several parts


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
    when_asked: bool = False  # whether it is never guessed, since its files look like those of another row
