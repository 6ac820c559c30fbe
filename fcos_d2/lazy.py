"""Rooms whose parts are imported when they are asked for, so that no command waits for what it does not need."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["importer"]


def importer(room: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a room.

    Args:
        room: its `__name__`.
        homes: public name -> the module of the room in which it lives.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{homes[name]}", room), name)

    return find
