"""A checkpoint of ours as safetensors: named tensors and one text, from which the checkpoint is made again.

The text is JSON of what is plain (class names, config, thresholds); tensors in it lie among the others, under names
that begin with `INSIDE`. A file without the text is one of another program: tensors alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

__all__ = ["INSIDE", "KEY", "packed", "unpacked"]

KEY = "fcos_d2"  # of the text, in the file's metadata
INSIDE = "fcos_d2:"


def packed(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a safetensors file is written of: tensors and metadata.

    Args:
        tensors: of the model.
        plain: numbers, strings, lists, mappings and tensors.
    """
    inside = {f"{INSIDE}{'/'.join(path)}": value for path, value in _leaves(plain) if isinstance(value, Tensor)}
    # Each with memory of its own, without holes: the format asks for that.
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in {**tensors, **inside}.items()}
    return own, {"format": "pt", KEY: json.dumps(_without_tensors(plain), ensure_ascii=False)}


def unpacked(tensors: dict[str, Tensor], metadata: Any) -> dict[str, Any]:
    """The entries of the checkpoint that `packed` was given; of another program's file the tensors.

    Raises:
        ValueError: the text is damaged.
    """
    if not isinstance(metadata, Mapping) or KEY not in metadata:
        return tensors
    found = json.loads(metadata[KEY])
    for name in [name for name in tensors if name.startswith(INSIDE)]:
        *path, last = name.removeprefix(INSIDE).split("/")
        node = found
        for key in path:
            node = node[key]
        node[last] = tensors.pop(name)
    return {**found, "model": tensors}


def _leaves(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _without_tensors(node: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: _without_tensors(value) if isinstance(value, Mapping) else value for key, value in node.items()}
    return {key: value for key, value in inner.items() if not isinstance(value, Tensor)}
