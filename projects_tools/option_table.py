"""The table of training options for docs/, from the dataclasses in `fcos_d2/config/train_options.py`.

What an option does stands in the comment at its field, or in the docstring of its group; a * marks what Detectron2
does not have.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from fcos_d2.config.train_options import TrainOptions

_HEAD = """# Options of training

What `cfg.train` may hold: keys of a LazyConfig file, or `train.KEY=VALUE` at the end of `fcos train` and of
`projects_tools/lazyconfig_train_net.py`. An unknown key, a wrong type and a value out of range are errors that say what
is allowed. Options with a star are not Detectron2's. This table is written by `projects_tools/write_configs.py`.

| option | default | values | what it does |
| --- | --- | --- | --- |
"""


def markdown() -> str:
    """`docs/training-options.md`."""
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows(TrainOptions, "train", "", False))


def rows(cls: type, path: str, group: str, extra: bool) -> Iterator[tuple[str, str, str, str]]:
    """Cells of the options in a dataclass, those of its groups included.

    Args:
        cls: the dataclass.
        path: its key, e.g. "train.ema".
        group: what the docstring of the group says; empty for `TrainOptions` itself.
        extra: whether the whole group is not Detectron2's.
    """
    kinds, said = get_type_hints(cls), comments(cls)
    for option in fields(cls):
        text, ours = _starred(said.get(option.name, ""))
        key = f"{path}.{option.name}"
        if is_dataclass(kinds[option.name]):
            about, whole = _starred(inspect.getdoc(kinds[option.name]).partition("\n")[0])
            yield from rows(kinds[option.name], key, about, whole or ours)
            continue
        if group and option is fields(cls)[0]:
            text = f"{group} {text}".strip()
        star = " *" if ours or extra else ""
        yield f"`{key}`{star}", f"`{_written(option)}`", _values(option, kinds[option.name]), text


def comments(cls: type) -> dict[str, str]:
    """Field -> the comment behind it, or that on the lines before it."""
    found, before = {}, ""
    for line in inspect.getsource(cls).splitlines():
        code, _, comment = line.strip().partition("# ")
        name = re.match(r"(\w+): ", code)
        if name:
            found[name[1]] = comment or before
        before = f"{before} {comment}".strip() if comment and not code else ""
    return found


def _starred(text: str) -> tuple[str, bool]:
    return text.removeprefix("*").strip(), text.startswith("*")


def _written(option: Field[Any]) -> str:
    """The default as YAML has it."""
    return json.dumps(option.default) if option.default in ("", None, True, False, ()) else str(option.default)


def _values(option: Field[Any], kind: Any) -> str:
    rules = option.metadata
    if "choices" in rules:
        several = "list of " if isinstance(option.default, tuple) else ""
        return several + ", ".join(f"`{choice}`" for choice in rules["choices"] if choice)
    kinds = get_args(kind) if type(None) in get_args(kind) else (kind,)
    name = {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(kinds[0], "list")
    limits = [f"≥ {rules['least']}"] if "least" in rules else []
    limits += [f"< {rules['below']}"] if "below" in rules else []
    return ", ".join([name + " or null" * (len(kinds) > 1), *limits])
