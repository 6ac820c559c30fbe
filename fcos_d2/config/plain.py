"""YAML as data: read within limits of size and depth, with references that can only point into the same tree.

Nothing here imports, calls or opens anything that a text names.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any

import yaml

from ..errors import FcosError

__all__ = ["Path", "check_number", "dotted", "has_reference", "is_plain_reference", "nodes", "parse_yaml", "resolve"]

Path = tuple[Any, ...]  # keys and indices that lead from the root to a value

# libyaml where PyYAML has it, a tenth of the time; both give the same events and nodes.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MAX_CHARACTERS = 1_000_000
_MAX_NODES = 20_000  # after aliases and references are replaced by what they stand for
_MAX_DEPTH = 50
_MAX_STRING = 10_000

_REFERENCE = re.compile(r"\$\{(?P<dots>\.*)(?P<keys>(?:\w+(?:\.\w+|\[\w+\])*)?)\}")
_WITH_TEXT = re.compile(rf"(?:[^$\\{{}}]|{_REFERENCE.pattern.replace('?P<dots>', '?:').replace('?P<keys>', '?:')})*")


def dotted(path: Path) -> str:
    return ".".join(map(str, path)) or "the top"


def parse_yaml(text: str, origin: str) -> Any:
    """Read plain YAML: nodes, lists, strings, numbers, true, false and null.

    Args:
        text: YAML.
        origin: what to call it in messages.
    Raises:
        FcosError: it is not plain YAML, or larger or deeper than any config is (aliases count as what they stand for).
    """
    if len(text) > _MAX_CHARACTERS:
        raise FcosError(f"{origin} has {len(text)} characters; a config has {_MAX_CHARACTERS} at most.")
    try:
        _check_depth(text, origin)
        if (node := yaml.compose(text, _LOADER)) is None:
            return None
        _count(node, {}, origin)
        tree = yaml.SafeLoader("").construct_document(node)
    except FcosError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _not_plain(origin, getattr(error, "problem", None) or error, mark.line + 1 if mark else 0) from error
    except (ValueError, OverflowError, AttributeError, LookupError) as error:
        raise _not_plain(origin, error) from error
    for path, value in nodes(tree):
        _check_kind(path, value, origin)
    return tree


def _not_plain(origin: str, reason: object, line: int = 0) -> FcosError:
    where = f" (line {line})" if line else ""
    return FcosError(f"{origin} is not plain YAML{where}: {' '.join(str(reason).split()).rstrip('.')}.")


def _check_depth(text: str, origin: str) -> None:
    """Nesting, from the events of the parser, which itself does not recurse."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        long = isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_STRING
        if long or depth > _MAX_DEPTH or count > 4 * _MAX_NODES:
            raise _too_large(origin)


def _too_large(origin: str) -> FcosError:
    return FcosError(
        f"{origin} is larger or deeper than any config: {_MAX_NODES} values and {_MAX_DEPTH} levels are the most, with "
        "aliases and references replaced by what they stand for."
    )


def _count(node: yaml.Node, known: dict[int, int], origin: str) -> int:
    """Values below a YAML node, with every alias counted as what it stands for."""
    if id(node) not in known:
        known[id(node)] = -1  # until all below it are counted
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        children = (part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,)))
        known[id(node)] = 1 + sum(_count(child, known, origin) for child in children)
    if known[id(node)] < 0:
        raise FcosError(f"{origin} has an alias to a node around it (line {node.start_mark.line + 1}).")
    if known[id(node)] > _MAX_NODES:
        raise _too_large(origin)
    return known[id(node)]


def _check_kind(path: Path, value: Any, origin: str) -> None:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, (str, int)) or isinstance(key, bool) or _is_huge(key):
                name = "of too many digits" if _is_huge(key) else repr(key)
                raise _not_plain(origin, f"the key {name} at {dotted(path)} is no name")
    elif _is_huge(value):
        raise _not_plain(origin, f"{dotted(path)} is a whole number of {value.bit_length()} bits")
    elif isinstance(value, str) and len(value) > _MAX_STRING:
        raise FcosError(f"{origin} has at {dotted(path)} a string of {len(value)} characters.")
    elif not isinstance(value, (type(None), bool, int, float, str, list)):
        raise _not_plain(origin, f"{dotted(path)} is of type {type(value).__name__}")


def _is_huge(value: Any) -> bool:
    """Whether it is a whole number that Python refuses to write, or to compare with others."""
    return isinstance(value, int) and value.bit_length() > 64


