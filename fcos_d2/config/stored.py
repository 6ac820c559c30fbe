"""A config as data: how it is kept in a checkpoint, and what may be made of it.

A stored config may come from a stranger. It is plain YAML whose references stay inside it; each `_target_` of what is
resolved must be a row of `targets` or of a plugin, with arguments that the row knows and numbers that a detector has.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn, TypeGuard, Union

import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.config.instantiate import dump_dataclass
from detectron2.layers import ShapeSpec
from omegaconf import DictConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import FcosError
from . import plugins
from .plain import Path as KeyPath
from .plain import check_number, dotted, has_reference, is_plain_reference, nodes, parse_yaml, resolve
from .targets import KINDS, import_path, target
from .yacs import build_yacs, read_yacs, sentence

__all__ = ["Config", "MissingPart", "build", "check_complete", "dump_config", "limited_memory", "parse_config"]

Config = Union[DictConfig, CfgNode]  # noqa: UP007  # evaluated at import, where DictConfig has no `|`

# What each node of a LazyConfig is made of; other nodes are not built by anything here.
_KINDS_OF = {
    "model": ("model",), "dataloader": ("data", "transform", "evaluator"), "optimizer": ("optimizer",),
    "lr_multiplier": ("optimizer",), "train": (),
}  # fmt: skip
# Parts of `DenseFCOS` that inference does not use.
_ONLY_TRAINING = ("loss", "assigner")
_PLUGINS = "plugins"  # key of a stored config: modules that it was made with, as a remark
_LARGEST_MODEL = 2**31  # numbers in weights and buffers, where nothing is known about them


# Writing


def dump_config(cfg: Config) -> str:
    """Write a config as YAML that `parse_config` reads back.

    References such as `${...num_classes}` stay references, so overrides work on what is read back; resolvers are
    replaced by what they give. A `_target_` becomes its import path, a tuple a list, a dataclass a node with a
    `_target_`. Modules of other projects are listed under "plugins".

    Raises:
        FcosError: the config holds something else than numbers, strings, lists and nodes (a lambda, say); the message
            names the key.
    """
    if isinstance(cfg, CfgNode):
        return cfg.dump()
    tree = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.INSTANTIATE)
    plain = _plain(tree, cfg, ())
    plain.pop(_PLUGINS, None)
    if names := list(plugins.modules_of(cfg)):
        plain[_PLUGINS] = names
    return yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


_SHAPE = ("channels", "height", "width", "stride")


def _plain(value: Any, cfg: DictConfig, path: KeyPath) -> Any:
    """Numbers, strings, lists and dicts for a value of `OmegaConf.to_container`; `path` leads to it in `cfg`."""
    if isinstance(value, ShapeSpec) and isinstance(value, tuple):  # in Detectron2 0.6; later a dataclass
        value = {"_target_": import_path(ShapeSpec), **{k: getattr(value, k) for k in _SHAPE}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dump_dataclass(value)
    if isinstance(value, Mapping):
        return {key: _plain(item, cfg, (*path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, cfg, (*path, i)) for i, item in enumerate(value)]
    if isinstance(value, str) and path[-1:] == ("_target_",):
        return row.path if (row := plugins.find(value)) else value
    if has_reference(value) and not is_plain_reference(value):  # whoever reads it may not have the resolver
        node: Any = reduce(operator.getitem, path, cfg)
        return _plain(OmegaConf.to_container(node) if OmegaConf.is_config(node) else node, cfg, path)
    if isinstance(value, (type(None), bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if path[-1:] == ("_target_",) and callable(value):
        if name := import_path(value):
            return name
        raise FcosError(
            f"The config cannot be stored: {dotted(path)} is {value!r}, which cannot be imported; define it in a "
            "module of its own, not in the config file or in a function."
        )
    raise FcosError(f"The config cannot be stored: {dotted(path)} is {value!r}, which is not plain data.")


# Reading


def parse_config(text: str, origin: str, path: Path | None = None) -> Config:
    """Read what `dump_config` wrote; nothing that it names is imported or called.

    Args:
        text: YAML.
        origin: what to call it in messages.
        path: of the YAML file that it is from; one of Detectron2's keys may build on others (`_BASE_`).
    Returns:
        A `CfgNode` for Detectron2's YAML keys, else a `DictConfig` whose references are still references. An unknown
        loss or assigner, which inference does not use, is replaced by a `MissingPart`.
    Raises:
        FcosError: it is no config, or asks for something that is not a part of a detector; one sentence.
    """
    tree = parse_yaml(text, origin)
    if not tree or not isinstance(tree, dict):
        raise FcosError(f"{origin} holds no config{f' but {type(tree).__name__}' if tree else ': it is empty'}.")
    plugins.load_plugins()
    if not isinstance(tree.get("model"), dict):
        return read_yacs(tree, origin, path)
    names = tree.pop(_PLUGINS, [])
    if not isinstance(names, list) or len(names) > 20 or not all(map(plugins.is_name, names)):
        raise FcosError(f"{origin} has under {_PLUGINS!r} something else than names of modules.")
    _replace_missing(tree["model"])
    resolved = resolve(tree, origin)
    for key, value in resolved.items():
        _check(value, (key,), _KINDS_OF.get(key, KINDS), origin, names)
    for at, node in nodes(tree):
        if (
            isinstance(node, dict)
            and "_target_" in node
            and (row := plugins.find(reduce(operator.getitem, at, resolved)["_target_"]))
        ):
            node["_target_"] = row.path
    return OmegaConf.create(tree, flags={"allow_objects": True})


@target("model")
class MissingPart(nn.Module):
    """In the place of a part of another project that only training needs, and that this process does not know.

    Args:
        name: dotted path of the part.
    """

    weights_unused = True  # `weights.fit` leaves out what a file holds for it

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise FcosError(f"Training needs {self.name}, a part of another project: add {_plugin_option(self.name)}.")


def check_complete(model: nn.Module) -> None:
    """Check before training that no part is missing.

    Raises:
        FcosError: a `MissingPart` is in the model; the message says how to get the part.
    """
    for part in model.modules():
        if isinstance(part, MissingPart):
            part.forward()


def _plugin_option(path: str, modules: Sequence[str] = ()) -> str:
    """What to add for a part, which may lie in one of some modules."""
    return f"--plugin {next((m for m in modules if path.startswith(f'{m}.')), path.rpartition('.')[0])}"


def _is_foreign(name: Any) -> TypeGuard[str]:
    """Whether it names a part of another project that this process does not know."""
    return plugins.is_name(name) and "." in name and not plugins.allowed(name)


def _replace_missing(model: dict) -> None:
    """Replace unknown parts of other projects that only training needs."""
    for _, node in list(nodes(model)):
        if isinstance(node, dict) and {*_ONLY_TRAINING, "head", "coder"} <= node.keys():
            for key in _ONLY_TRAINING:
                if isinstance(part := node[key], dict) and _is_foreign(name := part.get("_target_")):
                    node[key] = {"_target_": import_path(MissingPart), "name": name}


# Checking


def _check(tree: Any, start: KeyPath, kinds: tuple[str, ...], origin: str, modules: Sequence[str] = ()) -> None:
    """Check a tree whose references are replaced.

    Args:
        tree: of plain data.
        start: its path.
        kinds: of targets that belong there.
        origin: what to call the config in messages.
        modules: of other projects that it says it was made with.
    Raises:
        FcosError: a target, an argument or a number does not belong in a detector's config.
    """
    for path, value in nodes(tree, start):
        check_number(path, value, origin)
        if not isinstance(value, dict):
            continue
        if wrong := [key for key in value if str(key).startswith("_") and key != "_target_"]:
            raise FcosError(f"{origin} has at {dotted(path)} the key {wrong[0]!r}, which no part takes.")
        if "_target_" in value:
            _check_target(path, value, kinds, origin, modules)


def _check_target(path: KeyPath, node: dict, kinds: tuple[str, ...], origin: str, modules: Sequence[str]) -> None:
    name = node["_target_"]
    row = plugins.find(name) if isinstance(name, str) else None
    if row is None and _is_foreign(name):
        which = f"of another project: add {_plugin_option(name, modules)} if you trust it"
    else:
        which = "no known part of fcos_d2, Detectron2 or PyTorch"
    if row is None:
        raise FcosError(f"{origin} names {name!r} at {dotted(path)}, which is {which}.")
    if row.kind not in (*kinds, "any"):
        raise FcosError(f"{origin} names {row.path!r} at {dotted(path)}, where no {row.kind} belongs.")
    unknown = [key for key in node if key != "_target_" and key not in row.arguments]
    if unknown and ("**" not in row.arguments or "cfg" in unknown):
        raise FcosError(
            f"{origin} gives {row.path} at {dotted(path)} the argument {unknown[0]!r}, which it does not take from a "
            "stored config (no functions, no files to unpickle, no configs in a config)."
        )


# Building


def build(node: Any, origin: str = "The config", *, kind: str = "model", elements: int = _LARGEST_MODEL) -> Any:
    """Instantiate a node of a stored config, after checking it once more as it is resolved now.

    Args:
        node: of what `parse_config` gave, overrides applied; or a `CfgNode`, whose model is built, on PyTorch's device.
        origin: what to call the config in messages.
        kind: of its targets, one of `targets.KINDS`.
        elements: numbers that its weights and buffers may have together.
    Raises:
        FcosError: the node is not what a stored config may hold, or nothing can be made of it; one sentence.
    """
    if isinstance(node, CfgNode):
        with limited_memory(elements, origin):
            return build_yacs(node, origin)
    try:
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise FcosError(f"{origin} has a reference that leads nowhere: {sentence(error)}") from error
    _check(plain, (kind if kind == "model" else "augmentations",), (kind,), origin)
    with limited_memory(elements, origin):
        return _make(plain)


def _make(value: Any) -> Any:
    if isinstance(value, list):
        return [_make(item) for item in value]
    if isinstance(value, dict) and "_target_" in value and (row := plugins.find(value["_target_"])):
        return row.make(**{key: _make(item) for key, item in value.items() if key != "_target_"})
    return value


_FILLERS = {
    *(Tensor.uniform_, Tensor.normal_, Tensor.zero_, Tensor.fill_),
    *(nn.init.kaiming_uniform_, nn.init.kaiming_normal_),
}
_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange, torch.linspace}


class limited_memory(TorchFunctionMode):  # a context manager
    """While it lasts, what is built may ask for so many numbers and no more; errors of building are one sentence.

    Args:
        elements: of all tensors together.
        origin: what to call the config in messages.
    """

    def __init__(self, elements: int, origin: str) -> None:
        super().__init__()
        self.left = self.most = elements
        self.origin = origin

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:  # asked on a device without memory first
            self.left -= func(*args, **{**kwargs, "device": "meta"}).numel()
        filled = kwargs.get("tensor", args[0] if args else None)  # Detectron2's layers make some as torch.Tensor(...)
        if self.left < 0 or (func in _FILLERS and isinstance(filled, Tensor) and filled.numel() > self.most):
            raise FcosError(f"{self.origin} describes a model of more than {self.most:,} numbers: too large.")
        return func(*args, **kwargs)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, Exception) and not isinstance(error, FcosError):
            raise FcosError(f"{self.origin} describes nothing that can be built: {sentence(error)}") from error
