"""A record of a selection: all that went in, and what came out. It replays, and tells what became of each candidate.

While `recording` lasts, a detector's selector is one that keeps what it is given. Otherwise nothing of this is there:
the detector runs the code that it always runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..errors import FcosError
from ..structures import Detections, Locations, Predictions
from .fates import Fates, fates_of
from .ltrb import LTRBCoder
from .meta_arch import FCOS, as_instances, as_reported
from .selector import Selector

__all__ = ["Record", "follows", "recording", "require_followed"]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Record:
    """One call of a selector, on the CPU.

    Attributes:
        predictions: maps of N images.
        selector, coder: what made detections of them; of a selector of another class there are no fates.
        image_sizes: (height, width) of each image before padding, pixels of the network input.
        found: what the selector gave.
        output_sizes: (height, width) of the original images.
        inclusive_far_corner, keep_empty: of the detector, see `FCOS`.
    """

    predictions: Predictions
    selector: Selector
    coder: LTRBCoder
    image_sizes: tuple[tuple[int, int], ...]
    found: Detections
    output_sizes: tuple[tuple[int, int], ...]
    inclusive_far_corner: bool = False
    keep_empty: bool = False

    @torch.inference_mode()
    def replay(self, **options: Any) -> Detections:
        """Select again, from what is recorded.

        Args:
            options: fields of `Selector` that shall be others than they were.
        Returns:
            Without options, on the CPU, to the bit what the detector found; else what it would have found.
        """
        selector = dataclasses.replace(self.selector, **options)
        return selector(self.predictions, self.coder, list(self.image_sizes))

    @cached_property
    def fates(self) -> Fates:
        """What became of every candidate."""
        return fates_of(self.selector, self.predictions, self.coder, self.image_sizes)

    @torch.inference_mode()
    def reported(self, found: Detections) -> list[Instances]:
        """Detections as the detector reports them: in pixels of the original images."""
        xy = self.predictions.locations.xy[found.location]
        boxes = dataclasses.replace(found, boxes=found.boxes.clone())
        in_each = as_instances(boxes, xy, self.image_sizes)
        return as_reported(in_each, self.output_sizes, self.inclusive_far_corner, self.keep_empty)


_REFUSED = "Only the selection of a one-stage FCOS can be explained, and this model has"


def follows(model: nn.Module) -> bool:
    """Whether it can be told what became of each candidate of a detector: of an `FCOS` with our selector."""
    return isinstance(model, FCOS) and isinstance(model.dense.selector, Selector)


def require_followed(model: nn.Module) -> None:
    """Raise FcosError unless a model `follows`."""
    if not follows(model):
        kind = type(model.dense.selector if isinstance(model, FCOS) else model).__name__
        raise FcosError(f"{_REFUSED} {kind}.")


@contextmanager
def recording(
    model: nn.Module, each: Callable[[Mapping[str, Any], Record, int], None] | None = None
) -> Iterator[list[Record]]:
    """Record what a detector selects while this lasts; its detections are the same.

    Args:
        model: an `FCOS`, with any selector, which is not training.
        each: called for each image, after the batch, with its input, the record that it is in and its place there;
            then the records are let go.
    Yields:
        The records so far, in order; always empty with `each`. A batch is one record, or one for each image where a
        batch-invariant detector takes them one by one.
    Raises:
        FcosError: the model is another one.
    """
    if not isinstance(model, FCOS):
        raise FcosError(f"{_REFUSED} {type(model).__name__}.")
    dense: Any = model.dense
    records: list[Record] = []
    own, waiting = dense.selector, _Recorder(dense.selector)

    def close(_: nn.Module, args: tuple, kwargs: Mapping[str, Any], output: Any) -> None:
        inputs = args[0] if args else kwargs["batched_inputs"]
        made = waiting.records(inputs, model.inclusive_far_corner, model.keep_empty)
        if each is None:
            records.extend(made)
            return
        places = [(record, place) for record in made for place in range(len(record.image_sizes))]
        for given, (record, place) in zip(inputs, places, strict=True):
            each(given, record, place)

    hook = model.register_forward_hook(close, with_kwargs=True)
    dense.selector = waiting
    try:
        yield records
    finally:
        dense.selector = own
        hook.remove()


class _Recorder:
    """A selector that keeps what it is given and what it gives."""

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self._calls: list[tuple[Predictions, LTRBCoder, tuple[tuple[int, int], ...], Detections]] = []

    def __call__(self, predictions: Predictions, coder: LTRBCoder, image_sizes: list[tuple[int, int]]) -> Detections:
        found = self.selector(predictions, coder, image_sizes)
        sizes = tuple((int(height), int(width)) for height, width in image_sizes)
        # A copy, for boxes are scaled in place afterwards.
        image, boxes, scores, classes, location = (
            x.to(CPU, copy=True) for x in (found.image, found.boxes, found.scores, found.classes, found.location)
        )
        kept = Detections(image, boxes, scores, classes, location)
        self._calls.append((_on_cpu(predictions), coder, sizes, kept))
        return found

    def records(self, inputs: Sequence[Mapping[str, Any]], inclusive: bool, keep_empty: bool) -> list[Record]:
        """The calls since the last time, for a batch of inputs."""
        made, start = [], 0
        for predictions, coder, sizes, found in self._calls:
            some = inputs[start : start + len(sizes)]
            start += len(sizes)
            outputs = tuple(
                (int(x.get("height", size[0])), int(x.get("width", size[1]))) for x, size in zip(some, sizes)
            )
            made.append(Record(predictions, self.selector, coder, sizes, found, outputs, inclusive, keep_empty))
        self._calls = []
        return made


def _on_cpu(predictions: Predictions) -> Predictions:
    where = predictions.locations
    locations = Locations(where.levels, where.xy.to(CPU), where.stride.to(CPU))

    def maps(some: list[Tensor]) -> list[Tensor]:
        return [x.detach().to(CPU, torch.float32) for x in some]

    return Predictions(maps(predictions.logits), maps(predictions.raw_ltrb), maps(predictions.quality), locations)
