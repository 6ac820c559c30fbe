"""Parts of another project: what the running program knows may be named by stored configs, too.

Allowed are classes in the registries of FCOS and of Detectron2 (whoever imported them chose to), what `allow` was
given, modules that installed packages announce as entry points of the group "fcos_d2.plugins", and modules that the
user names (`--plugin MODULE`). A file may say which plugins it was made with, but is never the reason to import one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from ..errors import FcosError
from .plain import nodes
from .targets import REGISTRIES, Target, arguments_of, import_path, paths_of
from .targets import find as find_ours

__all__ = [
    "allow", "allowed", "find", "forget", "is_name", "load_announced", "load_plugins", "modules_of"
]  # fmt: skip

GROUP = "fcos_d2.plugins"

# Packages that no plugin lives in: what they hold is in the table of targets, or not for stored configs.
_NO_PLUGINS = {"builtins", "torch", "torchvision", "detectron2", "fvcore", "iopath", "omegaconf", "hydra", "yaml"}
_NO_PLUGINS |= {"fcos_d2", "numpy", "cv2", "PIL", "pip", "setuptools", "pkg_resources", "pycocotools"}
_NO_PLUGINS |= set(sys.stdlib_module_names)

_ALLOWED: dict[str, Target] = {}
_LOADED: list[str] = []  # by name, in order

_T = TypeVar("_T", bound=Callable[..., Any])
logger = logging.getLogger("fcos_d2")


def allow(made: _T) -> _T:
    """Let stored configs of this process name a class or function; a decorator, or a plain call."""
    row = Target(made, "any", arguments_of(made, others=True))
    _ALLOWED.update(dict.fromkeys(paths_of(made), row))
    return made


def allowed(path: str) -> bool:
    """Whether a stored config may name it in this process, ours and Detectron2's parts included."""
    return find(path) is not None


def find(path: str) -> Target | None:
    """The class or function that a stored config may mean by a dotted path; nothing is imported."""
    if row := find_ours(path) or _ALLOWED.get(path):
        return row
    for registry in REGISTRIES:
        for _, made in registry:
            if inspect.isclass(made) and path in paths_of(made):
                return Target(made, "any", arguments_of(made, others=True))
    return None


def is_name(text: object) -> bool:
    """Whether it can be the dotted name of a plugin, or of something in one."""
    parts = text.split(".") if isinstance(text, str) else [""]
    return all(map(str.isidentifier, parts)) and parts[0] not in _NO_PLUGINS


def load_plugins(names: Iterable[str] = ()) -> None:
    """Import plugins and allow the public classes and functions that they define.

    Args:
        names: modules or packages, importable from where Python looks or from the current folder. Those that installed
            packages announce are imported, too.
    Raises:
        FcosError: one that is named cannot be imported; one sentence.
    """
    load_announced()
    for name in names:
        if name in _LOADED:
            continue
        if not is_name(name):
            raise FcosError(f"--plugin {name} is no plugin: give the name of a module of your project, like my_parts.")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            module = importlib.import_module(name)
        except Exception as error:  # whatever a module does while it is imported
            reason = " ".join(str(error).split()).rstrip(".")
            raise FcosError(
                f"The plugin {name} cannot be imported ({type(error).__name__}: {reason}): install it, or run in its "
                "folder."
            ) from error
        _allow_module(module)
        _LOADED.append(name)


def forget(name: str) -> None:
    """Take back what `load_plugins` allowed of a module."""
    for path in [path for path, row in _ALLOWED.items() if f"{row.make.__module__}.".startswith(f"{name}.")]:
        del _ALLOWED[path]
    if name in _LOADED:
        _LOADED.remove(name)


@cache
def load_announced() -> None:
    """Those of installed packages; a broken one is a warning, since other detectors do not need it."""
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            _allow_module(importlib.import_module(entry.module))
        except Exception as error:
            logger.warning("The plugin %s of an installed package cannot be imported: %s", entry.module, error)


def _allow_module(module: ModuleType) -> None:
    """Allow what a module defines, and for a package what its imported modules do."""
    for other in [m for key, m in list(sys.modules.items()) if f"{key}.".startswith(f"{module.__name__}.")]:
        for key, made in list(vars(other).items()):
            defined_here = getattr(made, "__module__", None) == other.__name__
            if defined_here and not key.startswith("_") and (inspect.isclass(made) or inspect.isfunction(made)):
                allow(made)


def modules_of(cfg: DictConfig) -> tuple[str, ...]:
    """What `--plugin` must name to use a config as data: plugins named in this process, and modules of its targets."""
    found = list(_LOADED)
    for path, value in nodes(OmegaConf.to_container(cfg, resolve=False)):
        name = "" if path[-1:] != ("_target_",) else value if isinstance(value, str) else import_path(value)
        if is_name(name) and find_ours(name) is None:
            module = name.removesuffix(f".{getattr(value, '__qualname__', name.rpartition('.')[2])}")
            if not any(f"{module}.".startswith(f"{known}.") for known in found):
                found.append(module)
    return tuple(found)
