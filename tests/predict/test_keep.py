"""Score thresholds: the caller's, those in the weights, those of the config; in this order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fcos_d2 import runtime
from fcos_d2.config.stored import dump_config
from fcos_d2.errors import FcosError
from fcos_d2.export import Wanted
from fcos_d2.export.described import described
from fcos_d2.export.job import shapes_of
from fcos_d2.modeling import Selector
from fcos_d2.predict import Predictor
from fcos_d2.predict.keep import Keep
from fcos_d2.weights.thresholds import BINS, STEPS, Thresholds, calibrated
from fcos_d2.weights.write import Checkpointer

VARIANT, NAMES = "fcos_R_18_slim_FPN_small", ["a", "b", "c"]
SMALL = ("model.num_classes=3", "dataloader.test.mapper.augmentations[0].short_edge_length=64")
TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def between(scores):
    """A threshold in the widest gap of the middle half, which no rounding crosses."""
    rising = scores.sort().values[len(scores) // 4 : 3 * len(scores) // 4 + 2]
    place = int(rising.diff().argmax())
    return float(rising[place : place + 2].mean())


@pytest.fixture(scope="module")
def detector(tmp_path_factory, picture):
    """A checkpoint with thresholds at which each class keeps some detections, and all detections without them."""
    untrained = Predictor(
        VARIANT, weights="random", device="cpu", overrides=(*SMALL, "model.dense.selector.score_threshold=0.0"),
    )  # fmt: skip
    untrained.cfg.model.dense.selector.score_threshold = 0.0
    every = untrained(picture)["instances"]
    of_class = [every.scores[every.pred_classes == k] for k in range(3)]
    values = tuple(map(between, of_class))
    bins = torch.zeros(2, 3, BINS, dtype=torch.float64)
    stored = Thresholds(
        "f1", 0.5, "set", tuple(NAMES), values, (True,) * 3, (True,) * 3, 0.1, (40, 50, 60),
        torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 3, STEPS + 1, dtype=torch.int32), TEMPERATURE, bins,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("keep")
    extra = {"class_names": NAMES, "config": dump_config(untrained.cfg)}
    Checkpointer(untrained.model, str(folder), extra={**extra, **stored.payload()}).save("model")
    Checkpointer(untrained.model, str(folder), extra=extra).save("bare")
    bad = dataclasses.replace(stored, values=(0.5, 0.5), own=(True,) * 2, reached=(True,) * 2)
    Checkpointer(untrained.model, str(folder), extra={**extra, **bad.payload()}).save("damaged")
    assert all(len(scores) > 2 for scores in of_class) and len(set(values)) == 3
    return folder / "model.pth", every, stored


def kept(every, least):
    return every[every.scores > torch.tensor(least)[every.pred_classes]]


def same(found, expected):
    close = len(found) == len(expected) > 0 and torch.allclose(found.scores, expected.scores, atol=1e-6)
    return close and torch.allclose(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3)


@pytest.mark.parametrize("optimize", [False, True])
def test_the_thresholds_of_the_weights_count(detector, picture, optimize):
    path, every, stored = detector
    predictor = Predictor(path, device="cpu", optimize=optimize)
    found, expected = predictor(picture)["instances"], kept(every, stored.values)
    assert predictor.thresholds == dict(zip(NAMES, stored.values))
    assert len(found) == len(expected) < len(every)
    assert torch.allclose(found.scores, expected.scores, atol=1e-5)
    selector = predictor.model.dense.selector  # drops what is hopeless before suppression
    assert 0 < selector.score_threshold < min(stored.values) and selector.threshold_on == "class"


def test_what_the_caller_says_counts_more(detector, picture):
    path, every, stored = detector
    a, b, c = stored.values
    for given, least in (
        (None, (a, b, c)), (0.0, 0.0), (a, a), ({"b": 0.0}, (a, 0.0, c)), ({"b": b, None: 0.0}, (0.0, b, 0.0)),
    ):  # fmt: skip
        keep = Keep.of(given, stored, NAMES, otherwise=0.9)
        assert keep.least == least
        assert same(keep(every), kept(every, least if isinstance(least, tuple) else (least,) * 3))
    lowest = Predictor(path, device="cpu", score_threshold=0.0)
    assert same(lowest(picture)["instances"], every) and lowest.thresholds == dict.fromkeys(NAMES, 0.0)
    config = Predictor(path, device="cpu", overrides=["model.dense.selector.score_threshold=0.0"])
    assert same(config(picture)["instances"], every) and config.thresholds is None


@pytest.mark.parametrize("form", ["sqrt", "product"])
@pytest.mark.parametrize("on", ["class", "score", "product"])
@pytest.mark.parametrize("final", [False, True])
def test_a_selector_drops_nothing_that_would_be_kept(form, on, final):
    """Of all pairs of class score and quality: whatever passes the thresholds, and the selector's own if it counts."""
    selector = Selector(score_threshold=0.05, threshold_on=on, score_form=form)
    early = Keep((0.3, 0.4), final).selector(selector)
    c, q = torch.meshgrid(torch.linspace(0, 1, 201), torch.linspace(0, 1, 201), indexing="ij")
    score = (c * q).sqrt() if form == "sqrt" else c * q

    def passes(one: Selector) -> torch.Tensor:
        return {"class": c, "score": score, "product": c * q}[one.threshold_on] > one.score_threshold

    wanted = (score > 0.3) & (final | passes(selector))
    assert bool(passes(early)[wanted].all()) and int(passes(early).sum()) < int(passes(selector).sum())


