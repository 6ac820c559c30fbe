"""Loaders are Detectron2's, and page-locked memory is asked for where it is of use."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

from fcos_d2.config.load import load_config
from fcos_d2.data.loader import RandomSubsetSampling, RepeatFactorSampling, build_test_loader, build_train_loader
from fcos_d2.data.random_state import seeded
from fcos_d2.data.stream import SampleStream

RECORDS = [{"width": 2 + i % 3, "height": 3, "id": i} for i in range(13)]


def as_tensor(record):
    return {**record, "image": torch.full((3, 2, 2), record["id"], dtype=torch.uint8)}


def options(**more):
    return {"mapper": as_tensor, "sampler": TrainingSampler(len(RECORDS), seed=3), "total_batch_size": 2, **more}


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
    assert build_train_loader(RECORDS, **options(**more)).pin_memory is torch.cuda.is_available()
    for wanted in (True, False):
        loader = build_train_loader(RECORDS, pin_memory=wanted, **options(**more))
        assert loader.batches(seed=0).pin_memory is wanted
        assert build_test_loader(RECORDS, mapper=None, pin_memory=wanted).pin_memory is wanted


def test_samplers_are_made_of_the_records():
    """What a translated yacs config names; Detectron2's classes do the work."""
    records = [{**r, "annotations": [{"category_id": r["id"] // 12}]} for r in RECORDS]
    with seeded(5):
        ours = build_train_loader(records, **options(sampler=RepeatFactorSampling(0.5)))
    with seeded(5):
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.5)
        theirs = RepeatFactorTrainingSampler(factors)
    assert ours.order() == list(itertools.islice(theirs, 32)) and ours.order().count(12) > 3
    subset = build_train_loader(records, **options(sampler=RandomSubsetSampling(0.3))).order()
    assert len(set(subset)) == 3 and len(subset) == 32


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(AssertionError, match="a batch of 0 images"):
        build_train_loader(RECORDS, **options(total_batch_size=0))


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
