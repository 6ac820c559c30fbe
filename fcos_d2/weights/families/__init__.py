"""The table of families: whose checkpoints can be read and written.

What may be changed here: how one publisher names and lays out weights. How files are read and fitted is not.
"""

from __future__ import annotations

from collections.abc import Collection

from ...errors import FcosError
from ..rules import Rule
from .adelaidet import ADELAIDET
from .detectron2 import DETECTRON2
from .fad import FAD
from .family import Family
from .fcos import FCOS_CORE, FCOS_PLUS, HRNET_FCOS, VOVNET_FCOS
from .mmdet import MMDET
from .nas_fcos import NAS_FCOS
from .torchvision import TORCHVISION

_ROWS = (FCOS_CORE, FCOS_PLUS, ADELAIDET, MMDET, TORCHVISION, DETECTRON2, VOVNET_FCOS, HRNET_FCOS, NAS_FCOS, FAD)
FAMILIES: dict[str, Family] = {family.name: family for family in _ROWS}
_ALIASES = {"fcos": "fcos_core", "tianzhi": "fcos_core", "mmdetection": "mmdet"}
# This package's own checkpoints: every name stays.
OURS = Family("fcos_d2", "fcos_d2", (Rule("{*}", "{*}"),), "dense.head.")


def family_of(name: str) -> Family:
    """A row of `FAMILIES`, by its name or an alias; raises FcosError with the names if there is none."""
    found = FAMILIES.get(_ALIASES.get(name, name))
    if found is None:
        raise FcosError(f"There is no family {name!r} of checkpoints; choose one of: {', '.join(FAMILIES)}.")
    return found


def families_of(names: Collection[str]) -> tuple[Family, ...]:
    """The families whose names these are, several if they share them; `OURS` for our own checkpoints."""
    marked = tuple(f for f in (OURS, *_ROWS) if any(name.startswith(f.mark) for name in names))
    return marked[:1] if OURS in marked else marked
