"""Which engine runs a detector: the one that is named, or the one that turns out the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import FcosError
from ..paths import is_exported
from ..runtime import Detections, generated_picture
from .names import able, require_engine
from .speed import fastest

__all__ = ["Engine", "open_engine"]

_PICTURE = (600, 800)  # height and width of the one that engines are measured with


class Engine(Protocol):
    """A detector that is ready to run.

    Attributes:
        name: of `names.ENGINES`.
        class_names: of the detector.
        thresholds: least score of each class; 0 where only the detector's own rule counts.
    """

    name: str
    class_names: list[str]
    thresholds: dict[str, float]

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of each picture, (H, W, 3) uint8 RGB, in its pixels.

        Raises:
            FcosError: a picture cannot be used.
        """


def open_engine(
    weights: str | Path, name: str = "auto", threads: int | None = None, device: str | None = None,
    threshold: Any = None, calibrate: bool = False,
) -> Engine:  # fmt: skip
    """A detector in an engine.

    Args:
        weights: an exported file (.onnx, .xml), or what `Predictor` takes: a checkpoint, the name of a variant; for
            another engine than PyTorch that is exported in memory first.
        name: of `names.ENGINES`; "auto" runs those that can run it on one picture, and takes the fastest.
        threads: of one run; by default what the engine takes itself.
        device: of the engine "torch"; the others run on the CPU.
        threshold: score that is to be exceeded, or {class: score}; by default that of the file, else 0.5.
        calibrate: report calibrated scores, see `Predictor`.
    Raises:
        FcosError: there is no such file, or the engine does not run it; one sentence.
    """
    require_engine(name)
    names = able(weights) if name == "auto" else [name]
    made = _opened(weights, names, threads, device, threshold, calibrate)
    if len(made) == 1:
        return made[0]
    picture = generated_picture(0, *_PICTURE)
    best = fastest({engine.name: partial(engine.detect, [picture]) for engine in made})
    return next(engine for engine in made if engine.name == best)


def _opened(
    weights: str | Path, names: Sequence[str], threads: int | None, device: str | None, threshold: Any, calibrate: bool
) -> list[Engine]:
    if not is_exported(weights):
        from .plain import engines_of

        return engines_of(weights, names, threads, device, threshold, calibrate)
    if "torch" in names:
        raise FcosError(f"PyTorch does not run {weights}: use --engine onnx or openvino, or the checkpoint.")
    from .files import FileEngine

    return [FileEngine.of(weights, name, threads, threshold, 0.5, calibrate) for name in names]
