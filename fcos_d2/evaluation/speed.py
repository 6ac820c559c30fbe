"""How fast a detector is, what memory it needs, and whether two ways to run it find the same objects."""

from __future__ import annotations

import copy
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor, nn

__all__ = ["Difference", "Measured", "Times", "alternate", "compare", "image", "measure", "peak_memory"]

# A measured run lasts at least this long, in seconds; short work is repeated until it does.
_LEAST = 0.01

# "The same detections": boxes within so many pixels, scores within so much.
BOX_TOLERANCE, SCORE_TOLERANCE = 0.01, 1e-4


class Work(Protocol):
    """Something to time: `run`, with `before` called ahead of each run and not timed."""

    @property
    def run(self) -> Callable[[], Any]: ...

    @property
    def before(self) -> Callable[[], Any]: ...


@dataclass(frozen=True)
class Times:
    """Seconds of some work, one for each round.

    Attributes:
        seconds: in the order of the rounds, so that those of several works belong together.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The fastest and the slowest round."""
        return min(self.seconds), max(self.seconds)

    def ratio(self, other: Times) -> float:
        """How many times longer this took: the median of the ratios of neighbouring runs."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds))


def alternate(works: Sequence[Work], budget: float, most: int = 25) -> list[Times]:
    """Run works in turn, so that what disturbs the machine disturbs all of them.

    Args:
        works: already run once each, so that nothing is built for the first time here.
        budget: seconds to spend, roughly; three rounds are run in any case, two of works that take that long together.
        most: rounds of fast works.
    """
    seconds: list[list[float]] = [[_time(work, 1)] for work in works]
    spent = sum(found[0] for found in seconds)
    repeats = [1] * len(works)
    if spent < budget:  # else the first round counts, too
        repeats = [max(1, round(_LEAST / found[0])) for found in seconds]
        spent = sum(found[0] * count for found, count in zip(seconds, repeats))
        seconds = [[] for _ in works]
    rounds = 1 if seconds[0] else min(max(int(budget / spent), 3), most)
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what is there is not looked through again, so that collecting between the rounds costs nothing
    gc.disable()
    try:
        for _ in range(rounds):
            for found, work, count in zip(seconds, works, repeats):
                found.append(_time(work, count))
            gc.collect()
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return [Times(tuple(found)) for found in seconds]


def _time(work: Work, count: int) -> float:
    total = 0.0
    for _ in range(count):
        work.before()
        total += seconds_of(work.run)
    return total / count


def seconds_of(run: Callable[[], Any]) -> float:
    """How long one run takes; once CUDA is in use by events, from the first kernel's turn to the end of the last."""
    if not torch.cuda.is_initialized():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def peak_memory(run: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that a run needs above what is in use before it; its result counts.

    Returns:
        of PyTorch's allocator on CUDA, resident memory of this process on the CPU; None where the system does not tell.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)
        used = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - used
    if not Path("/proc/self/clear_refs").exists():
        return None
    reset_peak()
    before = resident("VmRSS")
    result = run()
    peak = resident("VmHWM")
    del result
    return max(peak - before, 0)


def reset_peak() -> None:
    """Let the highest resident memory start anew, with free memory given back, so that a run has to ask for it."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def image(height: int, width: int, index: int = 0) -> Tensor:
    """(3, H, W) float32 in 0..255: smooth noise of several scales, the same for the same index."""
    random = torch.Generator().manual_seed(100 + index)
    total = torch.zeros(1, 3, height, width)
    for scale in (4, 16, 64):
        size = (max(height // scale, 1), max(width // scale, 1))
        noise = torch.randn(1, 3, *size, generator=random)
        total += torch.nn.functional.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
    return (total[0] * 40 + 128).clamp(0, 255).round()


@dataclass(frozen=True)
class Difference:
    """Detections of one way to run a detector beside those of another.

    Attributes:
        total: detections of the first way.
        extra: detections that the other way has more or less.
        partners: those of the first way that overlap one of the same class in the other, IoU at least 0.5.
        box: largest difference of a coordinate between partners, pixels.
        score: largest difference of their scores.
    """

    total: int
    extra: int
    partners: int
    box: float
    score: float

    @property
    def equal(self) -> bool:
        same = self.total > 0 and self.extra == 0 and self.partners == self.total
        return same and self.box <= BOX_TOLERANCE and self.score <= SCORE_TOLERANCE


def compare(found: Sequence[Instances], others: Sequence[Instances]) -> Difference:
    """Compare detections of the same images."""
    total = partners = 0
    box = score = 0.0
    for one, other in zip(found, others):
        total += len(one)
        if len(one) == 0 or len(other) == 0:
            continue
        iou = pairwise_iou(Boxes(one.pred_boxes.tensor.float()), Boxes(other.pred_boxes.tensor.float()))
        iou = iou.masked_fill(one.pred_classes[:, None] != other.pred_classes[None], -1.0)
        best, row = iou.max(dim=1)
        near = best >= 0.5
        partners += int(near.sum())
        if near.any():
            row = row[near]
            box = max(box, float((one.pred_boxes.tensor[near] - other.pred_boxes.tensor[row]).abs().max()))
            score = max(score, float((one.scores[near] - other.scores[row]).abs().max()))
    extra = sum(abs(len(one) - len(other)) for one, other in zip(found, others))
    return Difference(total, extra, partners, box, score)


@dataclass(frozen=True)
class Measured:
    """One way to run a detector.

    Attributes:
        name: of the way.
        batch: images of a run.
        first: seconds of the first run, in which libraries load and weights are packed.
        times: of the runs after it.
        memory: bytes of one run above what is in use before it; None where the system does not tell.
    """

    name: str
    batch: int
    first: float
    times: Times
    memory: int | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data; times in milliseconds for one image, memory in bytes for one run."""
        fastest, slowest = (1e3 * seconds / self.batch for seconds in self.times.spread)
        return {
            "name": self.name,
            "ms_per_image": 1e3 * self.times.median / self.batch,
            "fastest_ms": fastest,
            "slowest_ms": slowest,
            "runs": len(self.times.seconds),
            "first_run_ms": 1e3 * self.first,
            "images_per_s": self.batch / self.times.median,
            "memory_bytes": self.memory,
        }


@dataclass
class _Inference:
    model: nn.Module
    inputs: list[dict[str, Any]]

    @torch.inference_mode()
    def run(self) -> list[dict[str, Any]]:
        return self.model(self.inputs)

    def before(self) -> None:
        """Nothing."""


def measure(
    ways: Mapping[str, nn.Module], inputs: list[dict[str, Any]], device: torch.device, seconds: float = 10.0
) -> list[Measured]:
    """Time several ways to run a detector, in turns.

    Args:
        ways: name -> model in evaluation mode on `device`.
        inputs: what the models take: {"image": (3, H, W) in 0..255} for each image.
        seconds: to spend, roughly, after the first run of each and the one whose memory is measured.
    """
    works = [_Inference(model, inputs) for model in ways.values()]
    first = [seconds_of(work.run) for work in works]
    memory = [peak_memory(work.run, device) for work in works]
    times = alternate(works, seconds)
    return [Measured(name, len(inputs), *row) for name, row in zip(ways, zip(first, times, memory))]


def finding(model: Any, inputs: list[dict[str, Any]], count: int = 20) -> Any:
    """The model, or, where it finds nothing, a copy that reports its best boxes whatever their scores, at most `count`.

    A model without weights finds nothing at its own threshold, and then two ways to run it would agree for no reason.
    """
    selector: Any = getattr(getattr(model, "dense", None), "selector", None)
    if any(len(x) for x in detections(model, inputs)) or not hasattr(selector, "score_threshold"):
        return model
    model = copy.deepcopy(model)
    model.dense.selector = replace(selector, score_threshold=1e-6, max_detections=count)
    return model


def detections(model: nn.Module, inputs: list[dict[str, Any]]) -> list[Instances]:
    """Detections of each image, on the CPU."""
    return [result["instances"].to("cpu") for result in _Inference(model, inputs).run()]
