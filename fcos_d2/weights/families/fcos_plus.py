"""yqyao/FCOS_PLUS: a fork of tianzhi0549/FCOS with the same names and the same frozen batch norms (epsilon 0)."""

from __future__ import annotations

from dataclasses import replace

from .fcos import ORIGINAL

FCOS_PLUS = replace(ORIGINAL, name="fcos_plus", source="yqyao/FCOS_PLUS", zoo="fcos_plus")