def test_weights_without_thresholds(detector, picture):
    path, every, _ = detector
    bare = path.with_name("bare.pth")
    assert same(Predictor(bare, device="cpu")(picture)["instances"], every)
    middle = between(every.scores)
    found = Predictor(bare, device="cpu", otherwise=middle)(picture)["instances"]
    assert same(found, every[every.scores > middle]) and len(found) < len(every)
    assert Keep.of({"a": 0.0}, None, NAMES, otherwise=middle).least == (0.0, middle, middle)
    assert Keep.of({"a": 0.3}, None, NAMES).least == (0.3, 0.0, 0.0)
    with pytest.raises(FcosError, match="hold no temperature"):
        Predictor(bare, device="cpu", calibrate=True)


def test_calibrated_scores(detector, picture):
    """The same detections in the same order; a caller's threshold is of the scores that are seen."""
    path, every, stored = detector
    expected = kept(every, stored.values)
    predictor = Predictor(path, device="cpu", calibrate=True)
    found = predictor(picture)["instances"]
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, calibrated(expected.scores, TEMPERATURE))
    assert (found.scores - expected.scores).abs().max() > 0.05
    assert np.allclose(runtime.calibrated(expected.scores.numpy(), TEMPERATURE), found.scores, rtol=0, atol=1e-7)
    plain = Predictor(path, device="cpu", score_threshold=0.3)
    for one in (predictor, plain):  # an exported file holds both, whatever it was exported with
        shapes = shapes_of(one.model, Wanted(graph="raw"))
        said = described(one, graph="raw", dtype="float32", shapes=shapes, source=str(path), weights=None)
        assert said["temperature"] == TEMPERATURE and said["thresholds"] == pytest.approx(one.least)
    seen = calibrated(every.scores, TEMPERATURE)
    least = float(seen.sort().values[len(seen) // 2 : len(seen) // 2 + 2].mean())
    for given in (least, {None: least}):
        above = Keep.of(given, stored, NAMES, temperature=TEMPERATURE)(every)
        assert 0 < len(above) == int((seen > least).sum()) < len(every) and bool((above.scores > least).all())


def test_what_is_wrong_is_one_sentence(detector):
    path, _, _ = detector
    with pytest.raises(FcosError, match="There is no class 'aa' to set a threshold for; did you mean 'a'"):
        Keep.of({"aa": 0.3}, None, NAMES)
    for given in ({"a": 1.0}, -0.1):
        with pytest.raises(FcosError, match=r"score_threshold is (1.0|-0.1); it must be in 0..1"):
            Predictor(path, device="cpu", score_threshold=given)
    damaged = path.with_name("damaged.pth")
    with pytest.raises(FcosError, match=r"score thresholds in .*damaged.pth cannot be used"):
        Predictor(damaged, device="cpu")
    assert Predictor(damaged, device="cpu", score_threshold=0.5).thresholds == dict.fromkeys(NAMES, 0.5)
