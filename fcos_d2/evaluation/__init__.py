"""Evaluation: detections of a data set -> numbers.

What may be changed here: how detections are measured. Nothing here changes a detection.
"""

from .coco import FastCOCOEvaluator
from .evaluate import evaluate

__all__ = ["FastCOCOEvaluator", "evaluate"]
