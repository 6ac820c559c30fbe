"""A change of a detector as a LazyConfig file, ready to be trained."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..data.audit.reach import Rule
from ..data.layout import DatasetLayout
from ..paths import CHECKPOINTS, CONFIGS
from .changes import Change, scales_of, values_of

__all__ = ["source_of"]

_NODES = "model, dataloader, optimizer, lr_multiplier, train"


def source_of(
    cfg: DictConfig, change: Change, rule: Rule, *, size: int | None, origin: str, layout: DatasetLayout, data: Path,
    said: Sequence[str],
) -> str:  # fmt: skip
    """The text of the file.

    Args:
        cfg: what is changed.
        change, rule: how, and the rule of `cfg`.
        size: shorter side of the input, pixels, where it is another one than that of `origin`.
        origin: what `cfg` was read from: the name of a variant, or a file.
        layout: of the data set, which has a train part.
        data: where that lies.
        said: lines of the docstring.
    """
    is_file = Path(origin).suffix.lower() in (*CHECKPOINTS, *CONFIGS)
    prefix = re.sub(r"[^\w-]+", "_", layout.root.resolve().name) or "data"  # as `fcos train --data` calls it
    where = ascii(str(Path(origin).expanduser().absolute())) if is_file else ascii(origin)
    reader = ("fcos_d2.train.own_data", "lazy_config") if is_file else ("fcos_d2.zoo", "get_config")
    imports = [
        *([] if size is None else ["from fcos_d2.config.edits import resize"]),
        "from fcos_d2.data import class_names, find_dataset, register",
        f"from {reader[0]} import {reader[1]}",
    ]
    lines = [
        '"""' + "\n".join(_harmless(line) for line in said), '"""', "", *imports, "",
        f"_cfg = {reader[1]}({where})",
        f"{_NODES} = (", f"    _cfg[key] for key in {tuple(_NODES.split(', '))!a}", ")", "",
        *(f"{key} = {_python(value)}" for key, value in values_of(cfg, change, rule).items()),
    ]  # fmt: skip
    if size is not None:
        drawn = f", {scales_of(cfg)}" if scales_of(cfg) else ""
        lines.append(f"resize(dataloader.train.mapper.augmentations, {size}{drawn})")
        lines.append(f"resize(dataloader.test.mapper.augmentations, {size})")
    folder = ascii(str(data.expanduser().absolute()))
    lines += [
        "", "# The data; `fcos train --data` puts its own here.",
        f"_layout = find_dataset({folder}, {layout.format!r})",
        f'_names = register(_layout, {prefix!a}, need=("train",), numbered=True)',
        "dataloader.train.dataset.names = _names.train",
        "dataloader.test.dataset.names = _names.val or _names.train",
        "model.num_classes = len(class_names(_names.train))", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _harmless(line: str) -> str:
    """A line of a docstring, whatever names are in it."""
    return line.encode("ascii", "backslashreplace").decode().replace("\\", "/").replace('"', "'")


def _python(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_python, value))}]"
    if isinstance(value, float) and math.isinf(value):
        return 'float("inf")'
    return ascii(value)
