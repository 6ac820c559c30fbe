"""Prediction: any image -> detections in its pixels.

What may be changed here: how images reach a model and detections leave it.
"""

from .predictor import Predictor
from .tta import DetectorWithTTA

__all__ = ["DetectorWithTTA", "Predictor"]
