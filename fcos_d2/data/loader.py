"""Loaders of training and evaluation data.

`TrainLoader` serves what Detectron2's training loader serves (an endless, seeded order of images, augmented, grouped by
aspect ratio), but each batch depends on two numbers alone: a seed and its position. It groups by the sizes in the
annotations and seeds each sample with its number. So a resumed training goes to its position without decoding an image,
and the number of loader processes changes nothing.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data.build import trivial_batch_collator
from detectron2.data.common import DatasetFromList
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ..errors import FcosError
from .random_state import seeded

__all__ = [
    "ImageError", "NamedMapper", "RandomSubsetSampling", "RepeatFactorSampling", "TrainLoader", "build_test_loader",
    "build_train_loader",
]  # fmt: skip


class ImageError(FcosError):
    """An image cannot be used; says which. Stays one sentence when a loader process hands it on with a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("ImageError: ")[2].strip())


class NamedMapper:
    """A mapper whose errors name the image file."""

    def __init__(self, mapper: Callable[[dict], Any]) -> None:
        self.mapper = mapper

    def __call__(self, record: dict) -> Any:
        try:
            return self.mapper(record)
        except FcosError:
            raise
        except (OSError, SyntaxError, ValueError, AssertionError) as error:  # Pillow's, and Detectron2's of sizes
            name = record.get("file_name", "without a name") if isinstance(record, dict) else "without a name"
            reason = str(error).strip().partition("\n")[0].rstrip(".,") or type(error).__name__
            raise ImageError(f"The image {name} cannot be used: {reason}.") from error


@dataclass(frozen=True)
class RepeatFactorSampling:
    """Images of classes rarer than a threshold come more often: Detectron2's `RepeatFactorTrainingSampler`."""

    threshold: float

    def __call__(self, records: Any) -> Sampler:
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, self.threshold)
        return RepeatFactorTrainingSampler(factors)


@dataclass(frozen=True)
class RandomSubsetSampling:
    """A random share of the images, the same all along: Detectron2's `RandomSubsetTrainingSampler`."""

    ratio: float

    def __call__(self, records: Any) -> Sampler:
        return RandomSubsetTrainingSampler(len(records), self.ratio)


@dataclass(frozen=True)
class TrainLoader:
    """Endless training batches of this process."""

    records: Any  # indexable, one dict for each image
    mapper: Callable[[dict], Any] | None  # makes a sample, or None for another image instead; None: records as they are
    sampler: Sampler  # endless indices of this process
    batch_size: int  # images of a batch of this process
    grouped: bool = True  # whether a batch is all wide or all tall
    collate: Callable[[list], Any] = trivial_batch_collator  # a list of samples -> what the model takes
    num_workers: int = 0  # processes that load; 0: this one does
    pin_memory: bool = False  # whether images get into page-locked memory, from which a GPU reads them faster
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # more of PyTorch's `DataLoader`, where there are processes

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches(int(torch.randint(2**31, ()))))

    def batches(self, seed: int, position: int = 0) -> DataLoader:
        """The batches from a position on.

        Args:
            seed: of the augmentations, 0 or more; the same in all processes.
            position: batches to leave out.
        """
        return DataLoader(
            _Samples(self.records, self.mapper, seed),
            batch_sampler=itertools.islice(self._indices(), position, None),
            collate_fn=self.collate,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            worker_init_fn=_ignore_interrupts if self.num_workers else None,
            generator=torch.Generator(),  # the global one would lose a number, at another time when resumed
            **(self.options if self.num_workers else {}),
        )

    def _indices(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of (image, number of the sample)."""
        rank, processes = comm.get_rank(), comm.get_world_size()
        wide = np.full(len(self.records), -1, np.int8)  # -1: not looked up yet
        groups: tuple[list, list] = ([], [])
        for i, index in enumerate(self.sampler):
            if self.grouped and wide[index] < 0:
                record = self.records[index]
                wide[index] = record.get("width", 0) > record.get("height", 0)
            group = groups[int(wide[index] > 0)]
            group.append((int(index), i * processes + rank))
            if len(group) == self.batch_size:
                yield group[:]
                group.clear()

    def order(self) -> list[int] | None:
        """The first images that the sampler names; None if it names others each time that it is asked."""
        found = []
        for seed in range(2):
            with seeded(seed):
                found.append(list(map(int, itertools.islice(self.sampler, 32))))
        return found[0] if found[0] == found[1] else None


class _Samples(Dataset):
    """Augmented samples; each draws its random numbers from its own seed."""

    def __init__(self, records: Any, mapper: Callable[[dict], Any] | None, seed: int) -> None:
        self.records, self.seed = records, seed
        self.mapper = None if mapper is None else NamedMapper(mapper)

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


def build_train_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Callable[[dict], Any] | None,
    total_batch_size: int,
    sampler: Sampler | Callable[[Any], Sampler] | None = None,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    pin_memory: bool | None = None,
) -> Any:
    """`detectron2.data.build_detection_train_loader`, whose batches can be put back to where they were.

    Args:
        sampler: or what makes one of the records; by default Detectron2's `TrainingSampler`.
        pin_memory: by default, where PyTorch finds a CUDA device; the others are Detectron2's.
    Returns:
        A `TrainLoader`; for an iterable data set, which has no positions, Detectron2's loader.
    Raises:
        AssertionError: the processes cannot share the batch.
    """
    if isinstance(dataset, IterableDataset):
        return build_detection_train_loader(
            dataset, mapper=mapper, sampler=sampler, total_batch_size=total_batch_size,
            aspect_ratio_grouping=aspect_ratio_grouping, num_workers=num_workers, collate_fn=collate_fn,
        )  # fmt: skip
    processes = comm.get_world_size()
    if total_batch_size < 1 or total_batch_size % processes:
        raise AssertionError(f"a batch of {total_batch_size} images cannot be shared by {processes} processes")
    records: Any = DatasetFromList(dataset, copy=False) if isinstance(dataset, list) else dataset
    if not isinstance(sampler, Sampler):
        sampler = TrainingSampler(len(records)) if sampler is None else sampler(dataset)
    return TrainLoader(
        records, mapper, sampler, total_batch_size // processes, aspect_ratio_grouping,
        collate_fn or trivial_batch_collator, num_workers, _pins(pin_memory),
    )  # fmt: skip


def build_test_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Callable[[dict], Any] | None,
    sampler: Sampler | None = None,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    pin_memory: bool | None = None,
) -> DataLoader:
    """`detectron2.data.build_detection_test_loader`; an error names the image.

    Args:
        pin_memory: by default, where PyTorch finds a CUDA device; the others are Detectron2's.
    """
    mapper = None if mapper is None else NamedMapper(mapper)
    loader = build_detection_test_loader(
        dataset, mapper=mapper, sampler=sampler, num_workers=num_workers, collate_fn=collate_fn
    )
    loader.pin_memory = _pins(pin_memory)
    return loader


def _pins(pin_memory: bool | None) -> bool:
    return torch.cuda.is_available() if pin_memory is None else pin_memory
