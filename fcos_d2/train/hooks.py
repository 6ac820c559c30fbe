"""What happens around the iterations of `LazyTrainer`: evaluation, checkpoints, averaged weights."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..config.train_options import CheckpointerOptions
from ..errors import FcosError

__all__ = ["EvaluationHook", "WeightAverage"]

logger = logging.getLogger("fcos_d2")


class WeightAverage:
    """Exponential moving average of a model's weights and buffers.

    The decay grows from 0.1 to its value, `min(decay, (1 + n) / (10 + n))` at update n, so that early averages are not
    dominated by the initial weights (TensorFlow's `ExponentialMovingAverage`). It is the share of the old average that
    stays, in [0, 1). The model is not wrapped.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise FcosError(f"train.ema.decay is {decay}; it must be at least 0 and less than 1, for example 0.9998.")
        self.model, self.decay = model, decay
        self.restart()

    def restart(self) -> None:
        """Begin with the present weights."""
        self.updates = 0
        self.weights: dict[str, Tensor] = {name: value.clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, values = [], []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                averages.append(self.weights[name])
                values.append(value)
            else:
                self.weights[name].copy_(value)
        get_ema_multi_avg_fn(decay)(averages, values, self.updates)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights until the block ends."""
        own = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        return self.weights

    def load_state_dict(self, weights: dict[str, Tensor]) -> None:
        for name, value in weights.items():
            self.weights[name].copy_(value)


NO_BETTER = "no better "  # how the reason begins why `EvaluationHook` ends training; checkpoints keep it


class EvaluationHook(HookBase):
    """Evaluates and writes checkpoints, keeps the best weights, and ends training that no longer improves.

    There is a model_<iteration>.pth from time to time and after evaluations, model_best.pth, and model_final.pth. A
    checkpoint is written before each evaluation, too, and says that this evaluation is pending; who resumes from it
    evaluates first. So an evaluation that fails loses nothing.

    Args:
        period: iterations between evaluations; 0: after the last one only.
        metric: that decides what is best, higher being better, e.g. "bbox/AP"; of several data sets, the first counts.
        patience: evaluations without a new best after which training ends; 0: never.
        checkpoints: iterations between them, and how many stay, model_final.pth included.
    """

    def __init__(self, period: int, metric: str, patience: int, checkpoints: CheckpointerOptions | None = None) -> None:
        self.period, self.metric, self.patience = period, metric, patience
        self.checkpoints = checkpoints or CheckpointerOptions()
        self.best: float | None = None
        self.best_iteration, self.since_best, self.pending = -1, 0, False
        self._evaluated = -1  # iteration
        self.seconds = 0.0  # that the last evaluation took

    def after_step(self) -> None:
        trainer, iteration = self.trainer, self.trainer.iter
        due = trainer.is_last or (self.period > 0 and (iteration + 1) % self.period == 0)
        if self.pending or (due and self._evaluated != iteration):
            self._evaluate(iteration)
        if trainer.is_last:
            trainer.save("model_final")
        elif (iteration + 1) % self.checkpoints.period == 0 or self._evaluated == iteration:
            trainer.save(f"model_{iteration:07d}")
        else:
            return
        self._remove_old(iteration)

    def _remove_old(self, iteration: int) -> None:
        """Remove this training's oldest checkpoints; the one before an evaluation that was the last has its twin."""
        written, most, last = self.trainer.state.written, self.checkpoints.max_to_keep, self.trainer.is_last
        old = {iteration} & written if last and (iteration + 1) % self.checkpoints.period else set()
        if most is not None:
            rest = sorted(written - old)
            old.update(rest[: max(0, len(rest) + last - most)])
        for number in old if comm.is_main_process() else ():
            (Path(self.trainer.output_dir) / f"model_{number:07d}.pth").unlink(missing_ok=True)
        written -= old

    def _evaluate(self, iteration: int) -> None:
        trainer = self.trainer
        if not self.pending:
            self.pending = True
            trainer.save("model_final" if trainer.is_last else f"model_{iteration:07d}")
        if trainer.progress is not None:
            trainer.progress.update(iteration + 1, "evaluating")
        started = time.monotonic()
        results = trainer.evaluate()
        self.seconds = time.monotonic() - started
        if comm.is_main_process() and results:
            flat = flatten_results_dict(results)
            value = self._compare(flat)
            flat = {key: number for key, number in flat.items() if math.isfinite(number)}
            trainer.storage.put_scalars(**{**flat, self.metric: value}, smoothing_hint=False)
        comm.synchronize()
        self.pending, self._evaluated = False, iteration
        if self.patience and comm.all_gather(self.since_best >= self.patience)[0]:
            trainer.stop(f"{NO_BETTER}{self.metric} in {self.patience} evaluations")

    def _compare(self, flat: dict[str, float]) -> float:
        """Keep the weights if they are the best; returns the metric, 0 if nothing was detected."""
        names = [name for name in flat if name == self.metric or name.endswith(f"/{self.metric}")]
        if not names:
            raise FcosError(f"train.best_metric is {self.metric!r}, but evaluation gives: {', '.join(flat)}.")
        value = flat[names[0]]
        value = float(value) if math.isfinite(value) else 0.0  # COCOEvaluator says NaN
        if (best := self.best) is not None and value <= best:
            self.since_best += 1
            shown = self.metric, self._shown(value), self._shown(best), self.best_iteration + 1
            logger.info("%s %s; the best is %s of iteration %d.", *shown)
        else:
            self.best, self.best_iteration, self.since_best = value, self.trainer.iter, 0
            self.trainer.save_best(value)
            logger.info("%s %s is the best so far: model_best.pth.", self.metric, self._shown(value))
        return value

    def _shown(self, value: float) -> str:
        """The metric in words: COCO's, which evaluators give in percent, from 0 to 1 as everywhere else."""
        return f"{value / 100 if self.metric.rpartition('/')[2].startswith(('AP', 'AR')) else value:.3f}"

    def state_dict(self) -> dict[str, Any]:
        return {key: vars(self)[key] for key in ("best", "best_iteration", "since_best", "pending")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update({key: state[key] for key in self.state_dict() if key in state})
