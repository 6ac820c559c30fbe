"""Which detectors are one network with other weights: their files differ in numbers alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from torch import nn

from .graphs import RawGraph

__all__ = ["network_of"]

_OF_TRAINING = {"training", "rewrites", "recompute", "prior_prob", "momentum", "track_running_stats", "init_value"}


def network_of(model: Any) -> str:
    """A hash of all that an exported graph follows from but the numbers in it: modules, their options, the selection.

    Args:
        model: a detector, on any device; the meta device will do.
    Raises:
        FcosError: it cannot be exported.
    """
    graph = RawGraph(model).eval()
    dense = model.dense
    said = {
        "levels": graph.names, "strides": graph.strides, "classes": model.num_classes, "order": model.input_format,
        "step": model.backbone.size_divisibility, "inclusive": model.inclusive_far_corner,
        "keep_empty": model.keep_empty, "selector": type(dense.selector).__name__, "select": asdict(dense.selector),
        "coder": asdict(dense.coder), "grid": asdict(dense.grid),
    }  # fmt: skip
    text = "\n".join([repr(said), *_lines(graph)])
    return hashlib.sha256(text.encode()).hexdigest()


def _lines(graph: nn.Module) -> Iterator[str]:
    """A line for each module: its place, class, options, and the shapes of its tensors."""
    for name, module in graph.named_modules():
        plain = {key: value for key, value in vars(module).items() if key not in _OF_TRAINING and key[0] != "_"}
        options = {key: value for key, value in plain.items() if _is_plain(value)}
        tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        yield f"{name} {type(module).__name__} {sorted(options.items())} {sorted(shapes.items())}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
