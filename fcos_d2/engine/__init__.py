"""Training, evaluation and prediction."""

from .checkpoint import Checkpointer
from .configuration import dump_config, load_config, parse_config
from .distributed import main_of_script, run
from .predictor import Predictor
from .trainer import LazyTrainer, TrainingInterrupted
from .yaml_trainer import YamlTrainer

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
