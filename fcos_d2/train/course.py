"""What training says of itself: a line for each log period, and one for each evaluation.

The numbers go into Detectron2's storage, so that all its writers have them: `images_per_second`, `memory_mib` and
`eta_seconds`, beside the losses and the learning rate.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase

from ..evaluation.speed import resident
from ..visualize.curves import loss_name
from ..words import duration, memory_size
from .hooks import EvaluationHook

__all__ = ["Course", "course_text", "evaluation_text", "memory_in_use"]

logger = logging.getLogger("fcos_d2")

_WINDOW = 20  # iterations that losses and times are the median of, as in Detectron2's writers
_KINDS = {"bbox", "box_proposals"}  # of results that are told
_SCORES = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "small", "APm": "medium", "APl": "large"}


class Course(HookBase):
    """Logs how a training goes, and tells it to `trainer.progress`, where there is one.

    That has `update(done, note, left, due)` and `say(text)`, as the command line's progress has.

    Args:
        period: iterations between lines.
    """

    def __init__(self, period: int) -> None:
        self.period = period
        self._note, self._line = "", -1  # the last line, and the iteration that it was of
        self._told = -1  # the iteration whose evaluation was told

    def before_train(self) -> None:
        self._told = self.trainer.evaluated

    def after_step(self) -> None:
        trainer, done, left = self.trainer, self.trainer.iter + 1, None
        due = self._line != done and (trainer.is_last or done % self.period == 0)
        if due:
            left, self._line = self._measure(), done
            self._note = course_text(trainer.storage)
            rest = f", {duration(left)} left" if left is not None and not trainer.is_last else ""
            logger.info("Iteration %d of %d%s: %s", done, trainer.max_iter, rest, self._note)
        progress = trainer.progress
        if trainer.evaluated not in (-1, self._told) and trainer.results:
            self._told = trainer.evaluated
            text = f"evaluation after iteration {self._told + 1}: {evaluation_text(trainer.results)}"
            logger.info("%s", text)
            if progress is not None:
                progress.say(text)
        if progress is not None:
            progress.update(done, self._note, left, due)

    def _measure(self) -> float | None:
        """Put the pace, memory and remaining time into the storage; returns the seconds that are left, if known."""
        trainer, storage = self.trainer, self.trainer.storage
        found: dict[str, float] = {}
        if (memory := memory_in_use(trainer.device)) is not None:
            found["memory_mib"] = memory / 2**20
        left = None
        if "time" in storage.latest():  # Detectron2's timer leaves the first iterations out
            seconds = storage.history("time").median(_WINDOW)
            if trainer.batch_size and seconds > 0:
                found["images_per_second"] = trainer.batch_size / seconds
            left = 0.0 if trainer.is_last else seconds * (trainer.max_iter - trainer.iter - 1) + self._evaluating()
            found["eta_seconds"] = left
        storage.put_scalars(**found, smoothing_hint=False)
        return left

    def _evaluating(self) -> float:
        """Seconds that the evaluations to come will take if each takes as long as the last one."""
        hook = next((hook for hook in self.trainer.all_hooks if isinstance(hook, EvaluationHook)), None)
        if hook is None:
            return 0.0
        last, done, period = self.trainer.max_iter, self.trainer.iter + 1, hook.period
        count = 1 if period == 0 else last // period - done // period + (last % period > 0)
        return hook.seconds * count


def course_text(storage: Any) -> str:
    """Losses, learning rate, AP, images/s and memory, as far as an `EventStorage` has them; AP from 0 to 1."""
    latest = {name: value for name, (value, _) in storage.latest().items()}
    losses = {name: storage.history(name).median(_WINDOW) for name in latest if "loss" in name and "/" not in name}
    total = losses.pop("total_loss", None)
    parts = ", ".join(f"{loss_name(name)} {value:.3f}" for name, value in losses.items())
    pieces = [parts if total is None else f"loss {total:.3f}{f' ({parts})' if parts else ''}"]
    if "lr" in latest:
        pieces.append(f"lr {latest['lr']:.3g}")
    for name in ("AP", "AP50"):
        if (key := next((key for key in latest if f"/{key}".endswith(f"/bbox/{name}")), None)) is not None:
            pieces.append(f"{name} {latest[key] / 100:.3f}")
    if (pace := latest.get("images_per_second")) is not None:
        pieces.append(f"{pace:.3g} images/s")
    if (memory := latest.get("memory_mib")) is not None:
        pieces.append(memory_size(memory * 2**20))
    return ", ".join(filter(None, pieces))


def evaluation_text(results: Mapping[str, Any]) -> str:
    """AP from 0 to 1, AP50, AP75 and AP by size in a line, with the names of the data sets where there are several.

    Args:
        results: of `evaluation.evaluate`, from 0 to 100. What is not a number is shown as "-".
    """
    if "box_proposals" in results and "bbox" not in results:
        found = {name: results["box_proposals"].get(name, math.nan) for name in ("AR@100", "AR@1000")}
        return _shown(found) or "no recall, for there is nothing to propose"
    if "bbox" not in results:
        named = {name: found for name, found in results.items() if isinstance(found, Mapping) and _KINDS & found.keys()}
        return "; ".join(f"{name}: {evaluation_text(found)}" for name, found in named.items()) or "no boxes"
    found = {name: results["bbox"].get(key, math.nan) for key, name in _SCORES.items()}
    return _shown(found) or "no AP, for nothing was found or nothing is there"


def _shown(found: Mapping[str, float]) -> str:
    """Numbers of 0 to 100 from 0 to 1 in a line; empty if none is known."""
    if not any(map(math.isfinite, found.values())):
        return ""
    shown = {name: f"{value / 100:.3f}" if math.isfinite(value) else "-" for name, value in found.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def memory_in_use(device: torch.device) -> int | None:
    """Bytes: on a GPU the most that PyTorch has used there, else what this process has in memory; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident("VmRSS") if Path("/proc/self/status").exists() else None
