"""Thresholds are those of the known optimum, hold what was asked for, and are kept as plain data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fcos_d2.errors import FcosError
from fcos_d2.evaluation.matching import Found, Truth
from fcos_d2.evaluation.thresholds import LEAST_BOXES, Curve, Goal, Scored, applied, choose, report, sentences
from fcos_d2.weights.read import weights_of
from fcos_d2.weights.thresholds import stored_thresholds
from fcos_d2.weights.write import save
from projects_tools.threshold_study import above

X = np.linspace(0, 1, 100_001)


def drawn(seed: int, right: tuple, wrong: tuple, found: float, false: float, objects: int) -> Scored:
    """Detections of one class, one object in an image; a share of the objects is found, `false` wrong ones for each."""
    draw = np.random.default_rng(seed)
    hits, misses = draw.binomial(objects, found), round(objects * false)
    scores = np.concatenate((draw.beta(*right, hits), draw.beta(*wrong, misses))).astype(np.float32).astype(np.float64)
    image = np.concatenate((np.arange(hits), draw.integers(0, objects, misses)))
    left = np.concatenate((np.zeros(hits), np.full(misses, 100.0)))
    order = draw.permutation(len(scores))
    boxes = np.stack((left, 0 * left, 0 * left + 9, 0 * left + 9), axis=1)
    table = Found(image[order], np.zeros(len(order), np.int64), boxes[order], scores[order])
    there = np.tile([0.0, 0.0, 9.0, 9.0], (objects, 1))
    truth = Truth(np.arange(objects), np.zeros(objects, np.int64), there, np.zeros(objects, bool))
    return Scored.of(table, truth, ["a"], "drawn")


CASES = [((6, 3), (1.2, 5), 0.95, 3.0), ((8, 8), (2, 8), 0.9, 2.0), ((2.5, 2), (1.2, 4), 0.8, 5.0)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_thresholds_of_known_distributions(case):
    """Within 0.01 of the score that is best in the limit of endless data."""
    right, wrong, found, false = case
    hits, all_kept = found * above(*right, X), found * above(*right, X) + false * above(*wrong, X)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, f1 = hits / all_kept, 2 * hits / (all_kept + 1)
    scored = drawn(0, right, wrong, found, false, 60_000)
    best = choose(scored)
    assert best.values[0] == pytest.approx(X[f1.argmax()], abs=0.01)
    assert report(best)["f1"] == pytest.approx(f1.max(), abs=0.01)
    precise = X[np.flatnonzero(precision[:-2] < 0.8)[-1]]
    assert choose(scored, Goal("precision", 0.8)).values[0] == pytest.approx(precise, abs=0.01)
    complete = X[np.flatnonzero(hits >= 0.6)[-1]]
    assert choose(scored, Goal("recall", 0.6)).values[0] == pytest.approx(complete, abs=0.01)


def shares(scores, right, boxes, threshold):
    kept = scores > threshold
    hits = int((kept & right).sum())
    return hits / max(int(kept.sum()), 1), hits / max(boxes, 1), 2 * hits / max(int(kept.sum()) + boxes, 1)


def test_goals_hold_as_in_a_search_over_all_scores():
    """Of the detections above the threshold, which ties never split; and no threshold is better."""
    reached = []
    for seed in range(120):
        draw = np.random.default_rng(seed)
        scores = draw.random(draw.integers(1, 40)).round(int(draw.integers(1, 3)))
        right = draw.random(len(scores)) < scores
        boxes = int(right.sum() + draw.integers(0, 9))
        curve = Curve.of(scores, right, boxes)
        every = [shares(scores, right, boxes, x) for x in [*(np.unique(scores) - 1e-4)]]
        threshold, is_reached = Goal("precision", 0.7).threshold(curve)
        precision, recall, _ = shares(scores, right, boxes, threshold)
        enough = [row for row in every if row[0] >= 0.7]
        assert is_reached == bool(enough)
        assert recall == max(row[1] for row in enough) if enough else precision == max(row[0] for row in every)
        threshold, is_reached_too = Goal("recall", 0.7).threshold(curve)
        precision, recall, _ = shares(scores, right, boxes, threshold)
        assert is_reached_too == any(row[1] >= 0.7 for row in every)
        assert recall >= 0.7 or recall == max(row[1] for row in every)
        if is_reached_too:  # the next higher score would be too few
            assert shares(scores, right, boxes, min(scores[scores > threshold]))[1] < 0.7
        threshold, _ = Goal().threshold(curve)
        best = max(row[2] for row in every)
        slack = math.sqrt(best * (1 - best) / max(boxes, 1))
        assert shares(scores, right, boxes, threshold)[2] >= best - slack - 1e-12
        assert threshold not in scores or threshold < min(scores)
        reached += [is_reached, is_reached_too]
    assert 20 < sum(reached) < 220  # both ends occur


def test_a_threshold_lies_half_way_between_two_scores():
    curve = Curve.of(np.array([0.9, 0.5, 0.9, 0.3]), np.array([True, True, True, False]), 3)
    assert (curve.kept.tolist(), curve.right.tolist()) == ([2, 3, 4], [2, 3, 3])
    assert (curve.below(0), curve.below(1)) == (0.7, 0.4)
    assert 0.29 < curve.below(2) < 0.3  # of lower scores nothing is known
    assert curve.above(0.9) == (0, 0) and curve.above(0.5) == (2, 2)  # greater, not equal
    near = np.nextafter(np.float32(0.4), np.float32(1))  # of two neighbours among float32
    close = Curve.of(np.array([float(near), float(np.float32(0.4))]), np.array([True, False]), 1)
    assert torch.tensor([near, np.float32(0.4)]).gt(close.below(0)).tolist() == [True, False]


def test_the_best_f1_is_far_from_detections_where_it_can_be():
    """Twenty right ones above 0.6, twenty wrong ones below 0.2: the threshold is in the middle of what lies between."""
    scores = np.concatenate((np.linspace(0.6, 0.9, 20), np.linspace(0.01, 0.2, 20)))
    assert Goal().threshold(Curve.of(scores, np.arange(40) < 20, 20)) == (0.4, True)


def test_short_thresholds_separate_float32_scores():
    """Whatever the scores: those of few digits, neighbours, and 0."""
    draw = np.random.default_rng(0)
    few = (draw.integers(1, 9999, 400) / 1e4).astype(np.float32)
    scores = np.unique(np.concatenate((few, np.nextafter(few, np.float32(0)), draw.random(400).astype(np.float32))))[
        ::-1
    ]
    curve = Curve.of(scores.astype(np.float64), np.ones(len(scores), bool), len(scores))
    there = torch.from_numpy(scores.copy())
    for place in range(len(scores)):
        threshold = curve.below(place)
        assert int((there > torch.tensor(threshold)).sum()) == int((there > threshold).sum()) == place + 1
        assert curve.above(threshold)[0] == place + 1
    assert Curve.of(np.zeros(3), np.ones(3, bool), 3).below(0) == 0.0


def boxes_of(counts: dict[int, int], seed: int = 0, right: float = 0.7) -> Scored:
    """Objects of each class, one in an image, with a detection each and one beside it."""
    draw = np.random.default_rng(seed)
    label = np.repeat(list(counts), list(counts.values()))
    image = np.arange(len(label))
    at = np.tile([0.0, 0.0, 9.0, 9.0], (len(label), 1))
    truth = Truth(image, label, at, np.zeros(len(label), bool))
    scores = np.concatenate((draw.uniform(0.3, 1, len(label)), draw.uniform(0, 0.6, len(label)))).round(4)
    table = Found(np.tile(image, 2), np.tile(label, 2), np.concatenate((at, at + 50)), scores)
    return Scored.of(table, truth, ["many", "few", "none"], "set")


def test_few_objects_take_the_threshold_for_all():
    scored = boxes_of({0: LEAST_BOXES, 1: LEAST_BOXES - 1})
    found = choose(scored)
    assert found.own == (True, False, False) and found.boxes == (LEAST_BOXES, LEAST_BOXES - 1, 0)
    assert found.values[1] == found.values[2] == found.for_all != found.values[0]
    (told,) = sentences(found)
    assert told.startswith("few, none: fewer than 30 objects") and f"{found.for_all:.3f}" in told
    row = report(found)["per_class"]["none"]
    assert (row["boxes"], row["own"], row["recall"], row["f1"]) == (0, False, None, None)
    assert choose(boxes_of({0: LEAST_BOXES // 2, 1: LEAST_BOXES // 2 - 1})) is None
    assert "takes 30 objects" in sentences(None)[0]


def test_what_is_out_of_reach_is_said():
    found = choose(boxes_of({0: 50, 1: 50, 2: 50}), Goal("recall", 1.0))
    assert sentences(found) == []
    scored = drawn(0, (6, 3), (1.2, 5), 0.5, 3.0, 100)
    missed = choose(scored, Goal("recall", 0.9))
    assert missed.reached == (False,) and "no threshold gives recall=0.9" in sentences(missed)[0]
    assert report(missed)["per_class"]["a"]["recall"] == pytest.approx(scored.right.sum() / 100)


@pytest.mark.parametrize("goal", [("f2", 1.0), ("precision", 0.0), ("recall", 1.1)])
def test_goals_that_are_none(goal):
    with pytest.raises(FcosError, match="Thresholds cannot be chosen for"):
        Goal(*goal)


def test_detections_in_crowd_regions_do_not_count():
    at = [[0.0, 0.0, 9.0, 9.0]] * 40
    label = np.zeros(40, np.int64)
    truth = Truth(np.arange(40), label, np.array(at), np.arange(40) >= 35)
    found = Found(np.arange(40), label, np.array(at), np.linspace(0.2, 0.9, 40))
    scored = Scored.of(found, truth, ["a"])
    assert scored.curves[0].boxes == len(scored.scores) == 35 and scored.right.all()


def test_kept_in_a_file_as_plain_data(tmp_path):
    """And read back without running anything; 80 classes take less than 80 kB."""
    found = choose(boxes_of({0: 60, 1: 40}))
    named = {f"dense.head.{name}": torch.zeros(1) for name in ("cls_logits.bias", "bbox_pred.bias", "centerness.bias")}
    payload = {"model": named, "class_names": ["many", "few", "none"], **found.payload()}
    save(tmp_path / "x.pth", payload)
    torch.load(tmp_path / "x.pth", weights_only=True)
    from fcos_d2.weights.read import read

    again = stored_thresholds(read(tmp_path / "x.pth"))
    assert report(again) == report(found) and again.by_class == found.by_class
    assert torch.equal(again.counts, found.counts) and torch.equal(again.reliability, found.reliability)
    large = boxes_of({0: 60, 1: 40})
    large = Scored((large.curves * 27)[:80], large.scores, large.right, tuple(map(str, range(80))), 0.5, "set")
    save(tmp_path / "large.pth", choose(large).payload())
    assert (tmp_path / "large.pth").stat().st_size < 80_000

    for change in (
        {"values": [0.5, 1.0, 0.5]}, {"values": [0.5]}, {"values": ["a"] * 3}, {"version": 2}, {"own": [1, 0, 1]},
        {"temperature": -1.0}, {"counts": torch.zeros(1)}, {"class_names": None}, {"values": [float("nan")] * 3},
    ):  # fmt: skip
        damaged = weights_of({**payload, "thresholds": {**payload["thresholds"], **change}}, "x.pth")
        with pytest.raises(FcosError, match=r"The score thresholds in x.pth cannot be used .*--threshold 0.5"):
            stored_thresholds(damaged)
    with pytest.raises(FcosError, match="cannot be used"):
        stored_thresholds(weights_of({**payload, "thresholds": [1, 2]}, "x.pth"))
    assert stored_thresholds(weights_of({"model": named}, "x.pth")) is None


def test_the_same_thresholds_on_other_data():
    chosen, other = choose(boxes_of({0: 60, 1: 40})), boxes_of({0: 50, 1: 9, 2: 5}, seed=1)
    found = applied(chosen, other)
    assert found.values == chosen.values and found.boxes == (50, 9, 5)
    for k, curve in enumerate(other.curves):
        kept = curve.above(chosen.values[k])
        row = report(found)["per_class"][found.class_names[k]]
        assert row["f1"] == pytest.approx(2 * kept[1] / (kept[0] + curve.boxes), abs=1e-6)
