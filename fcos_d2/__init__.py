"""FCOS as a Detectron2 extension: importing the package registers its parts with Detectron2.

The one exception is the console script, which says so itself (`cli/entry.py`): there, a command calls `register()` when
it is chosen, so that `fcos --help` does not wait for PyTorch.
"""

from __future__ import annotations

import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.yacs import add_fcos_config as add_fcos_config
    from .modeling import FCOS as FCOS
    from .modeling import FCOSHead as FCOSHead
    from .modeling import FCOSProposals as FCOSProposals
    from .predict import Predictor as Predictor
    from .train import LazyTrainer as LazyTrainer
    from .train import configure as configure

__version__ = "0.1.0"

# Public name -> the module it lives in. `register` imports these modules, and that puts their classes into registries.
_HOMES: dict[str, str] = {
    "FCOS": "fcos_d2.modeling",
    "FCOSHead": "fcos_d2.modeling",
    "FCOSProposals": "fcos_d2.modeling",
    "add_fcos_config": "fcos_d2.config",
    "configure": "fcos_d2.train",
    "LazyTrainer": "fcos_d2.train",
    "Predictor": "fcos_d2.predict",
}

__all__ = ["__version__", "register", *_HOMES]


def register() -> None:
    """Mend Detectron2 where its build needs it, then import every part, which registers it; later calls do nothing.

    Raises:
        ImportError: Detectron2 is not installed; the message says how to get it.
    """
    collects = gc.isenabled()
    gc.disable()  # PyTorch's hundred thousands of objects stay: to look for garbage among them takes half a second
    try:
        _register()
    finally:
        if collects:
            gc.enable()


def _register() -> None:
    from . import _compat, zoo

    _compat.mend()
    for name, home in _HOMES.items():
        globals().setdefault(name, getattr(importlib.import_module(home), name))
    zoo.predict_with(globals()["Predictor"])
    from .engines import inside
    from .predict import predictor

    predictor.run_with(inside)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        register()
        return globals()[name]
    raise AttributeError(f"module 'fcos_d2' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


if not getattr(sys.modules.get("fcos_d2_console"), "started", False):
    register()
