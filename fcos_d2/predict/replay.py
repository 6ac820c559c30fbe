"""A record of a selection on disk: NumPy's .npz, of which nothing is run when it is read.

The file holds the maps of the network, where they lie in the image, and the options of the selection: all that the
detections follow from, and so what became of each candidate. The weights are not in it.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FcosError
from ..files import write_atomically
from ..modeling import LTRBCoder, Selector
from ..modeling.record import Record
from ..structures import Detections, Level, Locations, Predictions

__all__ = ["SUFFIX", "Replay", "read_record", "require_own", "write_record"]

SUFFIX = ".npz"
_VERSION = 1
_FOUND = ("image", "boxes", "scores", "classes", "location")
_MAPS = {"logits": None, "raw_ltrb": 4, "quality": 1}  # channels of each point; None for the number of classes


@dataclass(frozen=True)
class Replay:
    """A record, and what is said of its image.

    Attributes:
        record: of one image.
        class_names: of the K classes.
        least: (K,) score of each class that a detection must exceed to be reported.
        image: name of the image.
    """

    record: Record
    class_names: tuple[str, ...]
    least: tuple[float, ...]
    image: str

    @cached_property
    def outcome(self) -> str:
        """Whether the selection gives the recorded detections again: "exact", to the bit, as it does on the machine and
        the CPU that made the record; "rounding", in all but the last digits; or "different".
        """
        again, found = self.record.replay(), self.record.found
        pairs = [(getattr(again, name), getattr(found, name)) for name in _FOUND]
        if all(torch.equal(x, y) for x, y in pairs):
            return "exact"
        near = all(x.shape == y.shape and torch.allclose(x.double(), y.double(), 1e-5, 1e-4) for x, y in pairs)
        return "rounding" if near else "different"


def require_own(path: Path) -> None:
    """Raise FcosError if a file is there that is no record, or if the name has another ending."""
    if path.suffix.lower() != SUFFIX:
        raise FcosError(f"{path} is no name of a record: let it end in {SUFFIX}.")
    if path.exists():
        try:
            read_record(path)
        except FcosError:
            raise FcosError(f"{path} exists and is no record: choose another name.") from None


def write_record(path: Path, replay: Replay) -> None:
    """Write a record of one image; raises FcosError if the file cannot be written."""
    record, where = replay.record, replay.record.predictions.locations
    about = {
        "version": _VERSION, "selector": dataclasses.asdict(record.selector),
        "coder": dataclasses.asdict(record.coder), "image_sizes": record.image_sizes,
        "output_sizes": record.output_sizes, "inclusive_far_corner": record.inclusive_far_corner,
        "keep_empty": record.keep_empty, "levels": [dataclasses.asdict(level) for level in where.levels],
        "class_names": replay.class_names, "least": replay.least, "image": replay.image,
    }  # fmt: skip
    arrays = {"xy": where.xy, "stride": where.stride}
    arrays |= {f"found.{name}": getattr(record.found, name) for name in _FOUND}
    for name in _MAPS:
        arrays |= {f"{name}.{i}": x for i, x in enumerate(getattr(record.predictions, name))}
    numbers: dict[str, Any] = {name: x.numpy() for name, x in arrays.items()}
    numbers["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    write_atomically(path, lambda file: np.savez(file, **numbers))


def read_record(path: Path) -> Replay:
    """Read a record; it may be a stranger's.

    Raises:
        FcosError: there is no such file, or it is no record, or a damaged one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            _require_stored(path)
            about = json.loads(bytes(file["about"]))
            if about["version"] != _VERSION:
                raise ValueError(f"version {about['version']}")
            return _replay(about, {name: torch.from_numpy(file[name]) for name in file.files})
    except FileNotFoundError as error:
        raise FcosError(f"The record {path} does not exist.") from error
    except Exception as error:  # what a damaged file raises is anything
        reason = " ".join(str(error).split())[:100].rstrip(".") or type(error).__name__
        raise FcosError(f"{path} is no record of `fcos explain --record`, or a damaged one ({reason}).") from error


def _require_stored(path: Path) -> None:
    """Raise ValueError if a file would be larger in memory than on disk, as what `write_record` writes never is."""
    with zipfile.ZipFile(path) as archive:
        if any(row.compress_type != zipfile.ZIP_STORED for row in archive.infolist()):
            raise ValueError("it is compressed")


def _replay(about: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Replay:
    """Raises anything if it is no record."""
    levels = tuple(
        Level(**{**row, "step": tuple(row["step"]), "points": tuple(map(tuple, row["points"]))})
        for row in about["levels"]
    )
    locations = Locations(levels, arrays["xy"], arrays["stride"])
    maps = {name: [arrays[f"{name}.{i}"] for i in range(len(levels))] for name in _MAPS}
    predictions = Predictions(**maps, locations=locations)
    image, boxes, scores, classes, location = (arrays[f"found.{name}"] for name in _FOUND)
    found = Detections(image, boxes, scores, classes, location)
    record = Record(
        predictions, Selector(**about["selector"]), LTRBCoder(**about["coder"]), _sizes(about["image_sizes"]), found,
        _sizes(about["output_sizes"]), bool(about["inclusive_far_corner"]), bool(about["keep_empty"]),
    )  # fmt: skip
    replay = Replay(record, tuple(map(str, about["class_names"])), tuple(map(float, about["least"])), about["image"])
    _check(replay)
    return replay


def _sizes(rows: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(height), int(width)) for height, width in rows)


def _check(replay: Replay) -> None:
    """Raise ValueError unless the parts of a record fit each other."""
    record, classes = replay.record, len(replay.class_names)
    predictions, where = record.predictions, record.predictions.locations
    images = predictions.num_images
    start = 0
    for i, level in enumerate(where.levels):
        points = len(level.points)
        for name, channels in _MAPS.items():
            shape = (images, points * (classes if channels is None else channels), level.height, level.width)
            values = getattr(predictions, name)[i]
            if tuple(values.shape) != shape or values.dtype != torch.float32:
                raise ValueError(f"{name} of level {i} is not {shape}")
        if level.start != start or points != where.points_per_cell:
            raise ValueError(f"level {i} has another place")
        start = level.end
    rows = len(record.found.image)
    shapes = {"image": (rows,), "boxes": (rows, 4), "scores": (rows,), "classes": (rows,), "location": (rows,)}
    fits = all(tuple(getattr(record.found, name).shape) == shape for name, shape in shapes.items())
    fits &= tuple(where.xy.shape) == (start, 2) and tuple(where.stride.shape) == (start,)
    fits &= images == len(record.image_sizes) == len(record.output_sizes) == 1 and len(replay.least) == classes
    fits &= min(x for size in (*record.image_sizes, *record.output_sizes) for x in size) > 0
    if not fits or not isinstance(replay.image, str):
        raise ValueError("its parts do not fit each other")
