"""`read`: a file of weights of any project -> its tensors, and what else it says.

A checkpoint of ours is a dict: "model" (weights), "trainer" (all that `LazyTrainer` needs to go on, see there),
"iteration" (the last one finished), "class_names", "config" (YAML text, see `config.stored`), and "ema" (averaged
weights) where training kept them. Detectron2's own `DetectionCheckpointer` reads the same files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.load import TEXT_OF, unsaid
from ..config.stored import parse_yaml
from ..errors import FcosError
from .adjust import Pixels
from .containers import SUFFIXES, load
from .families import OURS, families_of
from .families.imagenet import NOBODY, Provenance, origin_of, provenance_of

__all__ = ["Reading", "Weights", "load", "read", "weights_of"]

# Keys of the weights in a file, and of averages of them; the first that is there.
_WEIGHTS = ("model", "state_dict", "model_state_dict", "blobs")
_AVERAGES = ("ema", "model_ema", "ema_model", "ema_state_dict")
_INNER = (*_WEIGHTS, "module", "shadow", "shadow_params")
# What wrappers of models put into names.
_WRAPPERS = re.compile(r"^(module\.)+|_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
# Counters of wrappers, and what Caffe2 keeps of its optimizer.
_COUNTERS = re.compile(r"steps|n_averaged|updates|.*_momentum")


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Attributes:
        tensors: name in the file, without what wrappers put before it, -> tensor on the CPU.
        kind: "fcos_d2" for ours, else a name in `FAMILIES`, "backbone" for ImageNet weights, "" for anything else.
        path: the file.
        averages: averaged weights under the same names; `None` where the file has none.
        class_names: of the classes, where the file says them.
        config: text of the config, where the file holds it; see `config.stored.parse_config`.
        pixels: what the weights were trained on, where the file or its kind says it.
        made: who made ImageNet weights, and where their bottlenecks stride, as far as the file tells.
        extra: the rest of the file.
    """

    tensors: Mapping[str, Tensor]
    kind: str
    path: str
    averages: Mapping[str, Tensor] | None = None
    class_names: tuple[str, ...] | None = None
    config: str | None = None
    pixels: Pixels | None = None
    made: Provenance = NOBODY
    extra: Mapping[str, Any] = field(default_factory=dict)

    def chosen(self, averaged: bool = True) -> Mapping[str, Tensor]:
        """The averaged weights where they are wanted and there are any, else the others."""
        return self.averages if averaged and self.averages else self.tensors


def read(path: str | Path) -> Weights:
    """Read a file of weights on the CPU; nothing in it is run.

    Args:
        path: a checkpoint of ours or of another project (.pth, .pt, .bin, .pyth, .safetensors), or ImageNet weights of
            Detectron2's or Caffe2's model zoo (.pkl).
    Raises:
        FcosError: the file is missing, damaged, hostile, or holds no named tensors; one sentence.
    """
    return weights_of(load(path), path)


def weights_of(payload: Mapping[str, Any], path: str | Path) -> Weights:
    """The same of what a file holds."""
    key = next((key for key in _WEIGHTS if isinstance(payload.get(key), Mapping)), None)
    average = next((key for key in _AVERAGES if isinstance(payload.get(key), Mapping)), None)
    if average == "ema_state_dict" and key == "state_dict":
        average = None  # mmengine's: it exchanges the two when it saves, so the averages are in state_dict
    extra = {name: value for name, value in payload.items() if name not in (*_WEIGHTS, *_AVERAGES)}
    averages = _tensors(payload[average], path) if average else None
    if key is None and averages is not None:
        tensors, averages = averages, None
    elif key is None:
        tensors, extra = _tensors(payload, path), {}
    else:
        tensors = _tensors(payload[key], path)
    if averages is not None and averages.keys() < tensors.keys():  # of the parameters only
        averages = {**tensors, **averages}
    names, text = extra.get("class_names"), extra.get("config")
    text = text if isinstance(text, str) else None
    listed = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    kind, made = _kind_and_maker(tensors, extra, text, str(path))
    known = tuple(names) if names and listed else None
    return Weights(tensors, kind, str(path), averages, known, text, made.pixels, made, extra)


def _tensors(value: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a mapping, in whatever it is wrapped."""
    for _ in _INNER:  # each at most once: a file may hold a dict in itself
        if any(isinstance(item, (Tensor, np.ndarray)) for item in value.values()):
            break
        inner = next((value[key] for key in _INNER if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            break
        value = inner
    tensors: dict[str, Tensor] = {}
    for name, item in value.items():
        if isinstance(name, str) and _COUNTERS.fullmatch(name):
            continue
        if isinstance(item, np.ndarray) and item.dtype.kind in "biufc":
            item = torch.as_tensor(item)
        if not isinstance(name, str) or not isinstance(item, Tensor):
            raise FcosError(f"{path} holds {type(item).__name__} at {name!r} where a tensor of a model should be.")
        bare = _WRAPPERS.sub("", name)
        if bare in tensors:
            raise FcosError(f"{path} holds {bare!r} twice, with and without the prefix of a wrapped model.")
        tensors[bare] = item
    if not tensors:
        raise FcosError(f"{path} holds no weights.")
    if all(name.startswith("model.") for name in tensors):  # PyTorch Lightning's
        return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return tensors


def _kind_and_maker(
    tensors: Mapping[str, Tensor], extra: Mapping[str, Any], config: str | None, path: str
) -> tuple[str, Provenance]:
    if families := families_of(tensors):
        own = config if families[0] is OURS else None
        return families[0].name, Provenance(pixels=None if own is None else _pixels_of(parse_yaml(own, path)))
    if (origin := origin_of(tensors)) is None:
        return "", NOBODY
    return "backbone", provenance_of(origin, tensors, extra.get("__author__"), path)


def _pixels_of(config: Any) -> Pixels | None:
    """What the model of a stored config reads."""
    node = config.get("model", config.get("MODEL")) if isinstance(config, dict) else None
    if not isinstance(node, dict):
        return None
    given = config.get("INPUT")
    order = node.get("input_format", given.get("FORMAT") if isinstance(given, dict) else None)
    pixels: list[Any] = [node.get(f"pixel_{x}", node.get(f"PIXEL_{x.upper()}")) for x in ("mean", "std")]
    try:
        return Pixels(str(order), tuple(pixels[0]), tuple(pixels[1]))
    except (TypeError, ValueError):  # a reference, or nothing
        return None


class Reading:
    """Files of weights, each read once, whatever is asked of it."""

    def __init__(self) -> None:
        self._held: dict[Path, dict[str, Any]] = {}

    def weights(self, path: str | Path) -> Weights:
        """What `read` gives, and raises."""
        return weights_of(self._payload(path), path)

    def config_text(self, path: str | Path) -> str:
        """The config that a checkpoint holds, as text.

        Raises:
            FcosError: it holds none.
        """
        text = self._payload(path).get("config")
        if not isinstance(text, str):
            raise FcosError(unsaid(path))
        return text

    def _payload(self, path: str | Path) -> dict[str, Any]:
        file = Path(path).expanduser().resolve()
        if file not in self._held:
            self._held[file] = load(path)
        return self._held[file]


TEXT_OF.update(dict.fromkeys(SUFFIXES, lambda path: Reading().config_text(path)))
