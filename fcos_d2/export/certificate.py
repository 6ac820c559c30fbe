"""The certificate: what the detector finds in some pictures, and that the file finds the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

from ..errors import FcosError
from ..files import IMAGE_SUFFIXES, sha256_of
from ..predict import Predictor
from ..runtime import Detections, Detector, compared, generated_picture, read_picture

__all__ = ["Case", "by_model", "certified", "expected_of", "plain", "plan", "reduced"]

Find = Callable[[Sequence[np.ndarray]], list[Detections]]
"""Pictures of one size -> what is found in each."""

BOX_PX, SCORE = 1e-3, 1e-5
LOOSE_PX, LOOSE_SCORE = 0.5, 0.02  # of reduced precision, whose kernels differ from processor to processor
SHAPES = ((480, 640), (640, 480), (512, 512), (360, 640), (300, 720), (427, 613))
"""(height, width) of generated pictures, pixels; each is looked at alone and in a pair."""


@dataclass
class Case:
    """Pictures of one size that go through the network together.

    Attributes:
        rows: of the certificate's list of pictures.
        pictures: (H, W, 3) uint8 RGB each.
        expected: what the detector finds in each.
    """

    rows: list[int]
    pictures: list[np.ndarray]
    expected: list[Detections] = field(default_factory=list)


def plan(folder: Path | None = None, shapes: Sequence[tuple[int, int]] = SHAPES) -> tuple[list[dict], list[Case]]:
    """The pictures of a certificate and the cases that they are looked at in.

    Args:
        folder: with pictures besides the generated ones, or one picture.
        shapes: (height, width) of generated pictures, two of each.
    Raises:
        FcosError: the folder has no picture, or one cannot be read.
    """
    rows: list[dict] = []
    cases: list[Case] = []
    for number, (height, width) in enumerate(shapes):
        pair = [generated_picture(seed, height, width) for seed in (2 * number, 2 * number + 1)]
        first = len(rows)
        for seed in (2 * number, 2 * number + 1):
            rows.append({"name": f"generated {seed}", "seed": seed, "size": [height, width]})
        cases += [Case([first], pair[:1]), Case([first, first + 1], pair)]
    before: Case | None = None
    for path in _files(folder):
        picture = read_picture(path)
        rows.append({"name": path.name, "sha256": sha256_of(path), "size": list(picture.shape[:2])})
        case = Case([len(rows) - 1], [picture])
        if before is not None and before.pictures[0].shape == picture.shape:
            cases.append(Case([*before.rows, *case.rows], [*before.pictures, picture]))
        cases.append(case)
        before = case
    return rows, cases


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    folder = folder.expanduser()
    if not folder.exists():
        raise FcosError(f"The pictures {folder} do not exist: name a folder or a picture with --pictures.")
    found = [folder] if folder.is_file() else sorted(folder.iterdir())
    found = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise FcosError(f"{folder} has no pictures ({', '.join(IMAGE_SUFFIXES[:3])}, ...): choose another --pictures.")
    return found


def expected_of(find: Find, cases: Sequence[Case], tell: Callable[[int], object] = lambda done: None) -> None:
    """Let the detector look at all cases; `tell` is called with the number of those that are done."""
    for done, case in enumerate(cases, start=1):
        case.expected = find(case.pictures)
        tell(done)


def by_model(predictor: Predictor, pictures: Sequence[np.ndarray]) -> list[Detections]:
    """What a detector finds in (H, W, 3) uint8 RGB pictures that go through the network together."""
    found = predictor.predict(pictures, batch_size=len(pictures), image_format="RGB")
    return [plain(x["instances"]) for x in found]


def plain(found: Instances) -> Detections:
    found = found.to("cpu")
    return Detections(
        found.pred_boxes.tensor.numpy().astype(np.float32), found.scores.numpy().astype(np.float32),
        found.pred_classes.numpy().astype(np.int64),
    )  # fmt: skip


def certified(
    detector: Detector, rows: list[dict], cases: Sequence[Case], name: str, tell: Callable[[int], object]
) -> dict[str, Any]:
    """The certificate of a file.

    Args:
        detector: the file.
        rows: all pictures.
        cases: with what the model finds.
        name: of the file, for messages.
        tell: called with the number of cases that are done.
    Raises:
        FcosError: the file finds something else, or there is nothing to be found.
    """
    box = score = 0.0
    for done, case in enumerate(cases, start=1):
        for row, found, expected in zip(case.rows, detector.detect(case.pictures), case.expected):
            apart = compared(found, expected, BOX_PX, SCORE)
            box, score = max(box, apart.box_px), max(score, apart.score)
            if not apart.kept_equal or apart.box_px > BOX_PX or apart.score > SCORE:
                raise FcosError(_failure(name, rows[row]["name"], len(case.rows), found, expected, apart))
        tell(done)
    detections = sum(len(found) for case in cases for found in case.expected)
    if not detections:
        raise FcosError(
            f"The detector finds nothing in the {len(rows)} pictures of the certificate, so that it would prove "
            "nothing: name pictures in which there is something, --pictures DIR, or lower the --threshold."
        )
    return {**_stated(rows, cases), "max_box_error_px": box, "max_score_error": score, "kept_equal": True}


def reduced(detector: Detector, rows: list[dict], cases: Sequence[Case], aps: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate of a file of reduced precision: what it finds itself, and AP before and after.

    Args:
        detector: the file.
        rows, cases: as those of `certified`.
        aps: "ap_before", "ap_after", "data".
    """
    expected_of(detector.detect, cases)
    return {**_stated(rows, cases), "tolerance": {"box_px": LOOSE_PX, "score": LOOSE_SCORE}, **aps}


def _stated(rows: list[dict], cases: Sequence[Case]) -> dict[str, Any]:
    sizes = list(dict.fromkeys(tuple(rows[row]["size"]) for case in cases for row in case.rows))
    return {
        "pictures": rows, "shapes": [list(size) for size in sizes],
        "batches": sorted({len(case.rows) for case in cases}),
        "cases": [{"pictures": case.rows, "expected": list(map(_listed, case.expected))} for case in cases],
        "tolerance": {"box_px": BOX_PX, "score": SCORE},
        "detections": sum(len(found) for case in cases for found in case.expected),
    }  # fmt: skip


def _listed(found: Detections) -> dict[str, list]:
    return {"boxes": _short(found.boxes), "scores": _short(found.scores), "classes": found.classes.tolist()}


def _short(values: np.ndarray) -> list:
    """float32 numbers with no more digits than they need."""
    return values.astype(str).astype(np.float64).tolist()


def _failure(name: str, picture: str, batch: int, found: Detections, expected: Detections, apart: Any) -> str:
    beside = " beside another" if batch > 1 else ""
    return (
        f"{name} does not find what the model finds: in {picture}{beside}, {len(found)} objects instead of "
        f"{len(expected)}, boxes up to {apart.box_px:.2g} pixels apart (allowed {BOX_PX:g}), scores up to "
        f"{apart.score:.2g} (allowed {SCORE:g}). Nothing was written; try another --format or --graph."
    )
