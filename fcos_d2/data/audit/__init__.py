"""What a careful colleague would find in a data set before training on it; nothing in it is changed.

`audit` looks at a data set on disk and returns what it found and what became of every annotation; `mend.write` makes a
copy in which that is put right; `page.write` shows it.

What may be changed here: what is looked for (a row of `kinds.KINDS`, and where it is told), and how it is shown.
"""

from __future__ import annotations

from .kinds import KINDS, Finding, Kind
from .reach import Rule
from .report import Audit, audit, brief

__all__ = ["KINDS", "Audit", "Finding", "Kind", "Rule", "audit", "brief"]
