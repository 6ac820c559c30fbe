"""How a trainer gets model, optimizer, data and evaluators from a config: `DefaultTrainer`'s extension points.

The methods are given the config that the trainer was given, a LazyConfig or one with Detectron2's yacs keys.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.engine import HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config.stored import Config, dump_config
from ..config.train_options import TrainOptions
from ..config.translate import dataloader_of_yacs, lr_multiplier_of_yacs, optimizer_of_yacs, train_of_yacs
from ..errors import FcosError
from ..evaluation.evaluate import (
    build_evaluator,
    build_loader,
    build_test_loader,
    check_evaluation,
    evaluate,
    test_sets,
)
from ..files import write_atomically
from .course import Course
from .gallery import Gallery
from .hooks import EvaluationHook
from .loggers import loggers, tensorboard
from .settings import switches

__all__ = ["BuildingTrainer", "in_folder", "options_of", "store_config"]

logger = logging.getLogger("fcos_d2")


class BuildingTrainer(TrainerBase):
    """The `build_*` methods of Detectron2's `DefaultTrainer`, and `test`; `trainer.test()` evaluates its own model."""

    def __init__(self) -> None:
        super().__init__()
        test = self.test
        self.test = lambda *given, **options: test(*given, **options) if given or options else self.evaluate()

    def build_hooks(self) -> list[HookBase]:
        """The usual hooks; the last one writes what the others have put into the storage."""
        options = self.options
        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(self.optimizer, self.scheduler),
            *([hooks.CallbackHook(after_step=lambda trainer: trainer.average.update())] if self.average else []),
            EvaluationHook(options.eval_period, options.best_metric, options.early_stop.patience, options.checkpointer),
            Course(options.log_period),
            hooks.PeriodicWriter(self.build_writers(), period=options.log_period),
        ]

    def build_writers(self) -> list[EventWriter]:
        """metrics.json, TensorBoard where it is installed, pictures, and what `train.loggers` names.

        None in processes other than the first.
        """
        if not comm.is_main_process():
            return []
        writers: list[EventWriter] = [JSONWriter(str(Path(self.output_dir) / "metrics.json"))]
        writers += tensorboard(self.output_dir)
        if self.options.pictures:
            writers.append(Gallery(self))
        writers += loggers(self)  # which take the pictures along
        return writers

    @classmethod
    def build_model(cls, cfg: Config) -> nn.Module:
        return build_model(cfg) if isinstance(cfg, CfgNode) else instantiate(cfg.model)

    @classmethod
    def build_optimizer(cls, cfg: Config, model: nn.Module) -> torch.optim.Optimizer:
        node = optimizer_of_yacs(cfg) if isinstance(cfg, CfgNode) else copy.deepcopy(cfg.optimizer)
        node.params.model = model
        return instantiate(node)

    @classmethod
    def build_lr_scheduler(cls, cfg: Config, optimizer: torch.optim.Optimizer) -> Any:
        """A `ParamScheduler`, which multiplies the optimizer's rates; one of PyTorch's schedulers will do, too."""
        return instantiate(lr_multiplier_of_yacs(cfg) if isinstance(cfg, CfgNode) else cfg.lr_multiplier)

    @classmethod
    def build_train_loader(cls, cfg: Config) -> Any:
        if (node := OmegaConf.select(_data(cfg), "dataloader.train")) is None:
            raise FcosError("The config has no dataloader.train, so there is nothing to train on.")
        return build_loader(node)

    @classmethod
    def build_test_loader(cls, cfg: Config, dataset_name: str | None) -> Any:
        return build_test_loader(_data(cfg), dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: Config, dataset_name: str | None) -> Any:
        return build_evaluator(_data(cfg), dataset_name)

    def _test(
        cls: type[BuildingTrainer], cfg: Config, model: nn.Module,
        evaluators: Sequence[DatasetEvaluator] | DatasetEvaluator | None = None,
        done: Callable[[Any], Any] = lambda evaluator: None,
    ) -> dict[str, Any]:  # fmt: skip
        """Evaluate a model on the test sets of a config, see `evaluation.evaluate`."""
        loader, evaluator = functools.partial(cls.build_test_loader, cfg), functools.partial(cls.build_evaluator, cfg)
        with switches(options_of(cfg)):
            return evaluate(model, test_sets(_data(cfg)), loader, evaluator, evaluators, done)

    test: Any = classmethod(_test)

    @property
    def tests_as_usual(self) -> bool:
        """Whether no subclass evaluates in a way of its own."""
        return getattr(type(self).test, "__func__", None) is BuildingTrainer._test

    def check_evaluation(self, cfg: Config) -> None:
        """Raise FcosError if `test` would fail on a config's data: before training, not after it."""
        make = type(self)
        if self.tests_as_usual:  # who evaluates otherwise may need other data
            loader, evaluator = (functools.partial(f, cfg) for f in (make.build_test_loader, make.build_evaluator))
            check_evaluation(test_sets(_data(cfg)), loader, evaluator, self.class_names)


def options_of(cfg: Config) -> TrainOptions:
    """What a config says about training, checked."""
    return TrainOptions.of(train_of_yacs(cfg) if isinstance(cfg, CfgNode) else cfg.get("train", {}))


def in_folder(cfg: Config, folder: str) -> Config:
    """A copy of a config with another output folder."""
    cfg = copy.deepcopy(cfg)
    if isinstance(cfg, CfgNode):
        cfg.defrost()
        cfg.OUTPUT_DIR = folder
    else:
        OmegaConf.update(cfg, "train.output_dir", folder)
    return cfg


def _data(cfg: Config) -> DictConfig:
    if not isinstance(cfg, CfgNode):
        return cfg
    nodes = dataloader_of_yacs(cfg)
    nodes.evaluator.output_dir = str(Path(cfg.OUTPUT_DIR) / "inference")
    return DictConfig({"dataloader": nodes}, flags={"allow_objects": True})


def store_config(cfg: Config, folder: str) -> str | None:
    """The text that checkpoints hold; the first process writes it to config.yaml in a folder. None if there is none."""
    try:
        text = dump_config(cfg)
    except FcosError as error:
        logger.warning("%s Checkpoints will hold no config: predictions will need the config file.", error)
        return None
    if folder and comm.is_main_process():
        write_atomically(Path(folder) / "config.yaml", lambda file: file.write(text.encode()))
    return text
