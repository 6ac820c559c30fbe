"""What became of a file's annotations: every one of them stands in exactly one place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BEYOND", "Report"]

BEYOND = 0.5  # pixels that a box may reach beyond its image without being counted as clipped: that much is rounding


@dataclass
class Report:
    """What became of a file's annotations: `annotations` is the sum of `objects`, `crowds` and all of `left_out`.

    Seen from training, `objects` = `used` + `clipped` + `unassignable`: see `data.audit` and `train.ground_truth`.
    """

    annotations: int
    objects: int = 0  # boxes to train on
    crowds: int = 0  # regions (`iscrowd` 1, or `ignore`) in which detections count as neither right nor wrong
    left_out: dict[str, int] = field(default_factory=lambda: {"no box": 0, "degenerate": 0})
    mended: dict[str, int] = field(default_factory=dict)  # field -> in how many annotations, images and categories
    left_out_of: dict[str, list] = field(default_factory=dict, repr=False)  # reason -> ids of their images

    @property
    def changed(self) -> bool:
        """Whether the file on disk says something else."""
        return any(self.left_out.values()) or bool(self.mended)

    def share(self, rows: Sequence[dict], without: Collection[Any]) -> Report:
        """The report of some images of the file.

        Args:
            rows: the annotations of these images that stay.
            without: the ids of the file's other images.
        """
        inside = {kind: [one for one in ids if one not in without] for kind, ids in self.left_out_of.items()}
        left_out = {kind: len(inside.get(kind, ())) for kind in self.left_out}
        crowds = sum(row["iscrowd"] for row in rows)
        return Report(
            len(rows) + sum(left_out.values()), len(rows) - crowds, crowds, left_out, dict(self.mended), inside
        )

    def put(self, row: dict, **values: Any) -> None:
        """Write values into an object of the file, and count those that were not there or were written otherwise."""
        for key, value in values.items():
            if key not in row or type(row[key]) is not type(value) or row[key] != value:
                row[key] = value
                self.count(key)

    def count(self, key: str) -> None:
        """A field of one more object was mended."""
        self.mended[key] = self.mended.get(key, 0) + 1
