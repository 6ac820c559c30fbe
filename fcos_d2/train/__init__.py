"""Training: the loop, its state, its hooks, its processes, and a user's own data set.

What may be changed here: what happens between two iterations. What an iteration computes is the business of `modeling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import importer

if TYPE_CHECKING:
    from .distributed import main_of_script as main_of_script
    from .distributed import run as run
    from .interrupt import TrainingInterrupted as TrainingInterrupted
    from .job import configure as configure
    from .trainer import LazyTrainer as LazyTrainer

_HOMES = {
    "LazyTrainer": "trainer", "TrainingInterrupted": "interrupt", "configure": "job", "main_of_script": "distributed",
    "run": "distributed",
}  # fmt: skip

__all__ = ["LazyTrainer", "TrainingInterrupted", "configure", "main_of_script", "run"]

__getattr__ = importer(__name__, _HOMES)  # commands look at folders (`workspace`) before they wait for PyTorch
