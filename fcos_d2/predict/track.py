"""Which detections of one frame are those of the frame before: ByteTrack, of the package `trackers`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from detectron2.structures import Instances

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

    def __call__(self, found: Instances) -> Instances:
        """The detections of the next frame with the field `track_ids`, a list of numbers; None for none yet."""
        rows = np.arange(len(found))
        given = self._detections(
            xyxy=found.pred_boxes.tensor.cpu().numpy().reshape(-1, 4), confidence=found.scores.cpu().numpy(),
            class_id=found.pred_classes.cpu().numpy(), data={"row": rows},
        )  # fmt: skip
        told = self._tracker.update(given)
        ids: list[int | None] = [None] * len(found)
        if len(told):
            for row, number in zip(told.data["row"].tolist(), told.tracker_id.tolist()):
                ids[row] = number + 1 if number >= 0 else None
        fields = {**found.get_fields(), "track_ids": ids}
        return Instances(found.image_size, **fields)
