"""Training data that can be put back to where it was.

Detectron2's training loader draws an endless, seeded order of images, augments them with the random numbers of
whichever process holds them, and groups them by aspect ratio once they are decoded. A resumed training would see other
images. `SampleStream` takes such a loader apart and serves the same batches so that each depends on two numbers alone:
the seed and the position. It groups by the sizes in the annotations and seeds the augmentation of each sample with its
position. So going back to a position decodes no image, and the number of loader processes changes nothing.
"""

from __future__ import annotations

import itertools
import logging
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data.build import trivial_batch_collator
from detectron2.data.common import AspectRatioGroupedDataset, MapDataset, ToIterableDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ..errors import FcosError
from .random_state import seeded

__all__ = ["ImageError", "SampleStream", "name_images"]

logger = logging.getLogger("fcos_d2")

_SAMPLER_STATE = ("_seed", "_seed_subset", "_indexes_subset")  # of Detectron2's samplers


class ImageError(FcosError):
    """An image cannot be used; says which. Stays one sentence when a loader process hands it on with a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("ImageError: ")[2].strip())


class NamedMapper:
    """A mapper whose errors name the image file.

    Args:
        mapper: what Detectron2's loaders call for each image.
    """

    def __init__(self, mapper: Callable[[dict], Any]) -> None:
        self.mapper = mapper

    def __call__(self, record: dict) -> Any:
        try:
            return self.mapper(record)
        except FcosError:
            raise
        except (OSError, SyntaxError, ValueError, AssertionError) as error:  # Pillow's, and Detectron2's of sizes
            name = record.get("file_name", "without a name") if isinstance(record, dict) else "without a name"
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = lines[0].rstrip(".,") if lines else type(error).__name__
            raise ImageError(f"The image {name} cannot be used: {reason}.") from error


def name_images(loader: Any) -> Any:
    """Make the errors of a loader of `build_detection_test_loader` name the image; others are returned as they are."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, MapDataset) and not isinstance(dataset._map_func, NamedMapper):
        dataset._map_func = NamedMapper(dataset._map_func)
    return loader


@dataclass(frozen=True)
class _Parts:
    """What `build_detection_train_loader` put together."""

    records: Any  # indexable, one dict for each image
    mapper: Callable[[dict], Any] | None
    sampler: Sampler
    batch_size: int
    grouped: bool
    collate: Callable[[list], Any]
    loader: DataLoader


def _take_apart(loader: Any) -> _Parts | None:
    """The parts of a Detectron2 training loader; None for any other."""
    collate, grouped, batch_size = trivial_batch_collator, False, None
    if hasattr(loader, "_map_func") and isinstance(getattr(loader, "_dataset", None), AspectRatioGroupedDataset):
        collate, loader = loader._map_func, loader._dataset
    if isinstance(loader, AspectRatioGroupedDataset):
        grouped, batch_size, loader = True, loader.batch_size, loader.dataset
    if not isinstance(loader, DataLoader) or not isinstance(loader.dataset, ToIterableDataset):
        return None
    records, sampler, mapper = loader.dataset.dataset, loader.dataset.sampler, None
    if isinstance(records, IterableDataset) or any(not hasattr(sampler, name) for name in _SAMPLER_STATE[:1]):
        return None
    if isinstance(records, MapDataset):
        records, mapper = records._dataset, records._map_func
    if not grouped:
        batch_size, collate = loader.batch_size, loader.collate_fn
    return _Parts(records, mapper, sampler, batch_size, grouped, collate, loader)


