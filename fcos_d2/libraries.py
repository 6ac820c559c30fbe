"""Libraries that are not installed with the package: how to get Detectron2, and what some options need."""

from __future__ import annotations

import importlib.util

from .errors import FcosError

__all__ = ["OFFICIAL", "is_installed", "require_library"]

OFFICIAL = "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported; a mere folder of its name, such as ./wandb, is none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def require_library(name: str, wanted_by: str) -> None:
    """Raise FcosError if a library is missing; the message says what wants it and how to get it."""
    if not is_installed(name):
        raise FcosError(f"{wanted_by} needs the package {name}, which is not installed: pip install {name}")
