"""A config as data: how it is kept in a checkpoint, and what may be made of it.

A stored config may come from a stranger. It is plain YAML whose references stay inside it; each `_target_` of what is
resolved must be a row of `targets` or of a plugin, with arguments that the row knows and numbers that a detector has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Union

import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.config.instantiate import dump_dataclass
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_model
from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import FcosError
from . import plugins
from .plain import Path as KeyPath
from .plain import check_number, dotted, has_reference, is_plain_reference, nodes, parse_yaml, resolve
from .targets import KINDS, Target, import_path, target
from .yacs import read_yacs, sentence

__all__ = [
    "Config",
    "MissingPart",
    "build",
    "check_complete",
    "dump_config",
    "is_lazy",
    "limited_memory",
    "parse_config",
]

Config = Union[DictConfig, CfgNode]  # noqa: UP007  # evaluated at import, where DictConfig has no `|`

# What each node of a LazyConfig is made of; other nodes are not built by anything here.
_KINDS_OF = {
    "model": ("model",),
    "dataloader": ("data", "transform", "evaluator"),
    "optimizer": ("optimizer",),
    "lr_multiplier": ("optimizer",),
    "train": (),
}
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


def _plain(value: Any, cfg: DictConfig, path: KeyPath) -> Any:
    """Numbers, strings, lists and dicts for a value of `OmegaConf.to_container`; `path` leads to it in `cfg`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dump_dataclass(value)
    if isinstance(value, Mapping):
        return {key: _plain(item, cfg, (*path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, cfg, (*path, i)) for i, item in enumerate(value)]
    if isinstance(value, str) and path[-1:] == ("_target_",):
        row = plugins.find(value)
        return row.path if row else value
    if has_reference(value) and not is_plain_reference(value):  # whoever reads it may not have the resolver
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
    if path[-1:] == ("_target_",) and callable(value):
        if name := import_path(value):
            return name
        raise FcosError(
            f"The config cannot be stored: {dotted(path)} is {value!r}, which cannot be imported; define it in a "
            "module of its own, not in the config file or in a function."
        )
    raise FcosError(f"The config cannot be stored: {dotted(path)} is {value!r}, which is not plain data.")


# Reading


def is_lazy(tree: object) -> bool:
    return isinstance(tree, dict) and isinstance(tree.get("model"), dict)


def parse_config(text: str, origin: str) -> Config:
    """Read what `dump_config` wrote; nothing that it names is imported or called.

    Args:
        text: YAML.
        origin: what to call it in messages.
    Returns:
        A `CfgNode` for Detectron2's YAML keys, else a `DictConfig` whose references are still references. An unknown
        loss or assigner, which inference does not use, is replaced by a `MissingPart`.
    Raises:
        FcosError: it is no config, or asks for something that is not a part of a detector; one sentence.
    """
    tree = parse_yaml(text, origin)
    if not isinstance(tree, dict):
        raise FcosError(f"{origin} holds no config but {type(tree).__name__}.")
    if not is_lazy(tree):
        return read_yacs(tree=tree, origin=origin)
    plugins.load_plugins()
    names = tree.pop(_PLUGINS, [])
    if not isinstance(names, list) or len(names) > 20 or not all(map(plugins.is_name, names)):
        raise FcosError(f"{origin} has under {_PLUGINS!r} something else than names of modules.")
    resolved = resolve(tree, origin)
    for path in _replace_missing(resolved):
        _put(tree, path, _get(resolved, path), origin)
    check = _Check(origin, tuple(names))
    for key, value in resolved.items():
        check(value, (key,), _KINDS_OF.get(key, KINDS))
    for path, node in nodes(tree):
        if isinstance(node, dict) and "_target_" in node:
            node["_target_"] = check.row((*path, "_target_"), _get(resolved, path)["_target_"]).path
    return OmegaConf.create(tree, flags={"allow_objects": True})


def _get(tree: Any, path: KeyPath) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: Any, path: KeyPath, value: Any, origin: str) -> None:
    for key in path[:-1]:
        tree = tree[key] if isinstance(tree, (dict, list)) else None
    if not isinstance(tree, dict):
        raise FcosError(f"{origin} refers at {dotted(path)} to an unknown part of another project: state it in place.")
    tree[path[-1]] = value


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


def _plugin_option(path: str) -> str:
    return f"--plugin {path.rpartition('.')[0]}"


def _replace_missing(tree: dict) -> Iterator[KeyPath]:
    """Replace unknown parts of other projects that only training needs; yields where."""
    for path, node in list(nodes(tree["model"], ("model",))):
        if not isinstance(node, dict) or not {*_ONLY_TRAINING, "head", "coder"} <= node.keys():
            continue
        for key in _ONLY_TRAINING:
            part = node[key]
            name: Any = part.get("_target_") if isinstance(part, dict) else None
            if plugins.is_name(name) and "." in name and not plugins.allowed(name):
                node[key] = {"_target_": import_path(MissingPart), "name": name}
                yield (*path, key)


# Checking


