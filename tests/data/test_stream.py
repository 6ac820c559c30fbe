"""The stream of training samples: Detectron2's order, and a position that can be put back."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from torch.utils.data import DataLoader, Sampler

from fcos_d2.data.loader import build_train_loader
from fcos_d2.data.stream import SampleStream
from fcos_d2.errors import FcosError

RECORDS = [{"width": 2 + i % 3, "height": 3, "id": i} for i in range(13)]


def noisy(record):
    """A mapper that draws from all generators."""
    return {**record, "noise": (random.random(), float(np.random.rand()), float(torch.rand(())))}  # noqa: NPY002


def refuse_odd(record):
    return noisy(record) if record["id"] % 2 == 0 else None


def loader(mapper=noisy, seed=0, **options):
    options = {"sampler": TrainingSampler(len(RECORDS), seed=seed), "total_batch_size": 3, **options}
    return build_detection_train_loader([dict(r) for r in RECORDS], mapper=mapper, **options)


def take(stream, count):
    batches = list(itertools.islice(stream, count))
    if hasattr(stream, "close"):
        stream.close()
    return batches


def ids(batches):
    return [[sample["id"] for sample in batch] for batch in batches]


@pytest.mark.parametrize("grouped", [True, False])
def test_order_is_detectron2s(grouped):
    theirs = loader(aspect_ratio_grouping=grouped)
    assert ids(take(SampleStream(loader(aspect_ratio_grouping=grouped), 0), 30)) == ids(take(theirs, 30))


@pytest.mark.parametrize("workers", [0, 2])
def test_position_and_number_of_processes(workers):
    whole = take(SampleStream(loader(), 5), 12)
    stream = SampleStream(loader(num_workers=workers), 5)
    assert take(stream, 7) == whole[:7]  # noise included
    resumed = SampleStream(loader(num_workers=workers), 77)
    resumed.load_state_dict(stream.state_dict())
    assert take(resumed, 5) == whole[7:]
    assert take(SampleStream(loader(), 6), 12) != whole


def test_noise_differs_and_global_generators_stay():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    samples = [sample["noise"] for batch in take(SampleStream(loader(), 0), 20) for sample in batch]
    assert len(set(samples)) == len(samples)
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_no_record_is_mapped_on_the_way_to_a_position():
    mapped = []
    stream = SampleStream(loader(lambda record: mapped.append(record) or record), 0)
    stream.load_state_dict({**stream.state_dict(), "batches": 1000})
    next(stream)
    assert len(mapped) == 3


def test_other_samplers_and_collation():
    factors = torch.linspace(1, 3, len(RECORDS))
    make = lambda: loader(sampler=RepeatFactorTrainingSampler(factors, seed=1), collate_fn=tuple)  # noqa: E731
    whole, stream = take(SampleStream(make(), 0), 9), SampleStream(make(), 0)
    take(stream, 4)
    resumed = SampleStream(make(), 0)
    resumed.load_state_dict(stream.state_dict())
    assert take(resumed, 5) == whole[4:] and isinstance(whole[0], tuple)


def test_refused_images_are_replaced():
    batches = take(SampleStream(loader(refuse_odd), 0), 10)
    assert all(i % 2 == 0 for batch in ids(batches) for i in batch) and batches == take(
        SampleStream(loader(refuse_odd), 0), 10
    )
    with pytest.raises(FcosError, match="refused"):
        next(SampleStream(loader(lambda record: None), 0))


def test_changes_are_reported(caplog):
    stream = SampleStream(loader(), 0)
    take(stream, 8)
    other = SampleStream(loader(total_batch_size=6), 0)
    other.load_state_dict(stream.state_dict())
    assert "batch_size" in caplog.text and other.batches == 4


def test_another_order_of_the_sampler_is_reported(caplog):
    stream, other = SampleStream(loader(seed=1), 0), SampleStream(loader(seed=2), 0)
    other.load_state_dict(stream.state_dict())
    assert "because of a change in: order" in caplog.text


class Foreign(Sampler):
    """Endless, without Detectron2's attributes; another order each time unless it has a seed."""

    def __init__(self, seed):
        self.seed = seed

    def __iter__(self):
        draw = random.Random(self.seed) if self.seed is not None else random
        while True:
            yield draw.randrange(len(RECORDS))


def test_a_sampler_of_another_project_is_put_back_if_it_repeats_itself(caplog):
    """Today only samplers with Detectron2's private attributes are."""
    whole = take(SampleStream(loader(sampler=Foreign(3)), 0), 9)
    stream = SampleStream(loader(sampler=Foreign(3)), 0)
    take(stream, 4)
    resumed = SampleStream(loader(sampler=Foreign(3)), 0)
    resumed.load_state_dict(stream.state_dict())
    assert take(resumed, 5) == whole[4:] and "another order" not in caplog.text
    resumed = SampleStream(loader(sampler=Foreign(None)), 0)
    resumed.load_state_dict(stream.state_dict())
    assert "cannot be put back" in caplog.text


@pytest.mark.parametrize("grouped", [True, False])
def test_our_loader_needs_no_taking_apart(grouped):
    options = {"mapper": noisy, "total_batch_size": 3, "aspect_ratio_grouping": grouped, "collate_fn": tuple}
    ours = build_train_loader([dict(r) for r in RECORDS], sampler=TrainingSampler(len(RECORDS), seed=0), **options)
    expected = take(SampleStream(loader(aspect_ratio_grouping=grouped, collate_fn=tuple), 7), 20)
    assert take(SampleStream(ours, 7), 20) == expected and isinstance(expected[0], tuple)


def test_any_other_loader_is_served_and_said_not_to_resume(caplog):
    stream = SampleStream(DataLoader([1, 2, 3]), 0)
    assert [int(x) for x in (next(stream), next(stream), next(stream))] == [1, 2, 3]
    with pytest.raises(FcosError, match="ended after 3 batches"):
        next(stream)
    SampleStream(DataLoader([1]), 0).load_state_dict(stream.state_dict())
    assert "cannot be put back" in caplog.text