def nodes(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value of a tree with the path to it, the tree itself first."""
    yield path, tree
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from nodes(value, (*path, key))
    elif isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            yield from nodes(value, (*path, i))


# Names of numbers that count layers or processes.
_COUNT = re.compile(r"num_|depth|levels|blocks|points|convs|workers", re.IGNORECASE)
_SIZE_RANGES = ("size_ranges", "SIZES_OF_INTEREST")  # the last one ends at infinity


def check_number(path: Path, value: Any, origin: str) -> None:
    """Check that a number of a config makes sense where it stands: enough for any detector, too small to fill a memory.

    Raises:
        FcosError: it is NaN, or too large.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    most = _most(path)
    if _is_huge(value):
        raise FcosError(f"{origin} has at {dotted(path)} a whole number of too many digits.")
    if math.isnan(value):
        raise FcosError(f"{origin} has {value!r} at {dotted(path)}, which is not a number.")
    if abs(value) > most and not set(_SIZE_RANGES) & set(path):
        raise FcosError(f"{origin} has {value!r} at {dotted(path)}; a detector has {most:,} at most there.")


def _most(path: Path) -> int:
    name = str(next((key for key in reversed(path) if isinstance(key, str)), ""))
    if "augmentations" in path or (path[0] == "INPUT" and name.startswith("MIN_SIZE")):
        return sys.maxsize if name == "max_size" else 16_384
    if path[0] in ("model", "MODEL", "dataloader", "DATALOADER"):
        if name.lower() == "num_classes":
            return 100_000
        return 1_000 if _COUNT.search(name) else 1_000_000
    return sys.maxsize


def has_reference(value: Any) -> bool:
    """Whether OmegaConf would replace something in it."""
    return isinstance(value, str) and "${" in value


def is_plain_reference(text: str) -> bool:
    """Whether all that it refers to is named by keys: `${a.b[0]}`, `${..x}`; no resolver, no nesting, no escapes."""
    return bool(_WITH_TEXT.fullmatch(text))


def resolve(tree: Any, origin: str) -> Any:
    """A copy of a tree with every reference replaced by what it refers to, as OmegaConf does it.

    Args:
        tree: of `parse_yaml`.
        origin: what to call it in messages.
    Raises:
        FcosError: a reference is more than a path in this tree, leads nowhere or in a circle.
    """
    return _Resolver(tree, origin).expand((), tree)


class _Resolver:
    def __init__(self, tree: Any, origin: str) -> None:
        self.tree, self.origin = tree, origin
        self.count = 0
        self.open: list[Path] = []  # what is being expanded

    def expand(self, path: Path, value: Any) -> Any:
        """The value at a path, without references."""
        self.count += 1
        if self.count > _MAX_NODES or len(self.open) > 2 * _MAX_DEPTH:
            raise _too_large(self.origin)
        if not isinstance(value, (dict, list)) and not has_reference(value):
            return value
        if path in self.open:
            raise FcosError(f"{self.origin} has at {dotted(path)} references that lead in a circle.")
        self.open.append(path)
        made: Any
        if isinstance(value, str):
            made = self._text(path, value)
        elif isinstance(value, list):
            made = [self.expand((*path, i), item) for i, item in enumerate(value)]
        else:
            if keys := [key for key in value if has_reference(key)]:
                raise FcosError(f"{self.origin} has at {dotted(path)} a reference as a key: {keys[0]!r}.")
            made = {key: self.expand((*path, key), item) for key, item in value.items()}
        self.open.pop()
        return made

    def _text(self, path: Path, text: str) -> Any:
        if not is_plain_reference(text):
            raise FcosError(
                f"{self.origin} has at {dotted(path)} {_short(text)}; only references to other keys are followed, for "
                "example ${model.num_classes}."
            )
        if whole := _REFERENCE.fullmatch(text):
            return self.expand(*self._target(path, whole))
        pieces = []
        last = 0
        for found in _REFERENCE.finditer(text):
            value = self.expand(*self._target(path, found))
            if isinstance(value, (dict, list)):
                raise FcosError(f"{self.origin} puts at {dotted(path)} a node into a string: {_short(text)}.")
            pieces += [text[last : found.start()], str(value)]
            last = found.end()
        made = "".join((*pieces, text[last:]))
        if has_reference(made) or len(made) > _MAX_STRING:
            raise FcosError(f"{self.origin} has at {dotted(path)} references that make a reference, or a long string.")
        return made

    def _target(self, path: Path, found: re.Match) -> tuple[Path, Any]:
        """Where a reference at `path` leads, and what is there."""
        nowhere = FcosError(
            f"{self.origin} has at {dotted(path)} the reference {_short(found[0])}, which leads nowhere."
        )
        dots = len(found["dots"])
        if dots > len(path):
            raise nowhere
        at = path[: len(path) - dots] if dots else ()
        value: Any = reduce(getitem, at, self.tree)
        for key in re.findall(r"\w+", found["keys"]):
            while has_reference(value):  # a reference to a node, on the way
                whole = _REFERENCE.fullmatch(value)
                if whole is None or at in self.open:
                    raise nowhere
                self.open.append(at)
                at, value = self._target(at, whole)
                self.open.pop()
            step: Any = key
            if key.isdecimal() and len(key) < 10 and not (isinstance(value, dict) and key in value):
                step = int(key)
            if step not in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
                raise nowhere
            at, value = (*at, step), value[step]
        return at, value


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
