"""The boxes of a data set -> what a detector can learn of them, before any training (arXiv:1904.01355, Sec. 4.1.1).

`read_objects` reads them, `assign` says what becomes of each under a `Rule`, `lost` why some are never learned, and
`search` looks for a rule under which more are. None of these imports PyTorch; what edits and prices configs does.

What may be changed here: what is counted, and what is suggested. What is assigned is the business of `modeling`.
"""

from __future__ import annotations

from ..data.audit.reach import Rule
from .assignment import Assignment, assign
from .objects import Objects, read_objects
from .reasons import LOST, Lost, lost
from .tables import paper_table, plain_assignment

__all__ = [
    "LOST", "Assignment", "Lost", "Objects", "Rule", "assign", "lost", "paper_table", "plain_assignment",
    "read_objects",
]  # fmt: skip
