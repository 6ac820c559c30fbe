"""The report: a detector and a data set -> one page that says what the detector does there, and the same as JSON.

What may be changed here: what is said, shown and in which order. What a section tells is computed in a room below.
"""

from .make import make_report
from .sections import SECTIONS

__all__ = ["SECTIONS", "make_report"]
