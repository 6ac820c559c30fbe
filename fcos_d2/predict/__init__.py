"""Prediction: any image -> detections in its pixels.

What may be changed here: how images reach a model and detections leave it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .predictor import Predictor as Predictor
    from .tta import DetectorWithTTA as DetectorWithTTA

_HOMES = {"DetectorWithTTA": "tta", "Predictor": "predictor"}

__all__ = ["DetectorWithTTA", "Predictor"]


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for: a job with an exported detector (`fcos_d2.engines`) needs no PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
