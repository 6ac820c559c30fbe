"""Pictures of a training, drawn while it runs: its curves, and what the detector confuses, misses and finds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventWriter

from ..data.mapper import read_rgb
from ..evaluation import confusion
from ..files import write_json
from ..visualize import Crop, Drawable, draw_confusion, draw_crops, draw_curves
from .operating_points import Detected

__all__ = ["Gallery", "crop_of", "draw_findings"]

logger = logging.getLogger("fcos_d2")

IOU, MIN_SCORE = 0.5, 0.5  # of what counts as found
_SHARE = 0.01  # of the time of training that pictures may take while it runs
_FIRST = 3.0  # seconds that the first ones are expected to take
_NEAR = 0.2  # IoU from which a detection is taken for one of an object with a bad box
_EXAMPLES = 10  # in each section of a picture


class Gallery(EventWriter):
    """Draws after evaluations, and in the end; a picture that cannot be drawn is a warning and stops nothing.

    It comes after the writer of metrics.json, which the curves are drawn from. Pictures wait for a later evaluation
    where they would take more than a hundredth of the time; in the end they are drawn in any case.

    Args:
        trainer: with `output_dir`, `title`, `evaluated` and `detected`.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._started, self._spent, self._last = time.monotonic(), 0.0, _FIRST
        self._drawn = trainer.evaluated  # the iteration whose evaluation was drawn

    def write(self) -> None:
        elapsed = time.monotonic() - self._started
        if self.trainer.evaluated != self._drawn and self._spent + self._last <= _SHARE * elapsed:
            self._draw()

    def close(self) -> None:
        elapsed, spent = time.monotonic() - self._started, self._spent
        self._draw()
        logger.info(
            "Pictures took %.1f s of %.0f s while training ran, and %.1f s in the end.", spent, elapsed, self._last
        )

    def _draw(self) -> None:
        started, trainer = time.monotonic(), self.trainer
        folder = Path(trainer.output_dir)
        if (folder / "metrics.json").is_file():
            guarded("curves.png", lambda: draw_curves(folder / "metrics.json", folder / "curves.png", trainer.title))
        if trainer.evaluated != self._drawn:
            self._drawn = trainer.evaluated
            if (detected := trainer.detected) is not None:
                guarded("confusion.png", lambda: draw_findings(detected, folder, trainer.title, self._drawn))
        self._last = time.monotonic() - started
        self._spent += self._last


def guarded(name: str, draw: Callable[[], Any]) -> None:
    """Draw; whatever goes wrong, a full disk say, is one warning."""
    try:
        draw()
    except Exception as error:  # of matplotlib, Pillow, the file system
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        logger.warning("%s is not drawn (%s); training goes on.", name, reason)


def draw_findings(detected: Detected, folder: Path, title: str, iteration: int | None = None) -> None:
    """Write confusion.png, confusion.json, misses.jpg and hits.jpg of a data set that was evaluated.

    Args:
        detected: what was found there, and what is there.
        folder: where they are written.
        title: heading of the pictures.
        iteration: of the weights, from 0; None if it is not known.
    """
    found, truth, names, name = detected.found, detected.truth, detected.class_names, detected.dataset
    pairs = confusion.pairs(found, truth, DatasetCatalog.get(name), IOU, MIN_SCORE)
    matrix = confusion.confusion(pairs, len(names))
    told = {"dataset": name, "iteration": iteration, **confusion.report(matrix, names, IOU, MIN_SCORE)}
    write_json(folder / "confusion.json", told)
    rule = f"score > {MIN_SCORE:g}, IoU ≥ {IOU:g}\ncolor: share of the row,\nin the last row of the column"
    draw_confusion(matrix, names, folder / "confusion.png", f"{title}: what is taken for what", rule)
    missed = confusion.largest_misses(pairs, _EXAMPLES), confusion.false_alarms(pairs, _EXAMPLES)
    sections = [
        (f"Not found, the largest first ({matrix[:-1, -1].sum()} in all)", _crops(missed[0], names)),
        (f"Found wrongly, the highest score first ({_wrong(matrix)} in all)", _crops(missed[1], names)),
    ]
    draw_crops(sections, names, folder / "misses.jpg", f"{title}: worst misses")
    hits = _crops(confusion.best_hits(pairs, 2 * _EXAMPLES), names)
    section = f"Found as what they are, the highest score times IoU first ({matrix.diagonal()[:-1].sum()} in all)"
    draw_crops([(section, hits)], names, folder / "hits.jpg", f"{title}: best hits")


def _wrong(matrix: np.ndarray) -> int:
    """How many detections found nothing, or another class than theirs."""
    return int(matrix[:, :-1].sum() - matrix.diagonal()[:-1].sum())


def _crops(pairs: Iterable[confusion.Pair], names: Sequence[str]) -> list[Crop]:
    """The images around pairs, with what is drawn there and said of it."""
    return [crop_of(pair, names) for pair in pairs]


def crop_of(pair: confusion.Pair, names: Sequence[str]) -> Crop:
    """The image around a pair, with two lines: what is there, or was found and why it is wrong; name of the image."""
    image = np.asarray(read_rgb(pair.record["file_name"]))
    where = Path(pair.record["file_name"]).name
    if pair.found is None:
        width, height = pair.box[2:] - pair.box[:2]
        text = f"{names[pair.truth_class]}, {width:.0f}x{height:.0f} px"
        return Crop(image, pair.box, Drawable([pair.box], [pair.truth_class]), [text, where])
    drawn = Drawable([pair.box], [pair.found_class], [pair.score])
    text = f"{names[pair.found_class]} {pair.score:.2f}"
    if pair.is_hit:
        text += f", IoU {pair.iou:.2f}"
    elif pair.truth is not None:
        text += f", is {names[pair.truth_class]}"
    elif (share := confusion.overlap(pair)) >= IOU:
        text += ", found once already"
    else:
        text += f", box is off, IoU {share:.2f}" if share >= _NEAR else ", nothing is marked here"
    return Crop(image, pair.box, drawn, [text, where])
