"""The published variants: name -> recipe, backbone, schedule, and the results that were published for it.

A variant's name is that of its published config or model. Where two families use one name, `family/name` tells them apart;
the bare name then means the first in the table, the original FCOS.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import FcosError
from .paths import config_root

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from .engine.predictor import Predictor


@dataclass(frozen=True)
class Variant:
    """A row of the zoo.

    Attributes:
        name: of the published config or model.
        family: who published it; also the folder of its config.
        recipe, backbone, schedule: what `compose` puts together.
        ap: box AP on COCO minival / val2017 as published, in percent; `None` if there is none.
        ap_test_dev: the same on test-dev.
        source: where name and numbers come from.
    """

    name: str
    family: str
    recipe: str
    backbone: str
    schedule: str
    ap: float | None = None
    ap_test_dev: float | None = None
    source: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.family}/{self.name}"

    @property
    def config(self) -> Path:
        """Its LazyConfig file, relative to the config folder."""
        return Path(self.family, f"{self.name}.py")

    @property
    def yaml(self) -> Path:
        """Its yacs twin, relative to the config folder."""
        return Path("yaml", self.family, f"{self.name}.yaml")


_T = "tianzhi0549/FCOS, README.md and configs/fcos"
_P = "yqyao/FCOS_PLUS, README.md and configs/fcos"
_OURS = "fcos_d2: for small data and small machines, trained from scratch"

VARIANTS: tuple[Variant, ...] = (
    Variant("fcos_R_50_FPN_1x", "fcos", "original", "R_50_FPN", "1x", 37.1, 37.4, _T),
    Variant("fcos_R_101_FPN_2x", "fcos", "original", "R_101_FPN", "2x", 41.4, 41.5, _T),
    Variant("fcos_X_101_32x8d_FPN_2x", "fcos", "original", "X_101_32x8d_FPN", "2x", 42.5, 42.7, _T),
    Variant("fcos_X_101_64x4d_FPN_2x", "fcos", "original", "X_101_64x4d_FPN", "2x", 43.0, 43.2, _T),
    Variant("fcos_imprv_R_50_FPN_1x", "fcos", "improved", "R_50_FPN", "1x", 38.7, None, _T),
    Variant("fcos_imprv_R_101_FPN_2x", "fcos", "improved", "R_101_FPN", "2x", 43.0, None, _T),
    Variant("fcos_imprv_X_101_32x8d_FPN_2x", "fcos", "improved", "X_101_32x8d_FPN", "2x", 44.0, None, _T),
    Variant("fcos_imprv_X_101_64x4d_FPN_2x", "fcos", "improved", "X_101_64x4d_FPN", "2x", 44.7, None, _T),
    Variant("fcos_R_50_FPN_1x_center", "fcos_plus", "fcos_plus_center", "R_50_FPN", "1x", 37.8, None, _P),
    Variant("fcos_R_50_FPN_1x_center_liou", "fcos_plus", "fcos_plus_center_liou", "R_50_FPN", "1x", 38.1, None, _P),
    Variant("fcos_R_50_FPN_1x_center_giou", "fcos_plus", "fcos_plus_center_giou", "R_50_FPN", "1x", 38.2, None, _P),
    Variant("fcos_R_101_FPN_2x_center_giou", "fcos_plus", "fcos_plus_center_giou", "R_101_FPN", "2x", 42.5, None, _P),
    Variant("fcos_R_18_FPN_small", "small", "small", "R_18_FPN", "small", None, None, _OURS),
    Variant("fcos_R_18_slim_FPN_small", "small", "small", "R_18_slim_FPN", "small", None, None, _OURS),
)


def names() -> list[str]:
    """Names of all variants, as `get_config` takes them: bare where that is clear, else `family/name`."""
    seen: set[str] = set()
    return [v.full_name if v.name in seen or seen.add(v.name) else v.name for v in VARIANTS]


def find(name: str) -> Variant:
    """The row of a variant.

    Args:
        name: bare or with its family, as in "fcos_plus/fcos_R_50_FPN_1x_center"; a trailing ".py" or ".yaml" is ignored.
    Raises:
        FcosError: there is none; the message suggests the nearest.
    """
    wanted = name.removesuffix(".py").removesuffix(".yaml")
    for variant in VARIANTS:
        if wanted in (variant.name, variant.full_name):
            return variant
    near = difflib.get_close_matches(wanted, names(), n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise FcosError(f"There is no variant {name!r}.{hint} `fcos zoo` lists all {len(VARIANTS)}.")


def config_file(name: str, yaml: bool = False) -> Path:
    """The config file of a variant: LazyConfig, or its yacs twin.

    Raises:
        FcosError: there is no such variant.
    """
    variant = find(name)
    return config_root() / (variant.yaml if yaml else variant.config)


def get_config(name: str) -> DictConfig:
    """The LazyConfig of a variant.

    Raises:
        FcosError: there is no such variant.
    """
    from detectron2.config import LazyConfig

    return LazyConfig.load(str(config_file(name)))


def get(name: str, weights: str | None = None, device: str | None = None) -> Predictor:
    """A variant ready to detect; see `Predictor`.

    Args:
        name: of the variant.
        weights: checkpoint file of the detector, ours or published.
        device: e.g. "cuda"; by default what the machine has.
    """
    from .engine import Predictor

    return Predictor(name, weights=weights, device=device)