@dataclasses.dataclass(frozen=True)
class _Check:
    """Checks what is resolved.

    Attributes:
        origin: what to call the config in messages.
        plugins: modules that it says it was made with.
    """

    origin: str
    plugins: tuple[str, ...] = ()

    def __call__(self, tree: Any, start: KeyPath, kinds: tuple[str, ...]) -> None:
        """Check a resolved tree.

        Args:
            tree: whose references are replaced.
            start: its path.
            kinds: of targets that belong there.
        Raises:
            FcosError: a target, an argument or a number does not belong in a detector's config.
        """
        for path, value in nodes(tree, start):
            if isinstance(value, dict):
                if wrong := [k for k in value if str(k).startswith("_") and k != "_target_"]:
                    raise FcosError(f"{self.origin} has at {dotted(path)} the key {wrong[0]!r}, which no part takes.")
                if "_target_" in value:
                    self._target(path, value, kinds)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                check_number(path, value, self.origin)

    def row(self, path: KeyPath, name: object) -> Target:
        row = plugins.find(name) if isinstance(name, str) else None
        if row is None:
            what = f"{self.origin} names {name!r} at {dotted(path[:-1])}, "
            if plugins.is_name(name) and "." in str(name):
                raise FcosError(f"{what}which is of another project: add {self._option(str(name))} if you trust it.")
            raise FcosError(f"{what}which is no known part of fcos_d2, Detectron2 or PyTorch.")
        return row

    def _option(self, name: str) -> str:
        inside = [module for module in self.plugins if name.startswith(f"{module}.")]
        return f"--plugin {inside[0]}" if inside else _plugin_option(name)

    def _target(self, path: KeyPath, node: dict, kinds: tuple[str, ...]) -> None:
        row = self.row((*path, "_target_"), node["_target_"])
        if row.kind not in kinds and row.kind != "any":
            raise FcosError(f"{self.origin} names {row.path!r} at {dotted(path)}, where no {row.kind} belongs.")
        unknown = [key for key in node if key != "_target_" and key not in row.arguments]
        if unknown and ("**" not in row.arguments or "cfg" in unknown):
            raise FcosError(
                f"{self.origin} gives {row.path} at {dotted(path)} the argument {unknown[0]!r}, which it does not take "
                "from a stored config (no functions, no files to unpickle, no configs in a config)."
            )


# Building


def build(node: Any, origin: str = "The config", *, kind: str = "model", elements: int = _LARGEST_MODEL) -> Any:
    """Instantiate a node of a stored config, after checking it once more as it is resolved now.

    Args:
        node: of what `parse_config` gave, overrides applied; or a `CfgNode`, whose model is built.
        origin: what to call the config in messages.
        kind: of its targets, one of `targets.KINDS`.
        elements: numbers that its weights and buffers may have together.
    Raises:
        FcosError: the node is not what a stored config may hold, or nothing can be made of it; one sentence.
    """
    if isinstance(node, CfgNode):
        for key, name, registry in (
            ("META_ARCHITECTURE", node.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
            ("BACKBONE.NAME", node.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        ):
            if name not in registry:
                raise FcosError(
                    f"{origin} has MODEL.{key} {name!r}, which nothing here registers: add --plugin MODULE if it is a "
                    "part of a project that you trust."
                )
        with limited_memory(elements, origin):
            return build_model(node)
    try:
        plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, (DictConfig, ListConfig)) else node
    except OmegaConfBaseException as error:
        raise FcosError(f"{origin} has a reference that leads nowhere: {sentence(error)}") from error
    check = _Check(origin)
    check(plain, (kind if kind == "model" else "augmentations",), (kind,))
    with limited_memory(elements, origin):
        return _make(plain, check)


class limited_memory(TorchFunctionMode):  # a context manager
    """While it lasts, what is built may ask for so many numbers and no more; errors of building are one sentence.

    Args:
        elements: of all tensors together.
        origin: what to call the config in messages.
    """

    def __init__(self, elements: int, origin: str) -> None:
        super().__init__()
        self.left = elements
        self.most = elements
        self.origin = origin

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:  # asked on a device without memory first
            self.left -= func(*args, **{**kwargs, "device": "meta"}).numel()
            if self.left < 0:
                raise FcosError(f"{self.origin} describes a model of more than {self.most:,} numbers: too large.")
        filled = kwargs.get("tensor", args[0] if args else None)  # Detectron2's layers make some as torch.Tensor(...)
        if func in _FILLERS and isinstance(filled, Tensor) and filled.numel() > self.most:
            raise FcosError(f"{self.origin} describes a model of more than {self.most:,} numbers: too large.")
        return func(*args, **kwargs)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, Exception) and not isinstance(error, FcosError):
            raise FcosError(f"{self.origin} describes nothing that can be built: {sentence(error)}") from error


_FILLERS = {
    Tensor.uniform_,
    Tensor.normal_,
    Tensor.zero_,
    Tensor.fill_,
    nn.init.kaiming_uniform_,
    nn.init.kaiming_normal_,
}
_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange, torch.linspace}


def _make(value: Any, check: _Check) -> Any:
    if isinstance(value, list):
        return [_make(item, check) for item in value]
    if not isinstance(value, dict) or "_target_" not in value:
        return value
    row = check.row(("_target_",), value["_target_"])
    return row.make(**{key: _make(item, check) for key, item in value.items() if key != "_target_"})
