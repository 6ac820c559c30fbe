"""How a part declares its options: a dataclass field that knows its yacs key.

A choice is declared once, at the part that uses it. `config/yacs.py` makes the `MODEL.FCOS.*` keys from these fields
and reads them back; LazyConfig names the same class with the same fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any


def option(default: Any = MISSING, key: str | None = None) -> Any:
    """A dataclass field with an optional yacs key.

    Args:
        default: the published default; without one the field is required.
        key: name below `MODEL.FCOS`; `None` for fields that are translated by hand or derived.
    """
    return field(default=default, metadata={} if key is None else {"key": key})


def keyed_fields(part: type) -> dict[str, Field]:
    """Yacs key -> field of `part`, in declaration order."""
    return {f.metadata["key"]: f for f in fields(part) if "key" in f.metadata}


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Check that an option has one of its published values.

    Raises:
        ValueError: it has not; the message lists them.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but it must be one of: {', '.join(map(repr, allowed))}.")


def as_tuple(value: Any) -> Any:
    """Turn lists (OmegaConf's `ListConfig` too) into tuples, at any depth; leave everything else."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return value
    return tuple(as_tuple(v) for v in value)


_CONFIG_READERS: dict[str, Callable[..., dict[str, Any]]] = {}


def config_reader(name: str) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """Decorator: the function translates a yacs config into the arguments of the class `name`.

    Parts know no config text; `fcos_d2.config.yacs` provides what their `from_config` asks for.
    """

    def register(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        _CONFIG_READERS[name] = function
        return function

    return register


def read_config(name: str, *args: Any) -> dict[str, Any]:
    """Arguments of the class `name` from a yacs config; see `config_reader`."""
    return _CONFIG_READERS[name](*args)
