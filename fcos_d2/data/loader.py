"""Detectron2's loaders, with pinned memory for the way to a GPU, which they lack in release 0.6.

A training loader is endless and is iterated once, so its processes live as long as the training. One for evaluation is
made for each evaluation and ends with it: its processes would only hold memory in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["build_test_loader", "build_train_loader", "pinned"]


def build_train_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Callable[[dict], Any] | None,
    total_batch_size: int,
    sampler: Sampler | None = None,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    pin_memory: bool | None = None,
) -> Any:
    """`detectron2.data.build_detection_train_loader`.

    Args:
        pin_memory: see `pinned`; the others are Detectron2's.
    """
    loader = build_detection_train_loader(
        dataset,
        mapper=mapper,
        sampler=sampler,
        total_batch_size=total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
    )
    return pinned(loader, pin_memory)


def build_test_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Callable[[dict], Any] | None,
    sampler: Sampler | None = None,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    pin_memory: bool | None = None,
) -> DataLoader:
    """`detectron2.data.build_detection_test_loader`.

    Args:
        pin_memory: see `pinned`; the others are Detectron2's.
    """
    loader = build_detection_test_loader(
        dataset, mapper=mapper, sampler=sampler, num_workers=num_workers, collate_fn=collate_fn
    )
    return pinned(loader, pin_memory)


def pinned(loader: Any, pin_memory: bool | None = None) -> Any:
    """Let a loader of Detectron2's put its images into page-locked memory, from which a GPU reads them faster.

    Args:
        loader: not iterated yet; changed in place.
        pin_memory: by default, where PyTorch finds a CUDA device.
    Returns:
        The same loader.
    """
    innermost = loader
    while not isinstance(innermost, DataLoader):  # what groups by aspect ratio, and what collates
        innermost = innermost.dataset if hasattr(innermost, "dataset") else innermost._dataset
    innermost.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
    return loader
