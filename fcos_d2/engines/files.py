"""Exported files as engines: in onnxruntime or OpenVINO, without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FcosError
from ..runtime import Detections, Detector, RuntimeFault, calibrated, read_metadata, temperature_of

__all__ = ["FileEngine", "session_of", "session_with", "told_as_ours", "with_threshold"]


@contextmanager
def told_as_ours() -> Iterator[None]:
    """What the runtime says is wrong is said as the package says it."""
    try:
        yield
    except RuntimeFault as error:
        raise FcosError(str(error)) from error


class FileEngine:
    """See `Engine`.

    Args:
        name: "onnx" or "openvino".
        detector: in that engine.
    """

    def __init__(self, name: str, detector: Detector) -> None:
        self.name, self.detector, self.class_names = name, detector, detector.class_names
        self.thresholds = dict(zip(self.class_names, map(float, detector.metadata["thresholds"])))

    @classmethod
    def of(
        cls, path: str | Path, name: str, threads: int | None = None, threshold: Any = None,
        otherwise: float | None = None, calibrate: bool = False,
    ) -> FileEngine:  # fmt: skip
        """An exported file in an engine, by its name; see `session_with`."""
        session, metadata = session_with(path, name, threads, threshold, otherwise, calibrate)
        with told_as_ours():
            return cls(name, Detector(path, threads, session=session, metadata=metadata, calibrate=calibrate))

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        with told_as_ours():
            return self.detector.detect(pictures)


def session_of(path: str | Path, name: str, threads: int | None = None) -> tuple[Any, dict[str, Any]]:
    """An exported file in an engine, as `Detector` takes it (`None` for onnxruntime), and its metadata."""
    is_onnx = Path(path).suffix.lower() == ".onnx"
    if name == "openvino":
        from ..intel import OpenVinoSession

        session = OpenVinoSession(path, threads)
        return session, read_metadata(path) if is_onnx else session.metadata(str(path))
    if not is_onnx:
        raise FcosError(f"onnxruntime does not run {path}: use --engine openvino.")
    return None, read_metadata(path)


def session_with(
    path: str | Path, name: str, threads: int | None, threshold: Any, otherwise: float | None, calibrate: bool
) -> tuple[Any, dict[str, Any]]:
    """What `session_of` gives, with the thresholds that somebody asks for; they mean what they mean to a `Predictor`.

    Args:
        threshold: see `with_threshold`; of the scores that are reported.
        otherwise: threshold where neither the caller nor the file says one.
        calibrate: whether calibrated scores are reported.
    """
    with told_as_ours():
        session, metadata = session_of(path, name, threads)
        temperature = temperature_of(metadata, str(path)) if calibrate else None
        if not any(metadata["thresholds"]):
            metadata = with_threshold(metadata, otherwise, str(path))
        return session, with_threshold(metadata, threshold, str(path), temperature)


def with_threshold(
    metadata: Mapping[str, Any], threshold: Any, name: str, temperature: float | None = None
) -> dict[str, Any]:
    """The metadata of a file with other score thresholds.

    Args:
        threshold: score for all classes, or {class: score}, `None` being all others; `None` changes nothing.
        name: of the file.
        temperature: that the scores are calibrated by which the thresholds are of.
    Raises:
        FcosError: there is no such class; or the file holds boxes, and of none with such a score.
    """
    names, values = list(metadata["class_names"]), list(metadata["thresholds"])
    if threshold is None:
        return dict(metadata)
    given: Mapping[Any, Any] = threshold if isinstance(threshold, Mapping) else {None: threshold}
    for key in given:
        if key is not None and key not in names:
            raise FcosError(f"{name} has no class {key!r} to set a threshold for; it has {', '.join(names[:20])}.")
    told = {key: value if temperature is None else _raw(value, temperature) for key, value in given.items()}
    values = [float(told.get(key, told.get(None, value))) for key, value in zip(names, values)]
    select, least = dict(metadata["select"]), min(values, default=0.0)
    if metadata["graph"] == "raw":  # of which all boxes can be made
        select |= {"score_threshold": least, "threshold_on": "score"}
    elif select["threshold_on"] == "score" and least < select["score_threshold"]:
        raise FcosError(
            f"{name} holds the rule that scores are above {select['score_threshold']:g}, so a threshold of {least:g} "
            "shows no more: export it again with a lower one, or as --graph raw."
        )
    return {**metadata, "thresholds": values, "select": select}


def _raw(score: float, temperature: float) -> float:
    """The score before calibration."""
    return float(calibrated(np.array(score, np.float64), 1 / temperature))
