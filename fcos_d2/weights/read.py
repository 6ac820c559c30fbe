"""Checkpoints: written so that a file is either whole or the old one, read without running anything in them.

A checkpoint is a dict: "model" (weights), "trainer" (all that `LazyTrainer` needs to go on, see there), "iteration"
(the last one finished), "class_names", "config" (YAML text, see `configuration.parse_config`), and "ema" (averaged
weights) where training kept them. Detectron2's own `DetectionCheckpointer` reads the same files.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config.load import CHECKPOINTS, TEXT_OF
from ..errors import FcosError
from ..files import os_error

__all__ = ["load", "read_model_zoo"]


# How torch says that a file names an object which it does not know as harmless.
_UNSUPPORTED = re.compile(r"unsupported (?:global|class)[: ]+(?:GLOBAL )?([\w.]+)", re.IGNORECASE)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing in it is run.

    Args:
        path: a file of `torch.save`, or with the suffix .pkl one of Detectron2's model zoo.
    Raises:
        FcosError: the file is missing, cut off, damaged, or holds more than tensors and plain data.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FcosError(f"The checkpoint {path} does not exist.")
    if path.suffix == ".pkl":
        return read_model_zoo(path)
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from KeyError to UnpicklingError
        if cause := os_error(error):
            raise FcosError(f"The checkpoint {path} cannot be read: {cause.strerror or cause}.") from error
        if found := _UNSUPPORTED.search(str(error)):
            raise _hostile(path, found[1]) from error
        raise FcosError(f"The checkpoint {path} is cut off, damaged, or no checkpoint at all.") from error
    if not isinstance(payload, dict):
        raise FcosError(f"The checkpoint {path} holds {type(payload).__name__} instead of named weights.")
    return payload


def _hostile(path: Path, name: str) -> FcosError:
    return FcosError(
        f"The checkpoint {path} holds the object '{name}', which could run code when it is read; only tensors and "
        "plain data are accepted, and nothing was run."
    )


# Detectron2's model zoo


_PLAIN_OBJECTS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
}
_NUMPY_MAKERS = ("_reconstruct", "scalar")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of numbers, strings, containers and NumPy arrays."""

    path = Path()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN_OBJECTS:
            return _PLAIN_OBJECTS[module, name]
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in _NUMPY_MAKERS:
            return getattr(_multiarray(), name)
        if (module, name) == ("_codecs", "encode"):  # how Python 2 strings are written
            return _encode
        raise _hostile(self.path, f"{module}.{name}")


def _multiarray() -> Any:
    import importlib

    try:
        return importlib.import_module("numpy._core.multiarray")
    except ImportError:  # NumPy 1
        return importlib.import_module("numpy.core.multiarray")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "utf-8")


def read_model_zoo(path: str | Path) -> dict[str, Any]:
    """Read a .pkl of Detectron2's or Caffe2's model zoo: NumPy arrays and plain data only.

    Returns:
        "model": {name: array}, "__author__", and "matching_heuristics" where names have to be guessed, as
        `DetectionCheckpointer` expects.
    Raises:
        FcosError: the file is cut off, or holds any other object; nothing is run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            reader = _ArrayUnpickler(file, encoding="latin1")
            reader.path = path
            data = reader.load()
    except FcosError:
        raise
    except OSError as error:
        raise FcosError(f"The checkpoint {path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a damaged pickle raises anything
        raise FcosError(f"The checkpoint {path} is cut off, damaged, or no checkpoint at all.") from error
    if not isinstance(data, dict):
        raise FcosError(f"The checkpoint {path} holds {type(data).__name__} instead of named weights.")
    if "model" in data and "__author__" in data:
        return data
    arrays = data.get("blobs", data)
    weights = {name: value for name, value in arrays.items() if not str(name).endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def config_text(path: Path) -> str:
    """The config that a checkpoint holds, as text.

    Raises:
        FcosError: it holds none.
    """
    text = load(path).get("config")
    if not isinstance(text, str):
        raise FcosError(
            f"The checkpoint {path} holds no config: give the config (a file or the name of a variant), and the "
            "checkpoint as its weights."
        )
    return text


TEXT_OF.update(dict.fromkeys(CHECKPOINTS, config_text))
