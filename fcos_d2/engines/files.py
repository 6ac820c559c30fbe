"""Exported files as engines: in onnxruntime or OpenVINO, without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FcosError
from ..runtime import Detections, Detector, RuntimeFault, read_metadata

__all__ = ["FileEngine", "session_of", "told_as_ours", "with_threshold"]


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
        otherwise: float | None = None,
    ) -> FileEngine:  # fmt: skip
        """An exported file in an engine, by its name; see `with_threshold`.

        Args:
            otherwise: threshold where neither the caller nor the file says one.
        """
        with told_as_ours():
            session, metadata = session_of(path, name, threads)
            if threshold is None and not any(metadata["thresholds"]):
                threshold = otherwise
            metadata = with_threshold(metadata, threshold, str(path))
            return cls(name, Detector(path, threads, session=session, metadata=metadata))

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        with told_as_ours():
            return self.detector.detect(pictures)


def session_of(path: str | Path, name: str, threads: int | None = None) -> tuple[Any, dict[str, Any]]:
    """An exported file in an engine, as `Detector` takes it (`None` for onnxruntime), and its metadata."""
    if name == "openvino":
        from ..intel import OpenVinoSession, metadata_of

        return OpenVinoSession(path, threads), metadata_of(path)
    if Path(path).suffix.lower() != ".onnx":
        raise FcosError(f"onnxruntime does not run {path}: use --engine openvino.")
    return None, read_metadata(path)


def with_threshold(metadata: Mapping[str, Any], threshold: Any, name: str) -> dict[str, Any]:
    """The metadata of a file with other score thresholds.

    Args:
        threshold: score for all classes, or {class: score}, `None` being all others; `None` changes nothing.
        name: of the file.
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
    values = [float(given.get(key, given.get(None, value))) for key, value in zip(names, values)]
    select, least = dict(metadata["select"]), min(values, default=0.0)
    if metadata["graph"] == "raw":  # of which all boxes can be made
        select |= {"score_threshold": least, "threshold_on": "score"}
    elif select["threshold_on"] == "score" and least < select["score_threshold"]:
        raise FcosError(
            f"{name} holds the rule that scores are above {select['score_threshold']:g}, so a threshold of {least:g} "
            "shows no more: export it again with a lower one, or as --graph raw."
        )
    return {**metadata, "thresholds": values, "select": select}
