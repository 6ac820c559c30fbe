"""What a config and its changes cost: multiply-adds for a picture of the size that a data set usually has."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import instantiate
from omegaconf import DictConfig

from ..data.audit.reach import Rule, input_sizes
from ..modeling.cost import cost
from .changes import Change, apply

__all__ = ["Prices"]

_FINER = 4.0  # times as many locations, where nothing can be counted


class Prices:
    """Prices of the changes of one config.

    Args:
        cfg: with `model` and `dataloader`.
        rule: of the config.
        frame: (1, 2) width and height of a picture.
    """

    def __init__(self, cfg: DictConfig, rule: Rule, frame: np.ndarray) -> None:
        self.cfg, self.rule, self.frame = cfg, rule, frame
        self._models: dict[bool, Any] = {}
        self._known: dict[Change, float] = {}

    def area(self, change: Change) -> float:
        """Pixels of the input."""
        return float(input_sizes(self.frame, change.of(self.rule)).prod())

    def __call__(self, change: Change) -> float:
        """About what levels and input size cost, to compare changes: counted once for each number of levels."""
        base = self.gflops(Change(finer=change.finer))
        base = (_FINER if change.finer else 1.0) if base is None else base
        return base * self.area(change) / self.area(Change())

    def gflops(self, change: Change) -> float | None:
        """1e9 multiply-adds of the convolutions; None for a detector that is not one of ours."""
        priced = Change(change.finer, change.image_size)
        if priced not in self._known:
            model = self._model(change.finer)
            if not hasattr(model, "dense") or not hasattr(model, "head_in_features"):
                return None
            width, height = input_sizes(self.frame, change.of(self.rule))[0].astype(int).tolist()
            self._known[priced] = cost(model, height, width).gflops
        return self._known[priced]

    def _model(self, finer: bool) -> Any:
        if finer not in self._models:
            self._models[finer] = instantiate(apply(self.cfg, Change(finer), self.rule).model)
        return self._models[finer]
