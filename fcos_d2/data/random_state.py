"""The global random generators of Python, NumPy and PyTorch, from which Detectron2's augmentations draw."""
# ruff: noqa: NPY002

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["generators_kept", "seed_generators", "seeded"]


def seed_generators(*numbers: int) -> None:
    """Seed all generators, CUDA's too, from some numbers, each 0 or more."""
    _seed_cpu(numbers)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(random.getrandbits(63))


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the generators of the CPU from some numbers, each 0 or more; afterwards they are as before."""
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    _seed_cpu(numbers)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


@contextmanager
def generators_kept() -> Iterator[None]:
    """Whatever the block draws or seeds: afterwards all generators, CUDA's too, are as before."""
    with torch.random.fork_rng(range(torch.cuda.device_count())), seeded(0):
        yield


def _seed_cpu(numbers: tuple[int, ...]) -> None:
    seeds = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(int(seeds[2]))  # `torch.manual_seed` would seed CUDA, too
