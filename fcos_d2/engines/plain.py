"""Checkpoints as engines: PyTorch's own detector, optimized where that changes nothing; or exported in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..predict.arrays import as_arrays
from ..predict.predictor import Predictor
from ..runtime import Detections, Detector
from .files import FileEngine
from .inside import exported_bytes, session_in

__all__ = ["TorchEngine", "engines_of"]


class TorchEngine:
    """What a predictor finds; see `Engine`."""

    name = "torch"

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.class_names = predictor, predictor.class_names
        self.thresholds = dict(zip(self.class_names, predictor.least))

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        found = self.predictor.predict(pictures, max(len(pictures), 1), "RGB")
        return [as_arrays(result["instances"]) for result in found]


def engines_of(
    weights: str | Path, names: Sequence[str], threads: int | None, device: str | None, threshold: Any,
    calibrate: bool = False,
) -> list[Any]:  # fmt: skip
    """A checkpoint or a variant in each of the named engines, exported once; `fcos_d2.register()` has been called.

    Args:
        threads: of one run; of PyTorch, in the whole process.
        device: of PyTorch; the others run on the CPU.
        threshold, calibrate: see `Predictor`; 0.5 where neither it nor the weights say a threshold.
    """
    on = device if list(names) == ["torch"] else "cpu"
    predictor = Predictor(weights, device=on, score_threshold=threshold, otherwise=0.5, calibrate=calibrate)
    made: list[Any] = []
    if others := [name for name in names if name != "torch"]:
        data, metadata = exported_bytes(predictor, str(weights), None)
        metadata["thresholds"] = list(predictor.least)
        for name in others:
            session = session_in(name, data, threads)
            made.append(FileEngine(name, Detector(weights, session=session, metadata=metadata, calibrate=calibrate)))
    if "torch" not in names:
        return made
    if threads:
        torch.set_num_threads(threads)
    model: Any = predictor.model
    if hasattr(model, "optimize"):
        predictor.model = model.optimize()
    return [TorchEngine(predictor), *made]
