"""Detectron2's `DefaultTrainer` for YAML configs, with this package's checkpoints and on any device."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer, HookBase, defaults
from detectron2.utils import comm

from ..config.stored import dump_config
from ..data.loader import pinned
from ..data.mapper import FastMapper
from ..data.stream import NamedMapper
from ..errors import FcosError
from ..evaluation.coco import FastCOCOEvaluator
from ..modeling.rewrite import prepare_training
from ..weights.fit import load_model
from ..weights.write import Checkpointer

__all__ = ["YamlTrainer"]


class YamlTrainer(DefaultTrainer):
    """`DefaultTrainer` that reads and evaluates fast, runs in several processes on the CPU, too, and checks weights."""

    def __init__(self, cfg: CfgNode) -> None:
        _check(cfg)
        with _ddp_for(cfg.MODEL.DEVICE):
            super().__init__(cfg)

    def build_hooks(self) -> list[HookBase | None]:
        extra = {"class_names": _class_names(self.cfg), "config": dump_config(self.cfg)}
        self.checkpointer = _checkpointer(self._trainer.model, self.cfg, extra, trainer=weakref.proxy(self))
        return super().build_hooks()

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint, or load `MODEL.WEIGHTS`; what does not fit the model is an error."""
        if resume and self.checkpointer.has_checkpoint():
            super().resume_or_load(resume=True)
        elif self.cfg.MODEL.WEIGHTS:
            load_model(self.model, self.cfg.MODEL.WEIGHTS, class_names=_class_names(self.cfg), allow_backbone=True)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        model = super().build_model(cfg)
        return prepare_training(model, device=cfg.MODEL.DEVICE, amp=False)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        return pinned(build_detection_train_loader(cfg, mapper=NamedMapper(FastMapper(cfg, True))))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return pinned(build_detection_test_loader(cfg, dataset_name, mapper=NamedMapper(FastMapper(cfg, False))))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> FastCOCOEvaluator:
        return FastCOCOEvaluator(dataset_name, output_dir=str(Path(cfg.OUTPUT_DIR) / "inference"))

    @classmethod
    def evaluate(cls, cfg: CfgNode, resume: bool = False) -> dict[str, Any]:
        """Evaluate `MODEL.WEIGHTS`, or the last checkpoint of `OUTPUT_DIR`.

        Raises:
            FcosError: there are no weights of a detector, or they do not fit.
        """
        _check(cfg)
        model = cls.build_model(cfg)
        last = _checkpointer(model, cfg, {})
        path = last.get_checkpoint_file() if resume and last.has_checkpoint() else cfg.MODEL.WEIGHTS
        if not path:
            raise FcosError("There are no weights to evaluate: pass MODEL.WEIGHTS FILE.")
        load_model(model, path, class_names=_class_names(cfg))
        return cls.test(cfg, model)


@contextmanager
def _ddp_for(device: str) -> Iterator[None]:
    """Let `DefaultTrainer` wrap a model on the CPU, where there is no device for each process."""
    wrap = defaults.create_ddp_model
    if device == "cpu":
        defaults.create_ddp_model = functools.partial(wrap, device_ids=None)
    try:
        yield
    finally:
        defaults.create_ddp_model = wrap


def _checkpointer(model: torch.nn.Module, cfg: CfgNode, extra: dict[str, Any], **checkpointables: Any) -> Checkpointer:
    return Checkpointer(model, cfg.OUTPUT_DIR, extra=extra, **checkpointables)


def _class_names(cfg: CfgNode) -> list[str] | None:
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if names := MetadataCatalog.get(name).get("thing_classes"):
            return list(names)
    return None


def _check(cfg: CfgNode) -> None:
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        raise FcosError("MODEL.DEVICE is 'cuda', but PyTorch finds no CUDA device here: pass MODEL.DEVICE cpu.")
    names = _class_names(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "FCOS" and names and len(names) != cfg.MODEL.FCOS.NUM_CLASSES:
        raise FcosError(
            f"The data set has {len(names)} classes, but the model {cfg.MODEL.FCOS.NUM_CLASSES}: pass "
            f"MODEL.FCOS.NUM_CLASSES {len(names)}."
        )
    if cfg.SOLVER.IMS_PER_BATCH % comm.get_world_size():
        raise FcosError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {comm.get_world_size()} processes cannot share."
        )
