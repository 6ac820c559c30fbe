"""What `fcos eval --errors` adds to an evaluation: the ledger of errors, as data and with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog

from ..data.mapper import read_rgb
from ..errors import FcosError
from ..evaluation.evaluate import data_names
from ..evaluation.ledger import FALSE_ALARMS, MISSES, Box, ErrorLedger, FalseAlarm, Miss
from ..evaluation.tally import tallying
from ..files import write_json
from ..predict.keep import Keep, ScoreThreshold
from ..visualize import Crop, Drawable, draw_crops
from ..weights.fetch import fetch
from ..weights.read import read
from ..weights.thresholds import stored_thresholds
from .operating_points import for_classes

__all__ = ["FILES", "Asked", "by_cause", "labels_of", "watched", "write"]

FILES = ("errors.json", "errors.jpg")
OTHERWISE = 0.5  # score that a detection must exceed where neither the user nor the checkpoint says one
_EXAMPLES = 5  # of each cause in the picture


@dataclass(frozen=True)
class Asked:
    """What `--errors` is asked for."""

    threshold: ScoreThreshold = None  # None: those of the checkpoint, else 0.5
    iou: float = 0.5


@contextmanager
def watched(asked: Asked | None, trainer: Any, dataset: str) -> Iterator[ErrorLedger | None]:
    """While it lasts, evaluate: what is seen goes into the ledger; None where nobody asks.

    Args:
        asked: what for.
        trainer: with `cfg`, `bare_model` and `class_names`; its weights are those that the config names.
        dataset: name in Detectron2's catalog.
    Raises:
        FcosError: the detector's selection cannot be explained, or several data sets are evaluated.
    """
    if asked is None:
        yield None
        return
    if trainer.tta is not None:
        raise FcosError("--errors explains what is found at one look at each image: add --tta none.")
    if len(names := data_names(trainer.cfg, "test")) > 1:
        raise FcosError(f"--errors looks at one data set, and the config evaluates on {', '.join(names)}: name one.")
    classes = list(trainer.class_names or ())
    stored = stored_thresholds(read(fetch(path))) if (path := str(trainer.cfg.train.init_checkpoint or "")) else None
    stored = None if stored is None else for_classes(stored, classes)
    least = Keep.of(asked.threshold, stored, classes, OTHERWISE).values(len(classes))
    with tallying(trainer.bare_model, dataset, least, asked.iou) as ledger:
        yield ledger
    if ledger.images != (count := len(DatasetCatalog.get(dataset))):
        raise FcosError(f"--errors could follow {ledger.images} of {count} images: evaluate without augmentation.")


def write(ledger: ErrorLedger, folder: Path, title: str) -> dict[str, Any]:
    """Write errors.json and errors.jpg; returns the summary."""
    write_json(folder / "errors.json", ledger.plain())
    heading = f"{title}: {len(ledger.misses)} of {ledger.objects} objects missed, "
    heading += f"{len(ledger.false_alarms)} of {ledger.detections} detections wrong"
    draw_crops(by_cause(ledger), labels_of(ledger.class_names), folder / "errors.jpg", heading)
    return ledger.summary()


def labels_of(class_names: Sequence[str]) -> list[str]:
    """Of the boxes in the crops of `by_cause`: those of detections, then those of objects."""
    return [*class_names, *(f"marked {name}" for name in class_names)]


def by_cause(ledger: ErrorLedger) -> list[tuple[str, list[Crop]]]:
    """For each cause that there is a heading and examples: misses first, the largest, then the highest false alarms."""
    return [
        *_sections("Missed", MISSES, ledger.misses_by_cause(), ledger.misses, ledger.class_names),
        *_sections("Wrong", FALSE_ALARMS, ledger.false_alarms_by_cause(), ledger.false_alarms, ledger.class_names),
    ]


def _sections(
    what: str, causes: Mapping[str, str], counts: Mapping[str, int], rows: Sequence[Miss] | Sequence[FalseAlarm],
    names: Sequence[str],
) -> list[tuple[str, list[Crop]]]:  # fmt: skip
    """A section for each cause that there is: the largest misses, or the false alarms of the highest scores."""
    found = []
    for cause in causes:
        if not counts[cause]:
            continue
        some = sorted((one for one in rows if one.cause == cause), key=_weight, reverse=True)
        crops = [_crop(one, names) for one in some[:_EXAMPLES]]
        found.append((f"{what}, {cause}: {counts[cause]} ({causes[cause]})", crops))
    return found


def _weight(one: Miss | FalseAlarm) -> float:
    if isinstance(one, FalseAlarm):
        return one.detection.score or 0.0
    left, top, right, bottom = one.object.box
    return (right - left) * (bottom - top)


def _crop(one: Miss | FalseAlarm, names: Sequence[str]) -> Crop:
    main, other = (one.detection, one.object) if isinstance(one, FalseAlarm) else (one.object, one.by)
    boxes: list[Box] = [main] if other is None else [main, other]
    labels = [box.label + (len(names) if box.score is None else 0) for box in boxes]
    drawn = Drawable([box.box for box in boxes], labels)
    size = f"{main.box[2] - main.box[0]:.0f}x{main.box[3] - main.box[1]:.0f} px"
    head = f"{names[main.label]} {size if main.score is None else format(main.score, '.2f')}"
    lines = [head, one.detail, Path(one.image).name]
    return Crop(np.asarray(read_rgb(one.image)), np.array(main.box), drawn, lines)
