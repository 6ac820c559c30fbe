"""Which detections of one frame are those of the frame before: ByteTrack, of the package `trackers`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import FcosError

__all__ = ["Tracks"]


class Tracks:
    """Numbers the objects of one video.

    An object gets its number, from 1, with the second frame in which it is seen, and keeps it while it is out of sight
    for up to a second (ByteTrack, arXiv:2110.06864).

    Args:
        rate: frames a second that will be given.
        threshold: least score of the detections; each may begin a track.

    Raises:
        FcosError: the package is missing.
    """

    def __init__(self, rate: float, threshold: float) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the library, about its next version
                import supervision
                from trackers import ByteTrackTracker
        except ImportError as error:
            raise FcosError(f"Tracks need the package trackers ({error}): pip install 'fcos_d2[track]'") from error
        self._detections: Any = supervision.Detections
        self._tracker: Any = ByteTrackTracker(
            frame_rate=rate, track_activation_threshold=threshold, high_conf_det_threshold=threshold
        )

    def __call__(self, found: Any) -> Any:
        """The detections of the next frame with `track_ids`, a list of numbers; None for none yet.

        Args:
            found: Detectron2's `Instances`, or `runtime.Detections`; what is returned is of the same kind.
        """
        fields = found.get_fields() if hasattr(found, "get_fields") else None
        if fields is None:
            return replace(found, track_ids=self._numbers(found.boxes, found.scores, found.classes))
        arrays = (fields["pred_boxes"].tensor, fields["scores"], fields["pred_classes"])
        numbers = self._numbers(*(x.cpu().numpy() for x in arrays))
        return type(found)(found.image_size, **{**fields, "track_ids": numbers})

    def _numbers(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> list[int | None]:
        rows = np.arange(len(scores))
        given = self._detections(xyxy=boxes.reshape(-1, 4), confidence=scores, class_id=classes, data={"row": rows})
        told = self._tracker.update(given)
        ids: list[int | None] = [None] * len(rows)
        if len(told):
            for row, number in zip(told.data["row"].tolist(), told.tracker_id.tolist()):
                ids[row] = number + 1 if number >= 0 else None
        return ids
