"""What is wrong with paths and names on the command line, told before PyTorch is imported, which takes seconds."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import FcosError
from ..paths import CHECKPOINTS, CONFIGS, is_address, require_checkpoint, require_config

__all__ = ["check", "require_package"]

_DEVICES = r"(cpu|cuda|mps|xpu|hpu|npu|mtia|xla)(:\d+)?"  # PyTorch's; which of them are here is asked later
_NO_FILES = ("none", "random")  # what --weights may be besides files and addresses


def check(
    *, data: Path | None = None, need: Sequence[str] = (), val_fraction: float | None = None,
    weights: str | Path | None = None, model: str | None = None, device: str | None = None, format: str | None = None,
    output: Path | None = None, detects: bool = False,
) -> None:  # fmt: skip
    """Look at what several commands are given.

    Args:
        need: parts that the data set must have.
        format: name of the format of the data; by default what its files look like.
        output: folder for results that need not be empty.
        detects: a variant without weights is to have the published ones.
    Raises:
        ImportError: Detectron2 is not installed.
        FcosError: a file or a folder is missing or cannot be used, or a name means nothing.
    """
    from .. import _compat, zoo  # noqa: F401  # says how to get Detectron2 where there is none
    from ..data import find_dataset, require_parts
    from ..files import require_writable
    from ..hub import require

    if data is not None:
        layout = find_dataset(data, format)
        taken = ["val"] if val_fraction is not None and "train" in layout.splits else []
        require_parts(layout.root, [*layout.splits, *taken], need)
    if model is not None:
        suffix = Path(model).suffix.lower()
        if suffix in (*CHECKPOINTS, *CONFIGS):
            require_config(model)
        elif detects and weights is None:
            require(model)
        else:
            zoo.find(model)
    if weights is not None and str(weights) not in _NO_FILES and not is_address(str(weights)):
        _require_weights(weights)
    if device is not None and not re.fullmatch(_DEVICES, device):
        raise FcosError(f"--device is {device!r}, which is no device: use cuda or cpu.")
    if output is not None:
        require_writable(output)


def _require_weights(weights: str | Path) -> None:
    """Raise FcosError if there is no such file, and no such variant with published weights either."""
    from .. import zoo
    from ..hub import require

    name = str(weights)
    if not Path(name).expanduser().exists() and Path(name).suffix.lower() not in CHECKPOINTS and zoo.is_name(name):
        require(name)
    else:
        require_checkpoint(weights)


def require_package(name: str, option: str, requirement: str) -> None:
    """Raise FcosError where a package that an option needs is not installed."""
    if importlib.util.find_spec(name) is None:
        raise FcosError(f"{option} needs the package {name}, which is not installed: pip install '{requirement}'")