class SampleStream:
    """Endless batches for one process, with a position that is part of a checkpoint.

    Args:
        loader: from `build_detection_train_loader`, or any iterable, which then cannot be put back.
        seed: of the augmentations; the same in all processes.
    """

    def __init__(self, loader: Any, seed: int) -> None:
        self.loader = loader
        self.seed = seed
        self.batches = 0  # handed out so far
        self._parts = _take_apart(loader)
        self._iterator: Iterator | None = None

    def __iter__(self) -> SampleStream:
        return self

    def __next__(self) -> Any:
        """The next batch of this process.

        Raises:
            FcosError: the data has come to an end.
            ImageError: an image cannot be read; names it.
        """
        if self._iterator is None:
            self._iterator = iter(self._from(self.batches) if self._parts else self.loader)
        try:
            batch = next(self._iterator)
        except StopIteration:
            raise FcosError(
                f"The training data ended after {self.batches} batches; its sampler must be endless."
            ) from None
        self.batches += 1
        return batch

    def close(self) -> None:
        """End the loader's processes; the next batch, if any is asked for, starts them again."""
        self._iterator = None  # the loader shuts them down when nobody holds its iterator

    def _from(self, position: int) -> DataLoader:
        """A loader that starts at a batch."""
        parts, old = self._parts, self._parts.loader
        several = old.num_workers > 0
        return DataLoader(
            _Samples(parts.records, parts.mapper, self.seed),
            batch_sampler=_Batches(parts, position),
            collate_fn=parts.collate,
            num_workers=old.num_workers,
            pin_memory=old.pin_memory,
            prefetch_factor=old.prefetch_factor if several else None,
            timeout=old.timeout,
            worker_init_fn=_ignore_interrupts if several else None,
            multiprocessing_context=old.multiprocessing_context if several else None,
            generator=torch.Generator(),  # the global one would lose a number, at another time when resumed
        )

    def state_dict(self) -> dict[str, Any]:
        state = {"batches": self.batches, "seed": self.seed}
        if self._parts:
            state["sampler"] = {k: v for k, v in vars(self._parts.sampler).items() if k in _SAMPLER_STATE}
            state |= self._identity()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where another stream was; a warning says so if that place is not exactly known."""
        if not self._parts or "sampler" not in state:
            logger.warning("The training images go on in another order: this data loader cannot be put back.")
            return
        self._iterator = None
        self.seed = state["seed"]
        vars(self._parts.sampler).update(state["sampler"])
        now = self._identity()
        changed = [key for key in now if now[key] != state.get(key)]
        self.batches = state["batches"]
        if changed:
            logger.warning(
                "The training images go on in another order, because of a change in: %s.", ", ".join(changed)
            )
            seen = state["batches"] * state.get("batch_size", 1) * state.get("processes", 1)
            self.batches = seen // (now["batch_size"] * now["processes"])

    def _identity(self) -> dict[str, Any]:
        """What the order depends on besides the seeds."""
        parts = self._parts
        return {
            "images": len(parts.records),
            "batch_size": parts.batch_size,
            "grouped": parts.grouped,
            "processes": comm.get_world_size(),
            "sampler_name": type(parts.sampler).__name__,
        }


class _Batches(Sampler):
    """Lists of (image, number of the sample), grouped by aspect ratio if the loader did that.

    Args:
        parts: of the loader.
        position: batches to leave out.
    """

    def __init__(self, parts: _Parts, position: int) -> None:
        self.parts = parts
        self.position = position

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._all(), self.position, None)

    def _all(self) -> Iterator[list[tuple[int, int]]]:
        parts = self.parts
        rank, processes = comm.get_rank(), comm.get_world_size()
        wide = np.full(len(parts.records), -1, np.int8)  # -1: not looked up yet
        groups: tuple[list, list] = ([], [])
        for i, index in enumerate(parts.sampler):
            if parts.grouped and wide[index] < 0:
                record = parts.records[index]
                wide[index] = record.get("width", 0) > record.get("height", 0)
            group = groups[int(wide[index] > 0)]
            group.append((int(index), i * processes + rank))
            if len(group) == parts.batch_size:
                yield group[:]
                group.clear()


class _Samples(Dataset):
    """Augmented samples; each draws its random numbers from its own seed."""

    def __init__(self, records: Any, mapper: Callable[[dict], Any] | None, seed: int) -> None:
        self.records = records
        self.mapper = None if mapper is None else NamedMapper(mapper)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, number = key
        with seeded(self.seed, number):
            for _ in range(100):
                record = self.records[index]
                sample = record if self.mapper is None else self.mapper(record)
                if sample is not None:
                    return sample
                index = random.randrange(len(self.records))  # the mapper refuses this image
        raise FcosError("The mapper of the training data refused 100 images in a row.")


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes; the loaders go on until the trainer has finished its iteration."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
