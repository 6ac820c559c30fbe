"""Training: the loop, its state, its hooks, its processes, and a user's own data set.

What may be changed here: what happens between two iterations. What an iteration computes is the business of `modeling`.
"""

from .distributed import main_of_script, run
from .interrupt import TrainingInterrupted
from .trainer import LazyTrainer

__all__ = ["LazyTrainer", "TrainingInterrupted", "main_of_script", "run"]
