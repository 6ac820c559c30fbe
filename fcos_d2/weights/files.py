"""The tensors of a file, whatever is around them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FcosError
from .read import load

# Keys of the weights, the first that is there; "ema" are this package's averaged ones, which it prefers, too.
AVERAGED = "ema"
_WRAPPERS = (AVERAGED, "model", "state_dict", "model_state_dict")
# What wrapped models put before every name.
_PREFIXES = ("module.", "_orig_mod.")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint without running anything in it.

    Returns:
        Name -> tensor on the CPU, without the prefixes of wrapped models; and what else the file holds.
    Raises:
        FcosError: the file is missing, damaged, hostile, or holds no named tensors.
    """
    return unwrap(load(path), path)


def unwrap(payload: Mapping[str, Any], path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same of what a file holds."""
    wrapper = next((key for key in _WRAPPERS if isinstance(payload.get(key), Mapping)), None)
    named = payload if wrapper is None else payload[wrapper]
    around = {} if wrapper is None else {key: value for key, value in payload.items() if key not in _WRAPPERS}
    around[AVERAGED] = wrapper == AVERAGED
    tensors: dict[str, Tensor] = {}
    for name, value in named.items():
        if isinstance(value, np.ndarray):
            value = torch.as_tensor(value)
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FcosError(f"{path} holds {type(value).__name__} at {name!r} where a tensor of a model should be.")
        bare = _without_prefixes(name)
        if bare in tensors:
            raise FcosError(f"{path} holds {bare!r} twice, with and without the prefix of a wrapped model.")
        tensors[bare] = value
    if not tensors:
        raise FcosError(f"{path} holds no weights.")
    return tensors, around


def _without_prefixes(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name
