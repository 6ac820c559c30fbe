"""The published variants: data only.

What may be changed here: what was published, as rows of tables. Config files and `docs/zoo.md` are written from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lazy import importer
from ..paths import config_root

if TYPE_CHECKING:
    from .checkpoints import DEFAULT as DEFAULT
    from .checkpoints import DETECTORS as DETECTORS
    from .checkpoints import published as published
    from .proposals import PROPOSALS as PROPOSALS
    from .proposals import ProposalVariant as ProposalVariant
    from .variants import FAMILIES as FAMILIES
    from .variants import VARIANTS as VARIANTS
    from .variants import Family as Family
    from .variants import Variant as Variant
    from .variants import find as find
    from .variants import is_name as is_name
    from .variants import names as names

_HOMES = {
    "DEFAULT": "checkpoints", "DETECTORS": "checkpoints", "FAMILIES": "variants", "PROPOSALS": "proposals",
    "VARIANTS": "variants", "Family": "variants", "ProposalVariant": "proposals", "Variant": "variants",
    "find": "variants", "is_name": "variants", "names": "variants", "published": "checkpoints",
}  # fmt: skip

__all__ = [
    "DEFAULT", "DETECTORS", "FAMILIES", "PROPOSALS", "VARIANTS", "Family", "ProposalVariant", "Variant", "config_file",
    "costs", "find", "get", "get_config", "is_name", "names", "published",
]  # fmt: skip

__getattr__ = importer(__name__, _HOMES)  # a command that uses no variant needs no table of them


def config_file(name: str, yaml: bool = False) -> Path:
    """The config file of a variant: LazyConfig, or its yacs twin.

    Raises:
        FcosError: there is no such variant.
    """
    from .variants import find

    variant = find(name)
    return config_root() / (variant.yaml if yaml else variant.config)


def costs() -> dict[str, dict[str, float]]:
    """Full name -> "parameters", "gflops" (multiply-adds), "height" and "width" of the padded image they are for.

    Counted by `modeling.cost` and kept in `costs.json`, so that listing them needs no PyTorch.
    """
    return json.loads((Path(__file__).parent / "costs.json").read_text(encoding="utf-8"))


def get_config(name: str) -> Any:
    """The LazyConfig of a variant.

    Raises:
        FcosError: there is no such variant.
    """
    from .._compat import load_lazy_config  # listing the zoo needs no Detectron2

    return load_lazy_config(config_file(name))


_PREDICTORS: list[Callable[..., Any]] = []


def predict_with(maker: Callable[..., Any]) -> None:
    """Say what `get` makes; `fcos_d2` itself does, since the zoo is data and knows no predictor."""
    _PREDICTORS[:] = [maker]


def get(name: str, weights: str | None = None, device: str | None = None) -> Any:
    """A variant ready to detect; see `fcos_d2.Predictor`.

    Args:
        name: of the variant.
        weights: checkpoint file of the detector, ours or published; by default what was published for the variant.
        device: e.g. "cuda"; by default what the machine has.
    """
    return _PREDICTORS[0](name, weights=weights, device=device)
