"""The global random generators of Python, NumPy and PyTorch: kept, put back, seeded for a moment.

Detectron2's augmentations draw from the global generators, so these have to be the ones.
"""
# ruff: noqa: NPY002

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["random_state", "seeded", "set_random_state"]


def random_state() -> dict[str, Any]:
    """The state of all generators as plain data and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the generators of the CPU from some numbers, each 0 or more; afterwards they are as before."""
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    seeds = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(int(seeds[2]))  # `torch.manual_seed` would seed CUDA, too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])
