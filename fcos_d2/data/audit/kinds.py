"""What a check can find: for each kind how bad it is, what it is called, and the line that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["KINDS", "LEVELS", "Finding", "Kind"]

LEVELS = ("error", "warning", "advice")  # advice is about training, not about the data: it leaves a data set clean

_FIX = "fcos check {data} --fix {out}"
_SIZE = "fcos train --data {data} --image-size {size}"


@dataclass(frozen=True)
class Kind:
    """One kind of finding."""

    level: str  # one of `LEVELS`
    title: str
    what: str  # what is meant by it, and what becomes of it
    mend: str = _FIX  # the line that mends it; `{data}`, `{out}` and `{size}` are filled in


KINDS: dict[str, Kind] = {
    # The file as a whole
    "refused": Kind("error", "Training refuses the file", "The sentence says why.", ""),
    "box format": Kind(
        "error", "Boxes are written in another format",
        "Read as the format of the file says, they do not fit their images; read otherwise, they do.",
    ),
    "shifted classes": Kind(
        "error", "Class ids are off by one", "With all ids moved by one, each of them is in the list of categories."
    ),
    "shifted val": Kind(
        "warning", "Class ids of this part seem to be off by one against train's",
        "Moved by one, its classes are as frequent as in train; as they are, they are not.",
        "look at the pictures of this part: fcos check {data} --html check.html",
    ),
    # Boxes
    "no box": Kind("warning", "Annotations without a box", "'bbox' is absent, null or empty: they count as no object."),
    "unreadable label": Kind("error", "Labels that cannot be read", "They are left out of training."),
    "not four numbers": Kind("error", "Boxes that are not four numbers", "Training refuses the file."),
    "not finite": Kind("error", "Boxes with NaN, infinite or enormous numbers", "They are left out of training."),
    "zero size": Kind("error", "Boxes of zero width or height", "They are left out of training."),
    "negative size": Kind("error", "Boxes of negative width or height", "They are left out of training."),
    "outside": Kind("error", "Boxes wholly outside of their picture", "They are left out of training."),
    "beyond": Kind("warning", "Boxes that reach beyond their picture", "They are cut at its border for training."),
    "duplicate": Kind("warning", "Boxes that are there twice", "Same class, same place to half a pixel."),
    "two classes": Kind(
        "advice", "Boxes of two classes at one place",
        "One location learns one class; the later annotation of equal size is lost.",
        "look at them: fcos check {data} --html check.html",
    ),
    "tiny": Kind(
        "advice", "Boxes too small for the input size", "No location of the detector lies in them.",
        _SIZE,
    ),
    "covered": Kind(
        "advice", "Boxes whose locations smaller boxes take", "They are not learnt at this input size.", _SIZE
    ),
    "no flag": Kind("error", "Annotations whose iscrowd or ignore is neither 0 nor 1", "Training refuses the file."),
    "crowd": Kind(
        "advice", "Crowd regions", "They train nothing; detections in them count as neither right nor wrong.", ""
    ),
    "annotation ids": Kind("warning", "Annotation ids absent, repeated, or not whole numbers above 0",
                           "pycocotools evaluates such annotations wrongly; training numbers them anew."),
    # Pictures, as listed
    "unknown image": Kind("error", "Annotations of pictures that are not listed", "Training refuses the file."),
    "image ids": Kind("error", "Pictures without an id, or with an id that another has", "Training refuses the file."),
    "listed twice": Kind("warning", "Pictures that are listed twice", "One file has two entries in one part."),
    "no size": Kind("warning", "Pictures without a usable width and height", "They are read from the files."),
    "no objects": Kind("advice", "Pictures without objects", "They teach what background is.", ""),
    # Classes
    "unknown category": Kind("error", "Annotations of categories that are not listed", "Training refuses the file."),
    "category ids": Kind("error", "Categories without a usable id or name, or with an id that another has",
                         "Training refuses the file."),
    "names alike": Kind("warning", "Class names that differ in case or spaces only", "They are two classes."),
    "empty class": Kind("warning", "Classes without a box", "No part has one; they take room and cannot be learnt."),
    "class only in val": Kind("warning", "Classes without a box in train", "They cannot be learnt, and lower the AP."),
    "class not in val": Kind("advice", "Classes without a box in val", "Their AP is not measured.",
                             "fcos train --data {data}"),
    "rare class": Kind("advice", "Classes with fewer than ten boxes in train", "They are learnt badly.", ""),
    # Pictures, as files
    "missing": Kind("error", "Pictures whose file is missing", "Training refuses the file."),
    "unreadable": Kind("error", "Pictures that cannot be read", "Truncated, empty, or no picture at all."),
    "size mismatch": Kind("error", "Pictures of another size than is written", "Boxes lie elsewhere than meant."),
    "turned": Kind("warning", "Photographs that EXIF turns, with the size before turning",
                   "They are read upright; it is told from the boxes whether these are to be turned, too."),
    "in train and val": Kind("error", "Pictures that train has, too", "The AP is flattered."),
    "near in train and val": Kind("warning", "Pictures that train nearly has, too",
                                  "Video frames or edited copies: the AP is flattered."),
    "copies": Kind("advice", "The same picture several times in one part", "It counts so many times as much.", ""),
}  # fmt: skip


@dataclass
class Finding:
    """What was found of one kind in one part."""

    kind: str  # a key of `KINDS`
    part: str  # name of the part, or "" for the data set
    count: int
    of: int  # so many were looked at
    examples: list[dict[str, Any]] = field(default_factory=list)  # a few, with what is known: image, annotation, bbox
    detail: str = ""  # what the numbers alone do not say
    fill: dict[str, str] = field(default_factory=dict, repr=False)  # for the line that mends

    @property
    def level(self) -> str:
        return KINDS[self.kind].level

    def mend(self, names: Mapping[str, str]) -> str:
        """The line that mends it, with the words of a data set; "" where nothing needs to be done."""
        return KINDS[self.kind].mend.format_map({**names, **self.fill})

    def plain(self, names: Mapping[str, str]) -> dict[str, Any]:
        """As data for JSON."""
        kind, found = KINDS[self.kind], asdict(self)
        del found["fill"]
        return {"level": kind.level, "title": kind.title, **found, "meaning": kind.what, "mend": self.mend(names)}
