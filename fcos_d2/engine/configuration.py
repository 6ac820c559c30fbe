"""Where a config comes from, and how it is kept in a checkpoint.

`load_config` reads a LazyConfig (.py), a YAML file (Detectron2's keys, or a stored LazyConfig), the config inside a
checkpoint, or a variant by its name. `dump_config` writes either kind as YAML text and `parse_config` reads that text.

A stored config is data from elsewhere: `_target_` could name anything that can be imported. `parse_config` therefore
accepts only parts of this package, of Detectron2 and of PyTorch that build models, data and optimizers.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
import yaml
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.config.instantiate import dump_dataclass
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException

from ..config import add_fcos_config
from ..errors import FcosError
from .overrides import apply_lazy, apply_yacs, suggestion, yacs_keys

__all__ = ["TRAIN_OPTIONS", "Config", "dump_config", "load_config", "parse_config"]

Config = Union[DictConfig, CfgNode]  # noqa: UP007  # evaluated at import, where DictConfig has no `|`

CHECKPOINTS = (".pth", ".pt", ".pkl", ".pyth", ".bin")

# `cfg.train` as `LazyTrainer` reads it; a config states what it wants otherwise. Those with a * are not Detectron2's.
TRAIN_OPTIONS: dict[str, Any] = {
    "output_dir": "./output",
    "init_checkpoint": "",  # a detector to fine-tune, or ImageNet weights; empty: from scratch
    "init_classes": "check",  # * of another detector's class layer: "check" the names, "drop" the layer, "keep" it
    "max_iter": 90000,
    "eval_period": 5000,  # iterations; 0: at the end only
    "log_period": 20,
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    "device": "cpu",
    "seed": -1,  # negative: another one each time
    "amp": {"enabled": False, "dtype": "auto"},  # * dtype "fp16", "bf16", or "auto": fp16 on CUDA, bf16 on the CPU
    "ema": {"enabled": False, "decay": 0.9998},  # * moving average of the weights, used for evaluation
    "grad_accumulation": 1,  # * parts that each batch is computed in, one after the other; the result is the same
    "gradient_checkpointing": "none",  # * what is computed twice to save memory: "backbone", or "all" with the head
    "channels_last": False,  # * memory format of weights and maps: channels beside each other; on the CPU always
    "clip_grad": 0.0,  # * largest norm of the gradient; 0: not clipped
    "early_stop": {"patience": 0},  # * evaluations without improvement after which training ends; 0: never
    "best_metric": "bbox/AP",  # * decides which weights are model_best.pth
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
}

# Modules whose classes and functions a stored config may name.
_TRUSTED = (
    "fcos_d2.data.loader",
    "fcos_d2.data.mapper",
    "fcos_d2.engine.coco_evaluation",
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


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config and apply overrides strictly.

    Args:
        source: a LazyConfig (.py), a YAML file, a checkpoint that holds its config, or the name of a variant.
        overrides: `key=value` each; for YAML configs `KEY`, `VALUE` pairs, too.
    Returns:
        A `DictConfig`, with all `TRAIN_OPTIONS` if it has a node `train`; for Detectron2's YAML keys a `CfgNode`.
    Raises:
        FcosError: there is no such file or name, or it or an override is wrong; one sentence.
    """
    cfg = _read(str(source))
    if isinstance(cfg, CfgNode):
        return apply_yacs(cfg, overrides)
    if "train" in cfg:
        _fill(cfg.train, TRAIN_OPTIONS)
    return apply_lazy(cfg, overrides)


def _read(source: str) -> Config:
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if suffix not in (".py", ".yaml", ".yml", *CHECKPOINTS):
        return _variant(source)
    if not path.is_file():
        raise FcosError(f"The {'checkpoint' if suffix in CHECKPOINTS else 'config'} file {source} does not exist.")
    if suffix == ".py":
        return _python(path)
    if suffix in CHECKPOINTS:
        from .checkpoint import load

        text = load(path).get("config")
        if not isinstance(text, str):
            raise FcosError(
                f"The checkpoint {source} holds no config: give the config (a file or the name of a variant), and the "
                "checkpoint as its weights."
            )
        return parse_config(text, f"the checkpoint {source}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FcosError(f"The config file {source} cannot be read: {error}.") from error
    if _is_lazy(_yaml(text, source)):
        return parse_config(text, source)
    return _yacs(path=path)


def _variant(name: str) -> Config:
    from .. import zoo

    return zoo.get_config(name)


def _python(path: Path) -> DictConfig:
    try:
        cfg = LazyConfig.load(str(path))
    except FcosError:
        raise
    except SyntaxError as error:
        cause = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
        raise FcosError(f"The config file {path} is not Python: {cause.msg} (line {cause.lineno}).") from error
    except Exception as error:  # whatever a config file does while it runs
        raise FcosError(f"The config file {path} cannot be loaded: {_sentence(error)}") from error
    if "model" not in cfg:
        held = ", ".join(map(str, cfg)) or "no configs"
        raise FcosError(f"The config file {path} defines no 'model'; it has: {held}.")
    return cfg


def _yacs(path: Path | None = None, text: str = "", origin: str = "") -> CfgNode:
    cfg = get_cfg()
    add_fcos_config(cfg)
    origin = origin or str(path)
    try:
        if path is not None:
            cfg.merge_from_file(str(path), allow_unsafe=False)
        else:
            cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(text)))
    except KeyError as error:
        key = str(error.args[0]).rpartition(": ")[2]
        raise FcosError(f"{origin} has the unknown key {key}{suggestion(key, list(yacs_keys(cfg)))}") from error
    except FileNotFoundError as error:
        raise FcosError(f"{origin} builds on {error.filename}, which does not exist.") from error
    except Exception as error:
        raise FcosError(f"{origin} is not a config: {_sentence(error)}") from error
    return cfg


# Configs as text


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
    tree = _yaml(text, origin)
    if not isinstance(tree, dict):
        raise FcosError(f"{origin} holds no config but {type(tree).__name__}.")
    if not _is_lazy(tree):
        return _yacs(text=text, origin=origin)
    for path, target, node in _targets(tree, ()):
        if any(node.get(name) for name in _REFUSED_ARGUMENTS):
            raise FcosError(f"The config in {origin} asks at {path} to unpickle files, which may run code.")
        if not _is_trusted(target):
            raise FcosError(
                f"The config in {origin} names {target!r} at {path}, which is no known part of fcos_d2, Detectron2 or "
                "PyTorch: load the .py config instead, and the checkpoint as its weights."
            )
    return OmegaConf.create(tree, flags={"allow_objects": True})


def _yaml(text: str, origin: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise FcosError(f"{origin} is not plain YAML{where}: {getattr(error, 'problem', None) or error}.") from error


def _is_lazy(tree: object) -> bool:
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


def _fill(node: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Add what is missing."""
    for key, value in defaults.items():
        if key not in node:
            node[key] = copy.deepcopy(value)
        elif isinstance(value, Mapping) and isinstance(node[key], DictConfig):
            _fill(node[key], value)


def _sentence(error: Exception) -> str:
    """The error in one line, with its kind where the message alone says little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if isinstance(error, OmegaConfBaseException) else " ".join(lines)
    known = isinstance(error, ValueError) and text
    return (text if known else f"{type(error).__name__}: {text}").rstrip(".") + "."
