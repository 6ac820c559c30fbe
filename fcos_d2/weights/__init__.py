"""Weights: files read safely, other projects' names, weights into a model with a report, files written.

What may be changed here: what is read and how names and numbers are settled. Nothing here trains or detects.
"""

from .convert import convert, export
from .families import FAMILIES
from .fit import Policy, fit
from .imagenet import load_backbone
from .published import Imported, load
from .read import Weights, read
from .report import Report
from .write import Checkpointer

__all__ = [
    "FAMILIES",
    "Checkpointer",
    "Imported",
    "Policy",
    "Report",
    "Weights",
    "convert",
    "export",
    "fit",
    "load",
    "load_backbone",
    "read",
]
