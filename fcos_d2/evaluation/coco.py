"""COCO's box metrics by hotcoco: pycocotools' numbers to the bit, in a fraction of its time and memory.

hotcoco is used where its numbers are known to be pycocotools': for boxes, COCO's own limits of detections, and data
sets whose numbering is sound. All else (masks, keypoints, other limits, odd data sets), and all of it where hotcoco is
not installed, is pycocotools' work. Detectron2's compiled `COCOeval_opt` is not used: its last bits differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator, coco_evaluation
from pycocotools.cocoeval import COCOeval

from ..config.targets import target

__all__ = ["FastCOCOEvaluator", "evaluate_boxes"]

logger = logging.getLogger("fcos_d2")

_LIMITS = [1, 10, 100]  # detections of an image that COCO's metrics look at
_LARGEST_ID = 2**53  # detections go to hotcoco as a table of float64


@target("evaluator")
class FastCOCOEvaluator(COCOEvaluator):
    """Detectron2's evaluator, its arguments and results, with the numbers of pycocotools whatever computes them.

    `use_fast_impl` has no effect.
    """

    def _eval_predictions(self, predictions: list[dict[str, Any]], img_ids: Sequence[int] | None = None) -> None:
        with _boxes_by_hotcoco():
            super()._eval_predictions(predictions, img_ids=img_ids)


@contextmanager
def _boxes_by_hotcoco() -> Iterator[None]:
    """Let Detectron2's evaluator, which looks its own function up by name, come here first."""
    theirs = coco_evaluation._evaluate_predictions_on_coco
    coco_evaluation._evaluate_predictions_on_coco = partial(_evaluate, theirs)
    try:
        yield
    finally:
        coco_evaluation._evaluate_predictions_on_coco = theirs


def _evaluate(theirs: Callable, coco_gt: Any, coco_results: list[dict], iou_type: str, **options: Any) -> Any:
    limits = options.get("max_dets_per_image") or _LIMITS
    if iou_type == "bbox" and list(limits) == _LIMITS:
        found = evaluate_boxes(coco_gt.dataset, coco_results, options.get("img_ids"))
        if found is not None:
            found.summarize()
            return found
    if "use_fast_impl" in options:  # release 0.6
        options["use_fast_impl"] = False
    else:
        options["cocoeval_fn"] = COCOeval
    return theirs(coco_gt, coco_results, iou_type, **options)


def evaluate_boxes(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], img_ids: Sequence[int] | None = None
) -> Any:
    """Evaluate detections by hotcoco.

    Args:
        truth: COCO's JSON object: "images", "categories", "annotations".
        results: COCO's result format: "image_id", "category_id", "bbox" (xywh, pixels), "score".
        img_ids: of the images to look at; all by default.
    Returns:
        An object with `eval` and `summarize()`, then `stats`, as pycocotools' `COCOeval` has them after `accumulate`;
        `None` if hotcoco is not installed or might give other numbers for these data than pycocotools.
    """
    hotcoco = _hotcoco()
    columns = None if hotcoco is None else _columns(truth, results)
    if columns is None:
        return None
    truths, detections = columns
    gt = hotcoco.COCO.from_arrays(list(truth["images"]), list(truth["categories"]), **truths)
    found = hotcoco.COCOeval(gt, gt.load_res(detections), "bbox")
    if img_ids is not None:
        found.params.imgIds = [int(i) for i in img_ids]
    found.evaluate()
    found.accumulate()
    return found


@cache
def _hotcoco() -> ModuleType | None:
    """The library, or None; says once which of the two evaluates."""
    try:
        import hotcoco
    except ImportError:
        logger.info("Boxes are evaluated by pycocotools; `pip install hotcoco` makes that faster.")
        return None
    logger.info("Boxes are evaluated by hotcoco %s, with the numbers of pycocotools.", hotcoco.__version__)
    return hotcoco


def _columns(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """Ground truth and detections as arrays; None for what pycocotools treats in its own way or refuses.

    That is: ids that are no whole numbers or come twice, the annotation 0, which pycocotools takes for "no match",
    detections of other images, scores that are not numbers, and fields that are missing.
    """
    annotations = truth["annotations"]
    try:
        truths = {
            "image_ids": _ids(item["image_id"] for item in annotations),
            "category_ids": _ids(item["category_id"] for item in annotations),
            "boxes": np.array([item["bbox"] for item in annotations], np.float64).reshape(-1, 4),
            "ids": _ids(item["id"] for item in annotations),
            "area": np.array([item["area"] for item in annotations], np.float64),
            "iscrowd": np.array([bool(item["iscrowd"]) for item in annotations], bool),
        }
        images = _ids(item["id"] for item in truth["images"])
        categories = _ids(item["id"] for item in truth["categories"])
        image_ids = _ids(item["image_id"] for item in results)
        category_ids = _ids(item["category_id"] for item in results)
        boxes = np.array([item["bbox"] for item in results], np.float64).reshape(-1, 4)
        scores = np.array([item["score"] for item in results], np.float64)
    except (KeyError, TypeError, ValueError):
        return None
    unique = all(len(np.unique(ids)) == len(ids) for ids in (truths["ids"], images, categories))
    if not unique or (truths["ids"] == 0).any() or np.isnan(scores).any() or not np.isin(image_ids, images).all():
        return None
    return truths, np.column_stack((image_ids, boxes, scores, category_ids))


def _ids(values: Iterator[Any]) -> np.ndarray:
    """Whole numbers from 0 to 2^53, int64.

    Raises:
        ValueError: one of them is something else.
    """
    found = np.array(list(values))
    if not found.size:
        return np.zeros(0, np.int64)
    if found.dtype.kind not in "iu" or found.ndim != 1 or found.min() < 0 or found.max() > _LARGEST_ID:
        raise ValueError("not the ids that hotcoco knows")
    return found.astype(np.int64)
