"""Strict overrides: `key=value` changes what a config has, and nothing else.

A key counts as known if the config has it, or if the node it belongs to calls something with a parameter of that name
(`dataloader.train.aspect_ratio_grouping`, say). The new value must have the old one's type.
"""

from __future__ import annotations

import ast
import copy
import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from ..errors import FcosError
from ..genotype import inlined

__all__ = ["KINDS", "apply_lazy", "apply_yacs", "parameters_of", "suggestion", "yacs_keys"]

_GENOTYPE = "head.genotype"
_UNKNOWN = object()  # a value whose type nobody knows


def suggestion(wrong: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: "; did you mean 'x'?", or a full stop."""
    last = {name.rpartition(".")[2]: name for name in reversed(known)}
    close = difflib.get_close_matches(wrong, known, 1, 0.75)
    close = close or difflib.get_close_matches(wrong.rpartition(".")[2], list(last), 1, 0.75)
    close = close or difflib.get_close_matches(wrong, known, 1, 0.6)
    return f"; did you mean {last.get(close[0], close[0])!r}?" if close else "."


def apply_lazy(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply `key=value` overrides; indices are written `list[0]` or `list.0`.

    Args:
        cfg: changed in place.
        overrides: values in Hydra's grammar (`3`, `1e-3`, `[1, 2]`, `null`, `{a: 1}`); where the config has a string,
            all that follows the `=` is the string. Of a genotype's file its text is taken.
    Raises:
        FcosError: a key is unknown or a value has the wrong type; the message names both.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            raise FcosError(f"The override {text!r} must have the form key=value, for example model.num_classes=3.")
        if key.startswith("~"):
            raise FcosError(f"The override {text!r} would delete a key, which is not supported: give it a value.")
        key = key.replace("[", ".").replace("]", "")
        new = _parse(key, value.strip(), _find(cfg, key)[2])
        _set(cfg, key, inlined(new) if key.endswith(_GENOTYPE) and isinstance(new, str) else new)
    return cfg


def _find(cfg: DictConfig, key: str) -> tuple[Any, Any, Any]:
    """The node that holds a key, the key's name there, and its value (`_UNKNOWN` without one)."""
    node: Any = cfg
    holder: Any = None
    name: Any = None
    parts = key.split(".")
    for i, part in enumerate(parts):
        holder, name, at = node, part, ".".join(parts[:i])
        if isinstance(node, ListConfig):
            if part not in map(str, range(-len(node), len(node))):
                keys = f"a list of {len(node)}, so its keys are 0 to {len(node) - 1}"
                raise FcosError(f"The config has no {key!r}: {at} is {keys}.")
            name = int(part)
        elif not isinstance(node, DictConfig):
            raise FcosError(f"The config has no {key!r}: {at} is {node!r}, which has no keys.")
        elif part not in node:
            known = parameters_of(node)
            if i + 1 < len(parts) or not known.keys() & {part, "**"}:
                raise FcosError(f"The config has no {key!r}{suggestion(key, list(_keys(cfg)))}")
            return node, part, known.get(part, _UNKNOWN)
        node = _value(node, name)
    return holder, name, node


def _value(node: Any, name: Any) -> Any:
    try:
        return node[name]
    except OmegaConfBaseException:  # a reference to nothing
        return _UNKNOWN


def parameters_of(node: DictConfig) -> dict[str, Any]:
    """Parameters of what a node calls, with their defaults; "**" is among them if it takes any name."""
    target = node.get("_target_")
    try:
        target = locate(target) if isinstance(target, str) else target
        parameters = inspect.signature(target).parameters.values() if callable(target) else ()
    except (ImportError, TypeError, ValueError):
        return {}
    return {
        "**" if p.kind is p.VAR_KEYWORD else p.name: _UNKNOWN if p.default is p.empty else p.default
        for p in parameters
        if p.kind is not p.VAR_POSITIONAL
    }


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key that could be meant, with parameters that the config leaves at their defaults."""
    if isinstance(node, ListConfig):
        for i in range(len(node)):
            yield from _keys(_value(node, i), f"{prefix}{i}.")
    if not isinstance(node, DictConfig):
        return
    own = [str(key) for key in node if key != "_target_"]
    yield from (f"{prefix}{key}" for key in own)
    yield from (f"{prefix}{name}" for name in parameters_of(node) if name not in own and name != "**")
    for key in own:
        yield from _keys(_value(node, key), f"{prefix}{key}.")


def _parse(key: str, text: str, old: Any) -> Any:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if isinstance(old, str) and not quoted and not text.startswith("["):
        return None if text == "null" else text
    try:
        value = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException as error:
        raise FcosError(
            f"The value {text!r} of {key} cannot be read; put a string with special signs in quotes."
        ) from error
    return copy.deepcopy(value)


def _set(cfg: DictConfig, key: str, value: Any) -> None:
    parent, name, old = _find(cfg, key)
    if isinstance(value, Mapping) and isinstance(old, DictConfig) and "_target_" not in value:
        for inner, item in value.items():
            _set(cfg, f"{key}.{inner}", item)
    else:
        parent[name] = _checked(key, value, old)


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
_EXAMPLES = {**KINDS, list: "a list, for example [{}]", dict: "a node, for example {{key: value}}"}


def _kind(value: Any) -> type | None:
    if isinstance(value, (DictConfig, Mapping)):
        return dict
    if isinstance(value, (ListConfig, list, tuple)):
        return list
    return next((kind for kind in KINDS if isinstance(value, kind)), None)


def _checked(key: str, value: Any, old: Any) -> Any:
    """The value, a whole number as float where one is needed.

    Raises:
        FcosError: it has another type than the old one.
    """
    want, have = _kind(old), _kind(value)
    if want is None or want is have:
        return value
    if want is float and have is int:
        return float(value)
    if have is list and want not in (dict, bool):  # one or several, e.g. names of data sets
        return [_checked(key, item, old) for item in value]
    if value is None and want in (str, list, dict):
        return value
    raise FcosError(f"{key} must be {_EXAMPLES[want].format(value)}, but {value!r} was given.")


def apply_yacs(cfg: CfgNode, overrides: Sequence[str]) -> CfgNode:
    """Apply `KEY=VALUE` overrides, or `KEY`, `VALUE` in turn as Detectron2's scripts take them.

    Raises:
        FcosError: a key is unknown, a value is missing or has the wrong type.
    """
    for key, text in _pairs(overrides):
        if key not in (known := list(yacs_keys(cfg))):
            raise FcosError(f"The config has no key {key!r}{suggestion(key, known)}")
        *parents, name = key.split(".")
        node = reduce(getitem, parents, cfg)
        old = node[name]
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if isinstance(old, str) and not isinstance(value, str):
            value = text
        if _kind(old) is list and _kind(value) is not list:
            raise FcosError(f"{key} must be {_EXAMPLES[list].format(value)}, but {value!r} was given.")
        value = _checked(key, value, old)
        if isinstance(old, (list, tuple)) and isinstance(value, (list, tuple)):
            value = type(old)(value)
        node[name] = value
    return cfg


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = iter(overrides)
    for text in rest:
        key, equals, value = text.partition("=")
        if not equals:
            if (following := next(rest, None)) is None:
                raise FcosError(f"The override {key!r} has no value: write {key}=VALUE, or {key} VALUE.")
            value = following
        yield key.strip(), value.strip()


def yacs_keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    """All keys with a value, like "MODEL.FCOS.NUM_CLASSES"."""
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from yacs_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
