"""yqyao/FCOS_PLUS: a fork of tianzhi0549/FCOS with the same names and the same frozen batch norms (epsilon 0)."""

from __future__ import annotations

from dataclasses import replace

from .fcos import FCOS_CORE

FCOS_PLUS = replace(
    FCOS_CORE,
    name="fcos_plus",
    source="yqyao/FCOS_PLUS",
    zoo="fcos_plus",
    activations=(("exp", "pixel"),),
    quality_on=("class",),
)
