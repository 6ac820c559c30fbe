"""One detector in several engines: PyTorch, onnxruntime, OpenVINO.

    engine = open_engine("exported/model.onnx")
    found = engine.detect([picture])[0]

What may be changed here: what runs a network, and how fast. What it finds is the same in each. A file that was exported
runs without PyTorch, which is imported for the engine "torch" alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import importer
from ..paths import is_exported

if TYPE_CHECKING:
    from .choice import Engine as Engine
    from .choice import open_engine as open_engine
    from .names import ENGINES as ENGINES

_HOMES = {"ENGINES": "names", "Engine": "choice", "open_engine": "choice"}

__all__ = ["ENGINES", "Engine", "is_exported", "open_engine"]

__getattr__ = importer(__name__, _HOMES)  # options are named before anything is computed
