"""Options and rules of files that `fcos export` made, which run without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..engines.names import ENGINES
from ..errors import FcosError
from ..paths import EXPORTED, is_exported

__all__ = ["engine", "engine_of", "require_plain"]

engine = click.option(
    "--engine", type=click.Choice([*ENGINES, "auto"]),
    help="What runs the detector; auto measures those that can.  [default: onnx for .onnx, openvino for .xml, else "
    "torch]",
)  # fmt: skip


def engine_of(weights: str) -> str:
    """The engine that a file is for."""
    return EXPORTED.get(Path(weights).suffix.lower(), "torch")


def require_plain(weights: str | None, **options: Any) -> None:
    """Raise for options that only PyTorch's detector has, and where there is nothing to run."""
    if weights is None:
        raise click.UsageError("--engine needs --weights: a checkpoint, or a file of `fcos export`.")
    for name, value in options.items():
        if value not in (None, False, "none", "cpu"):
            raise click.UsageError(
                f"--{name} is of PyTorch's engine, and does not go with an exported file or another engine: leave one "
                "of them out."
            )
    if is_exported(weights) and not Path(weights).expanduser().is_file():
        kind = "is a folder" if Path(weights).expanduser().is_dir() else "does not exist"
        raise FcosError(f"The exported file {weights} {kind}.")
