"""Loaders are Detectron2's, and page-locked memory is asked for where it is of use."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from torch.utils.data import DataLoader

from fcos_d2.config.load import load_config
from fcos_d2.data.loader import build_test_loader, build_train_loader, pinned
from fcos_d2.data.stream import SampleStream

RECORDS = [{"width": 2 + i % 3, "height": 3, "id": i} for i in range(13)]


def as_tensor(record):
    return {**record, "image": torch.full((3, 2, 2), record["id"], dtype=torch.uint8)}


def options(**more):
    return {"mapper": as_tensor, "sampler": TrainingSampler(len(RECORDS), seed=3), "total_batch_size": 2, **more}


def inner(loader):
    while not isinstance(loader, DataLoader):
        loader = loader.dataset if hasattr(loader, "dataset") else loader._dataset
    return loader


@pytest.mark.parametrize("more", [{}, {"aspect_ratio_grouping": False}, {"collate_fn": tuple}, {"num_workers": 1}])
def test_training_batches_are_detectron2s(more):
    ours, theirs = (
        list(itertools.islice(make(RECORDS, **options(**more)), 8))
        for make in (build_train_loader, build_detection_train_loader)
    )
    assert [[x["id"] for x in batch] for batch in ours] == [[x["id"] for x in batch] for batch in theirs]
    assert type(ours[0]) is type(theirs[0])


def test_test_batches_are_detectron2s():
    ours, theirs = (list(make(RECORDS, mapper=as_tensor)) for make in (build_test_loader, build_detection_test_loader))
    assert [[x["id"] for x in batch] for batch in ours] == [[x["id"] for x in batch] for batch in theirs]


@pytest.mark.parametrize("more", [{}, {"aspect_ratio_grouping": False}, {"collate_fn": tuple}])
def test_pinned(more):
    assert inner(build_train_loader(RECORDS, **options(**more))).pin_memory is torch.cuda.is_available()
    for wanted in (True, False):
        loader = build_train_loader(RECORDS, pin_memory=wanted, **options(**more))
        assert inner(loader).pin_memory is wanted
        # The stream, which `LazyTrainer` reads from, hands it on.
        assert SampleStream(loader, 0)._from(0).pin_memory is wanted
        assert build_test_loader(RECORDS, mapper=None, pin_memory=wanted).pin_memory is wanted
    theirs = build_detection_train_loader(RECORDS, **options(**more))
    assert pinned(theirs, True) is theirs and inner(theirs).pin_memory


def test_images_arrive_pinned():
    if not torch.cuda.is_available():
        pytest.skip("page-locked memory needs CUDA")
    for loader in (build_train_loader(RECORDS, **options()), SampleStream(build_train_loader(RECORDS, **options()), 0)):
        assert all(x["image"].is_pinned() for x in next(iter(loader)))
    assert next(iter(build_test_loader(RECORDS, mapper=as_tensor)))[0]["image"].is_pinned()


def test_every_option_of_detectron2s_release_is_there():
    """Overrides on the command line are checked against the signature."""
    for ours, release in (
        (build_train_loader, "dataset mapper sampler total_batch_size aspect_ratio_grouping num_workers collate_fn"),
        (build_test_loader, "dataset mapper sampler num_workers collate_fn"),
    ):
        assert set(inspect.signature(ours).parameters) == {*release.split(), "pin_memory"}
    cfg = load_config("fcos_R_50_FPN_1x", ["dataloader.train.pin_memory=true", "dataloader.test.pin_memory=false"])
    assert cfg.dataloader.train.pin_memory is True and cfg.dataloader.test.pin_memory is False
