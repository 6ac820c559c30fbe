"""Files that detect without this package: a graph of a detector, what it is, and the proof that it finds the same.

What may be changed here: formats, graphs, what a file says of itself, and how it is certified. How an ONNX file is run
and checked again is in `runtime.py`, which goes with it.
"""

from .job import Wanted, export
from .tracing import FORMATS

__all__ = ["FORMATS", "Wanted", "export"]
