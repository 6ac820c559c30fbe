"""Former place of training and prediction, kept for code that imports from here."""

from .config import dump_config, load_config, parse_config
from .predict import Predictor
from .train import LazyTrainer, TrainingInterrupted, YamlTrainer, main_of_script, run
from .weights import Checkpointer

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
