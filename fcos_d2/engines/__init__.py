"""One detector in several engines: PyTorch, onnxruntime, OpenVINO.

    engine = open_engine("exported/model.onnx")
    found = engine.detect([picture])[0]

What may be changed here: what runs a network, and how fast. What it finds is the same in each. A file that was exported
runs without PyTorch, which is imported for the engine "torch" alone.
"""

from __future__ import annotations

from ..paths import is_exported
from .choice import Engine, open_engine
from .names import ENGINES

__all__ = ["ENGINES", "Engine", "is_exported", "open_engine"]
