"""`--minutes`: the model, the image size and the length of training that fit into a time on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from ..words import duration
from .advice import SMALLEST, cost
from .pace import Pace, measure
from .presets import LADDERS

if TYPE_CHECKING:
    from .plan import Plan, TrainingJob

__all__ = ["fit_to_time"]

_ENOUGH = 0.5  # share of a recipe's iterations with which a larger model or image is still the better choice
_EVALUATING = 0.2  # share of the time, at most
_RESERVE = 0.95  # of the time; the rest is for pictures, checkpoints and a machine that others use, too
_LEAST_ITERATIONS = 20
_SMALLER = (1.0, 0.8, 0.6)  # image sizes that are tried, in shares of the recipe's


def fit_to_time(job: TrainingJob, output: Path) -> Plan:
    """The plan of a job that asks for `minutes`, with the pace that decided.

    The fastest choice is measured first. Then, from the largest model and image on, the first is taken of which half of
    the recipe's iterations fit; what cannot fit by its multiply-adds is passed over without being tried. All processes
    must call it; raises as `TrainingJob.plan`.
    """
    seconds = 60.0 * (job.minutes or 0.0)
    *larger, fastest = _choices(replace(job, minutes=None, tell=None), output)
    plan = fastest.plan(output)
    pace = measure(plan.cfg)
    least = _ENOUGH * plan.cfg.train.max_iter
    for choice in larger:
        if _work(choice) * pace.step * least / (_work(fastest) or math.inf) > seconds:
            continue
        other = choice.plan(output)
        its = measure(other.cfg)
        if _fitting(its, seconds)[0] >= _ENOUGH * other.cfg.train.max_iter:
            fastest, plan, pace = choice, other, its
            break
    return _shortened(replace(fastest, tell=job.tell), plan, pace, seconds, output)


def _choices(job: TrainingJob, output: Path) -> Iterator[TrainingJob]:
    """What may be trained, the largest first and the fastest last; what the user names stays."""
    named = job.model or job.weights not in (None, "none")
    for model in [None] if named else LADDERS["cuda" if job.on_gpu() else "cpu"]:
        one = replace(job, model=model or job.model)
        plan = one.plan(output)
        one = replace(one, model=plan.model, opened=plan.data)
        if job.image_size is not None or plan.image_size is None:
            yield one
            continue
        sizes = [max(SMALLEST, 32 * round(share * plan.image_size / 32)) for share in _SMALLER]
        yield from (replace(one, image_size=size) for size in dict.fromkeys(sizes))


def _work(job: TrainingJob) -> float:
    """Multiply-adds of an image, to compare with."""
    return (cost(str(job.model)) or 1.0) * float(job.image_size or 1) ** 2


def _fitting(pace: Pace, seconds: float) -> tuple[int, int]:
    """Iterations and evaluations that fit into a time."""
    share = int(_EVALUATING * seconds / pace.evaluation) if pace.evaluation else 6
    evaluations = min(6, max(1, share))
    left = _RESERVE * seconds - evaluations * pace.evaluation
    return max(_LEAST_ITERATIONS, int(left / pace.step)), evaluations


def _shortened(job: TrainingJob, plan: Plan, pace: Pace, seconds: float, output: Path) -> Plan:
    """The plan with the iterations that fit, at most those of its recipe."""
    whole = plan.cfg.train.max_iter
    fitting, evaluations = _fitting(pace, seconds)
    iterations = min(whole, fitting)
    short = replace(job, iterations=iterations).plan(output)
    if not any(text.startswith("train.eval_period=") for text in job.overrides):
        period = math.ceil(iterations / evaluations)
        OmegaConf.update(short.cfg, "train.eval_period", period)
        OmegaConf.update(short.cfg, "train.checkpointer.period", period)
    size = f" at {plan.image_size} pixels" if plan.image_size else ""
    part = f"{iterations} of the recipe's {whole}" if iterations < whole else f"all {whole} of the recipe's"
    fits = f"{plan.model}{size}, {part} iterations, fits into {duration(seconds)}"
    if pace.seconds(short.cfg) > seconds:
        fits = f"Nothing fits into {duration(seconds)}; the fastest is {plan.model}{size}, {iterations} iterations"
    return replace(short, pace=pace, said=f"{fits}.")
