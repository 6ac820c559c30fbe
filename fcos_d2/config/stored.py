"""A config as data: how it is kept in a checkpoint."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union

import numpy as np
import yaml
from detectron2.config import CfgNode
from detectron2.config.instantiate import dump_dataclass
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, OmegaConf, SCMode

from ..errors import FcosError
from .yacs import read_yacs

__all__ = ["Config", "dump_config", "is_lazy", "parse_config", "parse_yaml"]

Config = Union[DictConfig, CfgNode]  # noqa: UP007  # evaluated at import, where DictConfig has no `|`

# Modules whose classes and functions a stored config may name.
_TRUSTED = (
    "fcos_d2.data.loader",
    "fcos_d2.data.mapper",
    "fcos_d2.evaluation.coco",
    "fcos_d2.modeling",
    "detectron2.data.build",
    "detectron2.data.dataset_mapper",
    "detectron2.data.samplers",
    "detectron2.data.transforms",
    "detectron2.evaluation",
    "detectron2.layers",
    "detectron2.modeling",
    "detectron2.solver",
    "fvcore.common.param_scheduler",
    "fvcore.transforms",
    "torch.nn.modules",
    "torch.optim",
)
_REFUSED_ARGUMENTS = ("proposal_files",)  # Detectron2 unpickles these files


def dump_config(cfg: Config) -> str:
    """Write a config as YAML that `parse_config` reads back.

    References such as `${...num_classes}` stay references, so overrides work on what is read back. A `_target_` becomes
    its import path, a tuple a list, a dataclass a node with a `_target_`.

    Raises:
        FcosError: the config holds something else than numbers, strings, lists and nodes (a lambda, say); the message
            names the key.
    """
    if isinstance(cfg, CfgNode):
        return cfg.dump()
    tree = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.INSTANTIATE)
    plain = _plain(tree, cfg, ())
    return yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def parse_config(text: str, origin: str) -> Config:
    """Read what `dump_config` wrote, without running anything that it names.

    Args:
        text: YAML.
        origin: what to call it in messages.
    Raises:
        FcosError: it is no config, or names a target that is not a part of a detector.
    """
    tree = parse_yaml(text, origin)
    if not isinstance(tree, dict):
        raise FcosError(f"{origin} holds no config but {type(tree).__name__}.")
    if not is_lazy(tree):
        return read_yacs(text=text, origin=origin)
    for path, target, node in _targets(tree, ()):
        if any(node.get(name) for name in _REFUSED_ARGUMENTS):
            raise FcosError(f"The config in {origin} asks at {path} to unpickle files, which may run code.")
        if not _is_trusted(target):
            raise FcosError(
                f"The config in {origin} names {target!r} at {path}, which is no known part of fcos_d2, Detectron2 or "
                "PyTorch: load the .py config instead, and the checkpoint as its weights."
            )
    return OmegaConf.create(tree, flags={"allow_objects": True})


def parse_yaml(text: str, origin: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise FcosError(f"{origin} is not plain YAML{where}: {getattr(error, 'problem', None) or error}.") from error


def is_lazy(tree: object) -> bool:
    return isinstance(tree, dict) and isinstance(tree.get("model"), dict)


_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")


def _plain(value: Any, cfg: DictConfig, path: tuple) -> Any:
    """Numbers, strings, lists and dicts for a value of `OmegaConf.to_container`; `path` leads to it in `cfg`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dump_dataclass(value)
    if isinstance(value, Mapping):
        return {key: _plain(item, cfg, (*path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, cfg, (*path, i)) for i, item in enumerate(value)]
    if isinstance(value, str) and _RESOLVER.search(value):  # whoever reads it may not have the resolver
        node: Any = cfg
        for key in path:
            node = node[key]
        return _plain(OmegaConf.to_container(node) if OmegaConf.is_config(node) else node, cfg, path)
    if isinstance(value, (type(None), bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if path and path[-1] == "_target_" and callable(value):
        name = _convert_target_to_string(value)
        if "<" not in name:
            return name
    raise FcosError(f"The config cannot be stored: {'.'.join(map(str, path))} is {value!r}, which is not plain data.")


def _targets(tree: Any, path: tuple) -> Iterator[tuple[str, object, dict]]:
    """Each `_target_`, its path and its node."""
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield ".".join(map(str, path)), tree["_target_"], tree
        for key, value in tree.items():
            yield from _targets(value, (*path, key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from _targets(value, (*path, i))


def _is_trusted(target: object) -> bool:
    """Whether it names a class or function that one of the trusted modules defines (not merely imports)."""
    if not isinstance(target, str) or target.split(".")[0] not in {name.split(".")[0] for name in _TRUSTED}:
        return False
    try:
        found = locate(target)
    except Exception:
        return False
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    home = found.__module__
    return any(home == name or home.startswith(f"{name}.") for name in _TRUSTED)
