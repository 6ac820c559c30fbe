"""Pictures of what a trained model finds beside what is there."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode

from ..evaluation.scores import true_boxes
from ..visualize import Drawable, draw_comparison
from .trainer import LazyTrainer

__all__ = ["draw_samples"]


def draw_samples(trainer: LazyTrainer, dataset: str, path: Path, count: int, title: str) -> bool:
    """Draw ground truth beside detections for images of a registered data set, spread evenly over it.

    Args:
        trainer: holds the model and the config.
        dataset: name in Detectron2's catalog.
        path: PNG to write.
        count: images at most; those with objects are preferred.
    Returns:
        Whether there was an image to draw.
    """
    records = DatasetCatalog.get(dataset)
    records = [record for record in records if true_boxes(record)] or records
    step = max(1.0, len(records) / count)
    chosen = [records[int(i * step)] for i in range(min(count, len(records)))]
    if not chosen:
        return False
    mapper = instantiate(trainer.cfg.dataloader.test.mapper)
    model = getattr(trainer.model, "module", trainer.model)
    rows = []
    with nullcontext() if trainer.average is None else trainer.average.in_place():
        training = model.training
        model.eval()
        with torch.inference_mode():
            for record in chosen:
                found = model([mapper(copy.deepcopy(record))])[0]["instances"].to("cpu")
                truth = true_boxes(record)
                boxes = [BoxMode.convert(box["bbox"], box["bbox_mode"], BoxMode.XYXY_ABS) for box in truth]
                drawn = Drawable(boxes, [box["category_id"] for box in truth])
                rows.append((read_image(record["file_name"], "RGB"), drawn, found))
        model.train(training)
    draw_comparison(rows, trainer.class_names or [], path, title)
    return True
