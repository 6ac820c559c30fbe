"""Prediction: any image -> detections in its pixels.

What may be changed here: how images reach a model and detections leave it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import importer

if TYPE_CHECKING:
    from .predictor import Predictor as Predictor
    from .tta import DetectorWithTTA as DetectorWithTTA

_HOMES = {"DetectorWithTTA": "tta", "Predictor": "predictor"}

__all__ = ["DetectorWithTTA", "Predictor"]

__getattr__ = importer(__name__, _HOMES)  # a job with an exported detector (`fcos_d2.engines`) needs no PyTorch
