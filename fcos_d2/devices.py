"""Where PyTorch calculates: the device that a user names, or what the machine has."""

from __future__ import annotations

import os
from typing import Any

from .errors import FcosError

__all__ = ["cores", "find_device"]


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_device(name: str | None, key: str) -> Any:
    """The `torch.device` of a name.

    Args:
        name: "cpu", "cuda", "cuda:1", ...; None: a GPU if PyTorch finds one, else the CPU.
        key: where the name is from, for the message: an option, an argument, or a key of a config.
    Raises:
        FcosError: it names no device, or none that this machine has; one sentence.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise FcosError(f"{key} is {name!r}, which is no device: use cuda or cpu.") from error
    if device.type == "cpu":
        return device
    module: Any = getattr(torch, device.type, None)
    there: Any = torch.backends.mps if device.type == "mps" else module
    kind = device.type.upper()
    if module is None or not there.is_available():
        raise FcosError(f"{key} is {name!r}, but PyTorch finds no {kind} device here: pass {key}=cpu.")
    if device.index is not None and device.index >= (count := module.device_count()):
        raise FcosError(f"{key} is {name!r}, but the last {kind} device here is {device.type}:{count - 1}.")
    return device
