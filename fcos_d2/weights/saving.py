"""A checkpoint is written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..files import write_atomically

__all__ = ["save"]


def save(path: str | Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint of what `load` accepts; raises FcosError if it cannot be written, and an old one stays."""
    write_atomically(path, lambda file: torch.save(payload, file))
