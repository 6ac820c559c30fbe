"""How fast a detector is, what memory it needs, and whether two ways to run it find the same objects."""

from __future__ import annotations

import copy
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import nn

BOX_TOLERANCE, SCORE_TOLERANCE = 0.01, 1e-4  # of the same detections: pixels, and score


def measure(
    ways: Mapping[str, nn.Module], inputs: list[dict[str, Any]], device: torch.device, seconds: float = 10.0
) -> list[dict[str, Any]]:
    """Time several ways to run a detector in turns, so that what disturbs the machine disturbs all of them.

    Args:
        ways: name -> model in evaluation mode on `device`.
        inputs: {"image": (3, H, W) in 0..255} for each image of the batch.
        seconds: to spend, roughly; three rounds are run in any case.
    Returns:
        For each way milliseconds for one image (median, fastest, slowest, first run) and images per second, how many
        times faster it is than the first way, and the bytes that a run needs above what is in use before it.
    """
    runs = [torch.inference_mode()(lambda model=model: model(inputs)) for model in ways.values()]
    first = [seconds_of(run) for run in runs]
    memory = [peak_memory(run, device) for run in runs]
    rounds = [[seconds_of(run) for run in runs]]
    rounds += [[seconds_of(run) for run in runs] for _ in range(min(max(int(seconds / sum(rounds[0])), 3), 100) - 1)]
    found, per_image = [], 1e3 / len(inputs)
    for i, name in enumerate(ways):
        times = sorted(row[i] for row in rounds)
        median = statistics.median(times)
        found.append({
            "name": name, "ms_per_image": median * per_image, "fastest_ms": times[0] * per_image,
            "slowest_ms": times[-1] * per_image, "first_run_ms": first[i] * per_image, "runs": len(times),
            "images_per_s": len(inputs) / median, "memory_bytes": memory[i],
            "speed_up": statistics.median(row[0] / row[i] for row in rounds),
        })  # fmt: skip
    return found


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
    """Bytes that a run and its result need above what is in use before; None where the system does not tell.

    On CUDA those of PyTorch's allocator, on the CPU the resident memory of this process.
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
    before, result = resident("VmRSS"), run()
    peak = resident("VmHWM")
    del result
    return max(peak - before, 0)


def give_back() -> None:
    """Return free memory of this process to the system."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)  # of glibc


def reset_peak() -> None:
    """Let the highest resident memory start anew, with free memory given back, so that a run has to ask for it."""
    give_back()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def resident(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


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


@torch.inference_mode()
def detections(model: nn.Module, inputs: list[dict[str, Any]]) -> list[Instances]:
    """Detections of each image, on the CPU."""
    return [result["instances"].to("cpu") for result in model(inputs)]


def difference(found: Sequence[Instances], others: Sequence[Instances]) -> dict[str, Any]:
    """Compare two ways' detections of the same images.

    Returns:
        `total` of the first way; `partners`, those that overlap one of their class in the other (IoU at least 0.5);
        the largest difference of `box` coordinates (pixels) and `score` between partners; and whether all is `equal`.
    """
    total, partners, box, score = sum(map(len, found)), 0, 0.0, 0.0
    for one, other in zip(found, others):
        if len(one) == 0 or len(other) == 0:
            continue
        iou = pairwise_iou(Boxes(one.pred_boxes.tensor.float()), Boxes(other.pred_boxes.tensor.float()))
        best, row = iou.masked_fill(one.pred_classes[:, None] != other.pred_classes[None], -1.0).max(dim=1)
        near = best >= 0.5
        if near.any():
            partners, row = partners + int(near.sum()), row[near]
            box = max(box, float((one.pred_boxes.tensor[near] - other.pred_boxes.tensor[row]).abs().max()))
            score = max(score, float((one.scores[near] - other.scores[row]).abs().max()))
    equal = 0 < total == partners and [len(x) for x in found] == [len(x) for x in others]
    equal = equal and box <= BOX_TOLERANCE and score <= SCORE_TOLERANCE
    return {"total": total, "partners": partners, "box": box, "score": score, "equal": equal}
