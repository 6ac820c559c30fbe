"""Former place of training and prediction, kept for code that imports from here."""

from .config import dump_config, load_config, parse_config
from .predict import Predictor
from .train import LazyTrainer, TrainingInterrupted, main_of_script, run
from .weights import Checkpointer

YamlTrainer = LazyTrainer  # one trainer for both systems of configs

__all__ = [
    "Checkpointer",
    "LazyTrainer",
    "Predictor",
    "TrainingInterrupted",
    "YamlTrainer",
    "dump_config",
    "load_config",
    "main_of_script",
    "parse_config",
    "run",
]
