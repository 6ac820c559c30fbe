"""AP of a file and of the detector that it was made of, on one data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from ..data import find_dataset, register
from ..data.coco import shortened
from ..errors import FcosError
from ..evaluation import FastCOCOEvaluator
from ..runtime import Detections, read_picture

__all__ = ["Measure"]

_PICTURES = 64  # that calibrate


class Measure:
    """A data set, opened for measuring: its val part has the objects, its train part calibrates.

    Args:
        data: as `fcos eval --data` takes it.
        class_names: of the detector.
    Raises:
        FcosError: it cannot be read, has no val part, or other classes.
    """

    def __init__(self, data: Path, class_names: list[str]) -> None:
        self.data = data
        names = register(find_dataset(data), f"export_{data.stem}", need=("val",), numbered=True)
        self.name = str(names.val)
        theirs = list(MetadataCatalog.get(self.name).thing_classes)
        if theirs != class_names:
            raise FcosError(
                f"The classes of {data} are {shortened(theirs)}, but those of the detector {shortened(class_names)}: "
                "name the data that it was trained for with --data."
            )
        self._rows = DatasetCatalog.get(self.name)
        self._train = DatasetCatalog.get(names.train) if names.train else self._rows

    def calibration(self) -> list[np.ndarray]:
        """Up to 64 pictures, spread over the train part."""
        step = max(len(self._train) // _PICTURES, 1)
        return [read_picture(row["file_name"]) for row in self._train[::step][:_PICTURES]]

    def ap(self, detect: Callable[[list[np.ndarray]], Iterable[Detections]], tell: Callable[[int], object]) -> float:
        """AP, 0..1, of what is detected in the val part."""
        evaluator = FastCOCOEvaluator(self.name, distributed=False)
        evaluator.reset()
        for done, row in enumerate(self._rows, start=1):
            picture = read_picture(row["file_name"])
            (found,) = detect([picture])
            evaluator.process([{"image_id": row["image_id"]}], [{"instances": _instances(found, picture)}])
            tell(done)
        return float(evaluator.evaluate()["bbox"]["AP"]) / 100

    def __len__(self) -> int:
        return len(self._rows)


def _instances(found: Detections, picture: np.ndarray) -> Any:
    return Instances(
        picture.shape[:2], pred_boxes=Boxes(torch.from_numpy(found.boxes)), scores=torch.from_numpy(found.scores),
        pred_classes=torch.from_numpy(found.classes),
    )  # fmt: skip
