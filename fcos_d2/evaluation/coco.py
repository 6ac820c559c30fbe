"""COCO's box metrics by hotcoco: pycocotools' numbers to the bit, in a fraction of its time and memory.

hotcoco is used where its numbers are known to be pycocotools': for boxes, COCO's own limits of detections, and data
sets whose numbering is sound. All else (masks, keypoints, other limits, odd data sets), and all of it where hotcoco is
not installed, is pycocotools' work. Detectron2's compiled `COCOeval_opt` is not used: its last bits differ.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from ..config.targets import target

__all__ = ["FastCOCOEvaluator", "evaluate_boxes"]

logger = logging.getLogger("fcos_d2")

_LIMIT = 100  # detections of an image that COCO's metrics look at
_LARGEST_ID = 2**53  # detections go to hotcoco as a table of float64
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_BOX_FIELDS = ("pred_boxes", "scores", "pred_classes")
_OTHER_TASKS = {"pred_masks": "segm", "pred_keypoints": "keypoints"}  # by the field that asks for them


@target("evaluator")
class FastCOCOEvaluator(DatasetEvaluator):
    """Detectron2's `COCOEvaluator`, its arguments and results, with the numbers of pycocotools whatever computes them.

    Boxes are kept as tensors and evaluated here where hotcoco knows how. For the rest there is a `COCOEvaluator`, made
    when a prediction first asks for it.

    Args:
        use_fast_impl: has no effect; the others are those of `COCOEvaluator`.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
    ) -> None:
        self.dataset_name, self.distributed, self.output_dir = dataset_name, distributed, output_dir
        self.tasks = None if tasks is None else tuple(tasks)
        self.max_dets_per_image, self.kpt_oks_sigmas = max_dets_per_image, kpt_oks_sigmas
        self.metadata = MetadataCatalog.get(dataset_name)
        self._boxes: list[tuple[Any, Instances]] = []
        self._others: COCOEvaluator | None = None
        if not hasattr(self.metadata, "json_file"):
            self._detectron2s()  # it converts the data set

    def reset(self) -> None:
        self._boxes, self._others = [], None

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Keep a model's outputs for some of its inputs: "instances" or "proposals"."""
        for given, output in zip(inputs, outputs):
            found = output.get("instances")
            asked = [task for name, task in _OTHER_TASKS.items() if found is not None and found.has(name)]
            if asked or "proposals" in output:
                if self._others is None:
                    tasks = asked if self.tasks is None else [task for task in self.tasks if task != "bbox"]
                    self._others = self._detectron2s(tuple(tasks))
                self._others.process([given], [output])
            if found is not None:
                fields = {name: found.get(name).to("cpu") for name in _BOX_FIELDS}
                self._boxes.append((given["image_id"], Instances(found.image_size, **fields)))

    def evaluate(self, img_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """The metrics of all predictions, or of those of some images, as `COCOEvaluator` gives them."""
        results: dict[str, Any] = OrderedDict()
        others = comm.all_gather(self._others is not None) if self.distributed else [self._others is not None]
        if any(others):
            self._others = self._others or self._detectron2s(())
            results.update(self._others.evaluate(img_ids))
        boxes = self._boxes
        if self.distributed:
            comm.synchronize()
            boxes = list(itertools.chain(*comm.gather(self._boxes, dst=0)))
            if not comm.is_main_process():
                return {}
        if not boxes:
            if not any(others):
                logger.warning("The evaluator of %s got no predictions.", self.dataset_name)
            return results
        if self.tasks is None or "bbox" in self.tasks:
            results.update(self._evaluate_boxes(boxes, img_ids))
        return OrderedDict(sorted(results.items()))

    def _evaluate_boxes(self, boxes: list[tuple[Any, Instances]], img_ids: Sequence[int] | None) -> dict[str, Any]:
        if self.max_dets_per_image in (None, _LIMIT) and _hotcoco() is not None:
            truth = json.loads(Path(PathManager.get_local_path(self.metadata.json_file)).read_text(encoding="utf-8"))
            detections = [{"image_id": i, "instances": instances_to_coco_json(x, i)} for i, x in boxes]
            rows = [dict(row) for x in detections for row in x["instances"]]
            if (known := self.metadata.get("thing_dataset_id_to_contiguous_id")) is not None:
                ids = {number: category for category, number in known.items()}
                for row in rows:  # the categories of the file instead of classes
                    number = row["category_id"]
                    assert number in ids, f"A prediction has class {number}, but the data set {len(ids)} classes."
                    row["category_id"] = ids[number]
            found = evaluate_boxes(truth, rows, img_ids) if rows and "annotations" in truth else None
            if found is not None:
                self._write(detections, rows)
                found.summarize()
                return {"bbox": self._derive(found)}
        evaluator = self._detectron2s(("bbox",), distributed=False)
        for image_id, instances in boxes:
            evaluator.process([{"image_id": image_id}], [{"instances": instances}])
        return evaluator.evaluate(img_ids)

    def _detectron2s(self, tasks: tuple[str, ...] | None = None, distributed: bool | None = None) -> COCOEvaluator:
        evaluator = COCOEvaluator(
            self.dataset_name, tasks, self.distributed if distributed is None else distributed, self.output_dir,
            max_dets_per_image=self.max_dets_per_image, use_fast_impl=False, kpt_oks_sigmas=self.kpt_oks_sigmas,
        )  # fmt: skip
        evaluator.reset()
        return evaluator

    def _write(self, detections: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
        """The two files that Detectron2's evaluator writes."""
        if self.output_dir and self._others is None:
            PathManager.mkdirs(self.output_dir)
            with PathManager.open(str(Path(self.output_dir) / "instances_predictions.pth"), "wb") as file:
                torch.save(detections, file)
            with PathManager.open(str(Path(self.output_dir) / "coco_instances_results.json"), "w") as file:
                file.write(json.dumps(rows))

    def _derive(self, found: Any) -> dict[str, float]:
        """Detectron2's names for COCO's numbers, and the AP of each class."""
        results = {name: float(x * 100 if x >= 0 else "nan") for name, x in zip(_METRICS, found.stats)}
        logger.info("Evaluation results for bbox:\n%s", create_small_table(results))
        names = self.metadata.get("thing_classes") or []
        if len(names) <= 1:
            return results
        precision = found.eval["precision"]  # IoU, recall, class, area range (0: all), limit of detections
        assert len(names) == precision.shape[2]
        per_class = {}
        for i, name in enumerate(names):
            known = precision[:, :, i, 0, -1]
            known = known[known > -1]
            per_class[name] = float((np.mean(known) if known.size else float("nan")) * 100)
        table = tabulate(per_class.items(), ("category", "AP"), "pipe", floatfmt=".3f")
        logger.info("Per-category bbox AP:\n%s", table)
        return results | {f"AP-{name}": ap for name, ap in per_class.items()}


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
    if hotcoco is None or (columns := _columns(truth, results)) is None:
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
def _hotcoco() -> Any:
    """The library, or None; says once which of the two evaluates."""
    try:
        import hotcoco
    except ImportError:
        logger.info("Boxes are evaluated by pycocotools; `pip install hotcoco` makes that faster.")
        return None
    logger.info("Boxes are evaluated by hotcoco %s, with the numbers of pycocotools.", hotcoco.__version__)
    return hotcoco


def _columns(truth: Mapping, results: Sequence[Mapping]) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """Ground truth and detections as arrays; None for what pycocotools treats in its own way or refuses.

    That is: odd or repeated ids, the annotation 0 ("no match"), other images, scores of NaN, and missing fields.
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
    """Whole numbers from 0 to 2^53, int64, else ValueError."""
    found = np.array(list(values))
    if not found.size:
        return np.zeros(0, np.int64)
    if found.dtype.kind not in "iu" or found.ndim != 1 or found.min() < 0 or found.max() > _LARGEST_ID:
        raise ValueError("not the ids that hotcoco knows")
    return found.astype(np.int64)
