"""COCO's box metrics by hotcoco: pycocotools' numbers to the bit, in a fraction of its time and memory.

hotcoco is used where its numbers are known to be pycocotools': for boxes, and data sets whose numbering is sound. All
else (masks, keypoints, odd data sets, what hotcoco refuses), and all of it where hotcoco is not installed, is
pycocotools' work. Detectron2's compiled `COCOeval_opt` is not used: its last bits differ.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import warnings
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
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from ..config.targets import target
from ..data.coco import read
from ..data.layout import Split
from ..errors import FcosError
from .matching import Found, Truth
from .proposals import Recall, best_first
from .scores import distinct

__all__ = ["FastCOCOEvaluator", "evaluate_any", "evaluate_boxes"]

logger = logging.getLogger("fcos_d2")

_LIMITS = (1, 10, 100)  # numbers of best detections of an image and class that COCO's metrics look at
_LARGEST_ID = 2**53  # detections go to hotcoco as a table of float64
_ALL = slice(None)
_METRICS = {  # Detectron2's names -> indices into COCO's ten IoU thresholds from 0.5 on, and four ranges of areas
    "AP": (_ALL, 0), "AP50": (0, 0), "AP75": (5, 0), "APs": (_ALL, 1), "APm": (_ALL, 2), "APl": (_ALL, 3),
}  # fmt: skip
_AREAS = ("all", "small", "medium", "large")
_BOX_FIELDS = ("pred_boxes", "scores", "pred_classes")
_OTHER_TASKS = {"pred_masks": "segm", "pred_keypoints": "keypoints"}  # by the field that asks for them


@target("evaluator")
class FastCOCOEvaluator(DatasetEvaluator):
    """Detectron2's `COCOEvaluator`, its arguments and results, with the numbers of pycocotools whatever computes them.

    Boxes are kept as tensors and evaluated here, by hotcoco where it knows how, and so are region proposals (see
    `Recall`). For the rest there is a `COCOEvaluator`, made when a prediction first asks for it. As Detectron2's,
    results are from 0 to 100.

    Args:
        max_dets_per_image: how many detections of an image and class count: all limits, such as [1, 10, 300], of which
            AP takes the largest, or the last of them, n for [1, 10, n]. The detector must be asked for as many, too.
        use_fast_impl: has no effect; the others are those of `COCOEvaluator`.
    Attributes:
        tables: detections and objects of the last evaluation, labels being class indices, in the first process; `None`
            where boxes were not evaluated.
        recall: of the proposals of the last evaluation, likewise.
    Raises:
        FcosError: a limit is not a whole number above 0.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | Sequence[int] | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
    ) -> None:
        self.dataset_name, self.distributed, self.output_dir = dataset_name, distributed, output_dir
        self.tasks = None if tasks is None else tuple(tasks)
        self.limits, self.kpt_oks_sigmas = _limits(max_dets_per_image), kpt_oks_sigmas
        self.metadata = MetadataCatalog.get(dataset_name)
        self._boxes: list[tuple[Any, Instances]] = []
        self._proposals: list[tuple[Any, torch.Tensor]] = []
        self._others: COCOEvaluator | None = None
        self.tables: tuple[Found, Truth] | None = None
        self.recall: Recall | None = None
        if not hasattr(self.metadata, "json_file"):
            self._detectron2s()  # it converts the data set

    def reset(self) -> None:
        self._boxes, self._proposals, self._others, self.tables, self.recall = [], [], None, None, None

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Keep a model's outputs for some of its inputs: "instances" or "proposals"."""
        for given, output in zip(inputs, outputs):
            found = output.get("instances")
            asked = [task for name, task in _OTHER_TASKS.items() if found is not None and found.has(name)]
            if "proposals" in output:
                self._proposals.append((given["image_id"], best_first(output["proposals"])))
            if asked:
                if self._others is None:
                    tasks = asked if self.tasks is None else [task for task in self.tasks if task != "bbox"]
                    self._others = self._detectron2s(tuple(tasks))
                self._others.process([given], [{"instances": found}])
            if found is not None:
                fields = {name: found.get(name).to("cpu") for name in _BOX_FIELDS}
                self._boxes.append((given["image_id"], Instances(found.image_size, **fields)))

    def evaluate(self, img_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """The metrics of all predictions, or of those of some images, as `COCOEvaluator` gives them: from 0 to 100.

        Raises:
            FcosError: the data set has fewer classes than the detector, or its annotations cannot be evaluated.
        """
        results: dict[str, Any] = OrderedDict()
        others = comm.all_gather(self._others is not None) if self.distributed else [self._others is not None]
        if any(others):
            self._others = self._others or self._detectron2s(())
            results.update(self._others.evaluate(img_ids))
        boxes, proposals = self._boxes, self._proposals
        if self.distributed:
            comm.synchronize()
            boxes, proposals = (list(itertools.chain(*comm.gather(x, dst=0))) for x in (boxes, proposals))
            if not comm.is_main_process():
                return {}
        if proposals:
            results.update(self._evaluate_proposals(proposals, img_ids))
        if not boxes:
            if not any(others) and not proposals:
                logger.warning("The evaluator of %s got no predictions.", self.dataset_name)
            return results
        if self.tasks is None or "bbox" in self.tasks:
            results.update(self._evaluate_boxes(boxes, img_ids))
        return OrderedDict(sorted(results.items()))

    def _truth(self) -> dict[str, Any]:
        """COCO's JSON object."""
        file = Path(PathManager.get_local_path(self.metadata.json_file))
        truth = read(Split(file, file.parent))
        if not isinstance(truth, dict):
            raise FcosError(f"{file} is not a COCO file: it holds a JSON {type(truth).__name__} instead of an object.")
        return truth

    def _evaluate_proposals(
        self, proposals: list[tuple[Any, torch.Tensor]], img_ids: Sequence[int] | None
    ) -> dict[str, Any]:
        truth = self._truth()
        if "annotations" not in truth:
            logger.info("%s has no annotations, so proposals are not evaluated.", self.dataset_name)
            return {}
        self.recall = Recall.of(proposals, truth["annotations"], img_ids)
        found = self.recall.metrics()
        logger.info("Recall of the proposals, from 0 to 100:\n%s", create_small_table(found))
        return {"box_proposals": found}

    def _evaluate_boxes(self, boxes: list[tuple[Any, Instances]], img_ids: Sequence[int] | None) -> dict[str, Any]:
        truth = self._truth()
        detections = [{"image_id": i, "instances": instances_to_coco_json(x, i)} for i, x in boxes]
        rows = [dict(row) for x in detections for row in x["instances"]]
        self.tables = self._tables(rows, truth)
        if (known := self.metadata.get("thing_dataset_id_to_contiguous_id")) is not None:
            ids = {number: category for category, number in known.items()}
            for row in rows:  # the categories of the file instead of classes
                if (number := row["category_id"]) not in ids:
                    raise FcosError(
                        f"The detector found class {number}, but the data set {self.dataset_name} has {len(ids)} "
                        "classes: evaluate it on data of the classes that it was trained for."
                    )
                row["category_id"] = ids[number]
        self._write(detections, rows)
        if "annotations" not in truth:
            logger.info("%s has no annotations, so detections are written and not evaluated.", self.dataset_name)
            return {}
        if not rows:
            logger.info("Nothing was detected in %s.", self.dataset_name)
            return {"bbox": dict.fromkeys(_METRICS, float("nan"))}
        found = evaluate_any(truth, rows, self.dataset_name, img_ids, self.limits)
        return {"bbox": self._derive(found.eval)}

    def _tables(self, rows: list[dict[str, Any]], truth: Mapping[str, Any]) -> tuple[Found, Truth] | None:
        """Detections and objects by class index; `None` for data that only pycocotools can make sense of."""
        known = self.metadata.get("thing_dataset_id_to_contiguous_id")
        try:
            images = {row["id"] for row in truth["images"]}
            listed = [row for row in truth["annotations"] if row["image_id"] in images]
            if known is not None:
                of_known = [row for row in listed if row["category_id"] in known]
                listed = [{**row, "category_id": known[row["category_id"]]} for row in of_known]
            return Found.of(rows), Truth.of(listed)
        except (KeyError, OverflowError, TypeError, ValueError):
            return None

    def _detectron2s(self, tasks: tuple[str, ...] | None = None) -> COCOEvaluator:
        evaluator = COCOEvaluator(
            self.dataset_name, tasks, self.distributed, self.output_dir,
            max_dets_per_image=None if self.limits == _LIMITS else self.limits[-1], use_fast_impl=False,
            kpt_oks_sigmas=self.kpt_oks_sigmas,
        )  # fmt: skip
        evaluator.reset()
        return evaluator

    def _write(self, detections: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
        """The two files that Detectron2's evaluator writes."""
        if self.output_dir and self._others is None:
            PathManager.mkdirs(self.output_dir)
            with PathManager.open(str(Path(self.output_dir) / "instances_predictions.pth"), "wb") as file:
                torch.save(detections, file)
            with PathManager.open(str(Path(self.output_dir) / "coco_instances_results.json"), "wb") as file:
                file.write(json.dumps(rows).encode())

    def _derive(self, curves: Mapping[str, Any]) -> dict[str, float]:
        """Detectron2's names for COCO's numbers, and the AP of each class; all by the largest limit of detections."""
        precision, recall = curves["precision"], curves["recall"]  # IoU, (recall,) class, area range, limit
        results = {name: 100 * _mean(precision[iou, ..., area, -1]) for name, (iou, area) in _METRICS.items()}
        for name, (_, area) in _METRICS.items():
            print(_line("Average Precision", "AP", name[2:4], _AREAS[area], self.limits[-1], results[name]))
        lines = [(i, 0) for i in range(len(self.limits))] + [(-1, area) for area in (1, 2, 3)]
        for limit, area in lines:
            found = 100 * _mean(recall[..., area, limit])
            print(_line("Average Recall", "AR", "", _AREAS[area], self.limits[limit], found))
        logger.info("Evaluation results for bbox, from 0 to 100:\n%s", create_small_table(results))
        names = self.metadata.get("thing_classes") or []
        if len(names) <= 1:
            return results
        if len(names) != (count := precision.shape[2]):
            raise FcosError(f"The data set {self.dataset_name} has {len(names)} classes, but {count} categories.")
        per_class = {name: 100 * _mean(precision[:, :, i, 0, -1]) for i, name in enumerate(distinct(names))}
        table = tabulate(per_class.items(), ("category", "AP"), "pipe", floatfmt=".3f")
        logger.info("Per-category bbox AP, from 0 to 100:\n%s", table)
        return results | {f"AP-{name}": ap for name, ap in per_class.items()}


def _mean(values: np.ndarray) -> float:
    """The mean of what is known, NaN if nothing is."""
    known = values[values > -1]
    return float(np.mean(known)) if known.size else float("nan")


def _line(title: str, short: str, iou: str, area: str, limit: int, percent: float) -> str:
    """A line of pycocotools' summary, in which -1 means that there is nothing of the kind."""
    share = -1.0 if np.isnan(percent) else percent / 100
    overlap = f"0.{iou}" if iou.isdigit() else "0.50:0.95"
    return f" {title:<18} ({short}) @[ IoU={overlap:<9} | area={area:>6} | maxDets={limit:>3} ] = {share:.3f}"


def _limits(given: int | Sequence[int] | None) -> tuple[int, ...]:
    """The limits of detections of an image, rising."""
    if given is None:
        return _LIMITS
    several = list(given) if isinstance(given, Sequence) else [*_LIMITS[:-1], given]
    if not several or not all(type(limit) is int and limit > 0 for limit in several):
        raise FcosError(f"max_dets_per_image is {given}; it must be a number above 0, or several such as [1, 10, 300].")
    return tuple(sorted(set(several)))


def evaluate_boxes(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    img_ids: Sequence[int] | None = None,
    limits: Sequence[int] = _LIMITS,
) -> Any:
    """Evaluate detections by hotcoco, which is given what the numbers depend on and nothing else.

    Args:
        truth: COCO's JSON object: "images", "categories", "annotations".
        results: COCO's result format: "image_id", "category_id", "bbox" (xywh, pixels), "score".
        img_ids: of the images to look at; all by default.
        limits: numbers of best detections of an image and class to look at.
    Returns:
        An object with `eval` and `summarize()`, then `stats`, as pycocotools' `COCOeval` has them after `accumulate`;
        `None` if hotcoco is not installed, refuses these data or might give other numbers for them than pycocotools.
    """
    hotcoco = _hotcoco()
    if hotcoco is None or (columns := _columns(truth, results)) is None:
        return None
    truths, detections = columns
    images = [{"id": int(row["id"])} for row in truth["images"]]
    categories = [{"id": int(row["id"]), "name": str(row["id"])} for row in truth["categories"]]
    try:
        gt = hotcoco.COCO.from_arrays(images, categories, **truths)
        found = hotcoco.COCOeval(gt, gt.load_res(detections), "bbox")
        found.params.maxDets = list(limits)
        if img_ids is not None:
            found.params.imgIds = [int(i) for i in img_ids]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "hotcoco: max_dets")  # of its summary, which is not printed
            found.evaluate()
        found.accumulate()
    except Exception as error:
        logger.warning("hotcoco refuses the data (%s), so pycocotools evaluates them.", error)
        return None
    return found


def evaluate_any(
    truth: Mapping[str, Any], results: list[dict[str, Any]], dataset: str, img_ids: Sequence[int] | None = None,
    limits: Sequence[int] = _LIMITS,
) -> Any:  # fmt: skip
    """`evaluate_boxes`, and by pycocotools where that returns none.

    Args:
        dataset: name of the data set, for the error.
    Raises:
        FcosError: the annotations cannot be evaluated.
    """
    found = evaluate_boxes(truth, results, img_ids, limits)
    if found is not None:
        return found
    try:
        return _by_pycocotools(truth, results, img_ids, limits)
    except Exception as error:  # anything, down to OverflowError
        raise FcosError(
            f"The annotations of the data set {dataset} cannot be evaluated "
            f"({type(error).__name__}: {str(error)[:200]}): register them with fcos_d2.data.register_coco, "
            "which mends what can be mended."
        ) from error


def _by_pycocotools(
    truth: Mapping[str, Any], results: list[dict[str, Any]], img_ids: Sequence[int] | None, limits: Sequence[int]
) -> COCOeval:
    """The same by pycocotools, for all that COCO's format allows."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {"info": {}, **{key: truth[key] for key in ("images", "categories", "annotations")}}
        gt.createIndex()
        found = COCOeval(gt, gt.loadRes(results), "bbox")
        found.params.maxDets = list(limits)
        if img_ids is not None:
            found.params.imgIds = list(img_ids)
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
    except (KeyError, OverflowError, TypeError, ValueError):
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
