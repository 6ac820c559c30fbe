"""What became of a file's annotations: every one of them stands in exactly one place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BEYOND", "Report", "clipped"]

BEYOND = 0.5  # pixels that a box may reach beyond its image without being counted as clipped: that much is rounding


@dataclass
class Report:
    """What became of a file's annotations: `annotations` is the sum of `objects`, `crowds` and all of `left_out`.

    Seen from training, `annotations` = `used` + `clipped` + all of `dropped` + `unassignable`, see `ledger`.
    """

    annotations: int
    objects: int = 0  # boxes to train on
    crowds: int = 0  # regions (`iscrowd` 1, or `ignore`) in which detections count as neither right nor wrong
    left_out: dict[str, int] = field(default_factory=lambda: {"no box": 0, "degenerate": 0})
    mended: dict[str, int] = field(default_factory=dict)  # field -> in how many annotations, images and categories
    left_out_of: dict[str, list] = field(default_factory=dict, repr=False)  # reason -> ids of their images
    clipped: int = 0  # objects that reach more than `BEYOND` beyond their image, and are cut there for training
    unassignable: int = 0  # objects that no location takes, once the size of input is known; none of the clipped

    @property
    def changed(self) -> bool:
        """Whether the file on disk says something else."""
        return any(self.left_out.values()) or bool(self.mended)

    @property
    def dropped(self) -> dict[str, int]:
        """Reason -> annotations that train nothing."""
        return {**self.left_out, "crowd": self.crowds}

    @property
    def used(self) -> int:
        """Objects that are trained on as they are written."""
        return self.objects - self.clipped - self.unassignable

    def ledger(self) -> dict[str, Any]:
        """The counts of which `in` = `used` + `clipped` + the sum of `dropped` + `unassignable`."""
        counts = {"in": self.annotations, "used": self.used, "clipped": self.clipped}
        return {**counts, "dropped": self.dropped, "unassignable": self.unassignable}

    def share(self, rows: Sequence[dict], images: Mapping[Any, dict], without: Collection[Any]) -> Report:
        """The report of some images of the file.

        Args:
            rows: the annotations of these images that stay.
            images: id -> image, of these images.
            without: the ids of the file's other images.
        """
        inside = {kind: [one for one in ids if one not in without] for kind, ids in self.left_out_of.items()}
        left_out = {kind: len(inside.get(kind, ())) for kind in self.left_out}
        crowds = sum(row["iscrowd"] for row in rows)
        return Report(
            len(rows) + sum(left_out.values()), len(rows) - crowds, crowds, left_out, dict(self.mended), inside,
            clipped(rows, images),
        )  # fmt: skip

    def put(self, row: dict, **values: Any) -> None:
        """Write values into an object of the file, and count those that were not there or were written otherwise."""
        for key, value in values.items():
            if key not in row or type(row[key]) is not type(value) or row[key] != value:
                row[key] = value
                self.count(key)

    def count(self, key: str) -> None:
        """A field of one more object was mended."""
        self.mended[key] = self.mended.get(key, 0) + 1


def clipped(rows: Sequence[dict], images: Mapping[Any, dict]) -> int:
    """How many boxes of sound annotations, crowd regions aside, reach more than `BEYOND` beyond their image."""
    count = 0
    for row in rows:
        if not row["iscrowd"]:
            (x, y, width, height), image = row["bbox"], images[row["image_id"]]
            past = x + width - image["width"] > BEYOND or y + height - image["height"] > BEYOND
            count += past or x < -BEYOND or y < -BEYOND
    return count
