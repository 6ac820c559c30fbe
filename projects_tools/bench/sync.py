"""Where the host waits for a GPU: counted without one, see `claimed_cuda.py`, and why.

python -m projects_tools.bench --suite sync
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances

from fcos_d2.config.compose import compose
from fcos_d2.config.train_options import TrainOptions
from fcos_d2.modeling.rewrite import prepare_training
from fcos_d2.train.step import Step
from projects_tools.bench.claimed_cuda import CUDA, ClaimedCuda, Wait
from projects_tools.bench.workload import Setting, image, truths

__all__ = ["Counted", "counted", "table"]

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


def counted() -> list[Counted]:
    """All waits of a training step and of detection, of the second time with images of a size."""
    works = {
        "training step": _training(),
        "training step, fp16, two parts": _training(amp={"enabled": True, "dtype": "fp16"}, grad_accumulation=2),
        "detection, 1 image, recipe torchvision": _detection("torchvision", 1),
        "detection, 1 image, recipe detectron2": _detection("detectron2", 1),
        "detection, 1 image, recipe improved": _detection("improved", 1),
        "detection, 4 images, recipe detectron2": _detection("detectron2", 4),
    }
    return [Counted(work, wait, times) for work, waits in works.items() for wait, times in Counter(waits).items()]


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


def _training(**options: Any) -> list[Wait]:
    chosen = TrainOptions.of(options)
    with ClaimedCuda() as device:
        model: Any = prepare_training(device.take(_model("improved")), device=CUDA, amp=chosen.amp.enabled)
        step = Step(model, model, torch.optim.SGD(model.parameters(), 1e-3), chosen, CUDA)
        for _ in range(2):
            before = len(device.waits)
            step.gradients(_inputs(2), asked=False).read(step.norm())
            step.apply(is_finite=True)
    return device.waits[before:]


@torch.no_grad()
def _detection(recipe: str, batch: int) -> list[Wait]:
    model = _model(recipe).eval()
    # Without training no score is over the threshold.
    model.dense.selector = replace(model.dense.selector, score_threshold=1e-5)
    with ClaimedCuda() as device:
        device.take(model)
        for _ in range(2):
            before = len(device.waits)
            model(_inputs(batch))
    return device.waits[before:]


def table(found: Sequence[Counted]) -> str:
    """In Markdown."""
    lines = ["| work | waits | where | for |", "|---|---:|---|---|"]
    for x in found:
        lines.append(f"| {x.work} | {x.times} | `{x.wait.file}`, `{x.wait.function}` | {x.reason} |")
    return "\n".join(lines)
