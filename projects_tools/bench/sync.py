"""Where the host waits for a GPU, and why: counted without one, see `claimed_cuda.py`, or on one.

python -m projects_tools.bench --suite sync
python -m projects_tools.bench --suite sync --device cuda
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch.profiler import ProfilerActivity, profile, record_function

from fcos_d2.config.compose import compose
from fcos_d2.config.train_options import TrainOptions
from fcos_d2.modeling.rewrite import prepare_training
from fcos_d2.train.step import Step
from projects_tools.bench.claimed_cuda import CUDA, ClaimedCuda, Wait, asked_by
from projects_tools.bench.workload import Setting, image, truths

__all__ = ["Counted", "counted", "counted_on", "table"]

_REASONS = {
    ("train/step.py", "read"): "losses and norm of the gradient: what is not finite shall reach no weight; also logged",
    (
        "modeling/nms.py",
        "spread_nms",
    ): "the number of kept boxes of an image, which is the size of torchvision's result",
    ("modeling/reserved.py", "kept"): "how many tie with the last detection, where an image has more than are wanted",
    ("modeling/meta_arch.py", "with_area"): "whether any box of the batch has no area and is to be dropped",
}


@dataclass(frozen=True)
class Counted:
    """One place where the host waits.

    Attributes:
        work: of which it is a part.
        wait: file, function and operator.
        times: that it waits there.
        reason: why.
    """

    work: str
    wait: Wait
    times: int

    @property
    def reason(self) -> str:
        return _REASONS.get((self.wait.file, self.wait.function), "")


# Takes the function that sends a module to a device, and the device; returns one round of the work.
Work = Callable[[Callable[[Any], Any], torch.device], Callable[[], object]]


def _works() -> dict[str, Work]:
    return {
        "training step": _training(),
        "training step, fp16, two parts": _training(amp={"enabled": True, "dtype": "fp16"}, grad_accumulation=2),
        "detection, 1 image, recipe torchvision": _detection("torchvision", 1),
        "detection, 1 image, recipe detectron2": _detection("detectron2", 1),
        "detection, 1 image, recipe improved": _detection("improved", 1),
        "detection, 4 images, recipe detectron2": _detection("detectron2", 4),
    }


def counted() -> list[Counted]:
    """All waits of a training step and of detection, of the second time with images of a size."""
    found = []
    for name, work in _works().items():
        with ClaimedCuda() as device:
            run = work(device.take, CUDA)
            for _ in range(2):
                before = len(device.waits)
                run()
        found += [Counted(name, wait, times) for wait, times in Counter(device.waits[before:]).items()]
    return found


def counted_on(device: torch.device) -> tuple[list[Counted], dict[str, int]]:
    """The same on a GPU, of the third time with images of a size.

    Args:
        device: a CUDA device that is there.
    Returns:
        What PyTorch warns of (`torch.cuda.set_sync_debug_mode`), with the place that it comes from, and for each work
        how often the profiler sees the host wait for the device, whoever asked for it.
    """
    found, seen = [], {}
    for name, work in _works().items():
        run = work(lambda module: module.to(device), device)
        for _ in range(2):
            run()
        with _warned() as waits:
            run()
        found += [Counted(name, wait, times) for wait, times in Counter(waits).items()]
        seen[name] = _profiled(run)
    return found, seen


@contextmanager
def _warned() -> Iterator[list[Wait]]:
    """Within it the list gets a wait for each warning of PyTorch that the host waits."""
    waits: list[Wait] = []

    def note(message: Warning | str, *where: Any, **more: Any) -> None:
        if "synchroniz" in str(message):
            waits.append(asked_by(sys._getframe(1), ""))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _profiled(run: Callable[[], object]) -> int:
    """How often a run waits for the device, as the profiler sees it in CUDA's runtime."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        with record_function("a run"):
            run()
        torch.cuda.synchronize()
    events = seen.events()
    span = next(event.time_range for event in events if event.name == "a run")
    return sum(
        event.name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
        and span.start <= event.time_range.start <= span.end
        for event in events
    )


def _model(recipe: str) -> Any:
    torch.manual_seed(0)
    node = compose(recipe, "R_18_slim_FPN", "1x").model
    node.dense.head.update(num_class_convs=1, num_box_convs=1)  # none of four equal ones waits
    return instantiate(node)


def _inputs(batch: int) -> list[dict[str, Any]]:
    setting = Setting("train", batch, 128, 160, 7)
    found = []
    for i, truth in enumerate(truths(setting)):
        annotated = Instances((128, 160), gt_boxes=Boxes(truth.boxes), gt_classes=truth.classes)
        found.append({"image": image(setting, i), "instances": annotated, "height": 200, "width": 250})
    return found


def _training(**options: Any) -> Work:
    chosen = TrainOptions.of(options)

    def work(take: Callable[[Any], Any], device: torch.device) -> Callable[[], object]:
        model: Any = prepare_training(take(_model("improved")), device=device, amp=chosen.amp.enabled)
        step = Step(model, model, torch.optim.SGD(model.parameters(), 1e-3), chosen, device)
        inputs = _inputs(2)

        def run() -> None:
            step.gradients(inputs, asked=False).read(step.norm())
            step.apply(is_finite=True)

        return run

    return work


def _detection(recipe: str, batch: int) -> Work:
    def work(take: Callable[[Any], Any], device: torch.device) -> Callable[[], object]:
        model = _model(recipe).eval()
        # Without training no score is over the threshold.
        model.dense.selector = replace(model.dense.selector, score_threshold=1e-5)
        take(model)
        return torch.no_grad()(lambda: model(_inputs(batch)))

    return work


def table(found: Sequence[Counted]) -> str:
    """In Markdown."""
    lines = ["| work | waits | where | for |", "|---|---:|---|---|"]
    for x in found:
        lines.append(f"| {x.work} | {x.times} | `{x.wait.file}`, `{x.wait.function}` | {x.reason} |")
    return "\n".join(lines)
