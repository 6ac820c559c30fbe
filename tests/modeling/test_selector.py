"""From head outputs to kept boxes: each rule by hand, all of them against the slow transcription."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import reference
import torch
from scenes import CPU, Scene, distinct, scene_of
from torch import Tensor

from fcos_d2.modeling import LocationGrid, LTRBCoder, Selector
from fcos_d2.structures import Detections, Predictions
from fcos_d2.zoo.recipes import RECIPES


def maps_of(predictions: Predictions) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    return predictions.logits, predictions.raw_ltrb, predictions.quality


PIXELS = LTRBCoder(activation="relu", unit="pixel")
NEVER = -100.0


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def by_hand(
    entries: Sequence[tuple[int, int, float, float, Sequence[float]]],
    num_classes: int = 2,
    size: tuple[int, int] = (64, 64),
    levels: int = 1,
) -> Predictions:
    """One image; entries are location, class, class score, quality, xyxy box. All else scores nothing."""
    strides = (8, 16)[:levels]
    at = LocationGrid()([(size[0] // s, size[1] // s) for s in strides], strides, size, CPU)
    maps = [[], [], []]
    for level in at.levels:
        for found, channels, value in zip(maps, (num_classes, 4, 1), (NEVER, 0.0, NEVER)):
            found.append(torch.full((1, channels, level.height, level.width), value))
    for location, label, score, quality, box in entries:
        i, level = next((i, v) for i, v in enumerate(at.levels) if location < v.end)
        row, column = divmod(location - level.start, level.width)
        x, y = at.xy[location].tolist()
        maps[0][i][0, label, row, column] = logit(score)
        maps[1][i][0, :, row, column] = torch.tensor([x - box[0], y - box[1], box[2] - x, box[3] - y])
        maps[2][i][0, 0, row, column] = logit(quality)
    return Predictions(*maps, at)


def select(predictions: Predictions, size: tuple[int, int] = (64, 64), **options: Any) -> Detections:
    sizes = [size] * predictions.num_images
    return Selector(**options)(predictions, PIXELS, sizes)


# Location 0 lies at (4, 4), 9 at (12, 12), 18 at (20, 20), 27 at (28, 28).
NEAR, FAR = [0, 0, 16, 16], [10, 10, 50, 50]


# ------------------------------------------------------------------------------------------------------------- by hand
def test_a_box_a_class_a_score() -> None:
    found = select(by_hand([(9, 1, 0.81, 0.25, NEAR)]))
    assert found.boxes.tolist() == [NEAR]
    assert found.classes.tolist() == [1]
    assert found.scores.tolist() == pytest.approx([0.45])
    assert found.location.tolist() == [9]
    assert found.image.tolist() == [0]


def test_nothing_found() -> None:
    found = select(by_hand([]))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.classes.dtype == found.image.dtype == found.location.dtype == torch.int64


@pytest.mark.parametrize(("on", "by"), [("class", "score"), ("score", "class"), ("product", "class")])
def test_a_location_that_hardly_fails_takes_the_place_of_none(on: str, by: str) -> None:
    """Location 0 is a millionth below the threshold, and ranks above location 9, which passes."""
    least = 0.5 * (1 - 2e-6)
    failing, passing = {
        "class": ((least, 0.9), (0.6, 0.1)),
        "score": ((0.9, least**2 / 0.9), (0.6, 0.8)),
        "product": ((0.9, least / 0.9), (0.8, 0.8)),
    }[on]
    entries = [(0, 0, *failing, NEAR), (9, 0, *passing, FAR)]
    found = select(by_hand(entries), topk=1, topk_by=by, threshold_on=on, score_threshold=0.5)
    assert found.location.tolist() == [9]


@pytest.mark.parametrize(("form", "score"), [("sqrt", 0.45), ("product", 0.2025)])
def test_score_form(form: str, score: float) -> None:
    found = select(by_hand([(9, 1, 0.81, 0.25, NEAR)]), score_form=form)
    assert found.scores.tolist() == pytest.approx([score])


@pytest.mark.parametrize(
    ("threshold_on", "kept"),
    [("class", [0, 1, 2]), ("score", [0, 1]), ("product", [0])],
)
def test_what_is_compared_with_the_threshold(threshold_on: str, kept: list[int]) -> None:
    """Of class score, square root of the product and product, three, two and one are above 0.3."""
    entries = [(0, 0, 0.9, 0.9, [0, 0, 8, 8]), (9, 0, 0.5, 0.3, [8, 8, 16, 16]), (18, 0, 0.4, 0.1, [16, 16, 24, 24])]
    found = select(by_hand(entries), threshold_on=threshold_on, score_threshold=0.3)
    assert found.location.tolist() == [entries[i][0] for i in kept]


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.0])
def test_scores_must_be_greater(threshold: float) -> None:
    """A score of exactly the threshold is not greater; above 0, everything is."""
    predictions = by_hand([])
    predictions.logits[0].fill_(0.0)  # a score of exactly 0.5
    predictions.raw_ltrb[0].fill_(3.0)
    predictions.quality[0].fill_(20.0)
    found = select(predictions, score_threshold=threshold, max_detections=1000)
    assert len(found) == (0 if threshold == 0.5 else 128)


def test_topk_counts_for_each_level() -> None:
    """The best two of each level, although three of the fine level are better than all of the coarse one."""
    entries = [
        *((i * 9, 0, 0.9 - i / 100, 0.9, [i * 16, 0, i * 16 + 8, 8]) for i in range(3)),
        *((64 + i * 5, 0, 0.2 + i / 100, 0.9, [i * 16, 32, i * 16 + 8, 40]) for i in range(3)),
    ]
    found = select(by_hand(entries, levels=2), topk=2)
    assert found.location.tolist() == [0, 9, 74, 69]


def test_topk_counts_for_each_image() -> None:
    one = by_hand([(0, 0, 0.9, 0.9, NEAR), (27, 0, 0.8, 0.9, FAR)])
    two = by_hand([(0, 0, 0.3, 0.9, NEAR), (27, 0, 0.2, 0.9, FAR), (63, 1, 0.1, 0.9, FAR)])
    both = Predictions(
        *(
            [torch.cat((a, b)) for a, b in zip(getattr(one, f), getattr(two, f))]
            for f in ("logits", "raw_ltrb", "quality")
        ),
        one.locations,
    )
    found = select(both, topk=2)
    assert (found.image.tolist(), found.location.tolist()) == ([0, 0, 1, 1], [0, 27, 0, 27])


@pytest.mark.parametrize(("topk_by", "kept"), [("score", 1), ("class", 0)])
def test_what_ranks_the_candidates(topk_by: str, kept: int) -> None:
    """The first has the better class score, the second the better product."""
    entries = [(0, 0, 0.9, 0.1, NEAR), (27, 0, 0.6, 0.9, FAR)]
    assert select(by_hand(entries), topk=1, topk_by=topk_by).location.tolist() == [entries[kept][0]]


def test_suppression_stays_within_a_class() -> None:
    entries = [
        (0, 0, 0.9, 0.9, [0, 0, 20, 20]),
        (9, 0, 0.8, 0.9, [0, 0, 20, 19]),  # overlaps the first by 0.95
        (18, 1, 0.7, 0.9, [0, 0, 20.5, 20.5]),  # so does this, of another class
        (27, 0, 0.6, 0.9, [24, 24, 40, 40]),
    ]
    assert select(by_hand(entries)).location.tolist() == [0, 18, 27]


@pytest.mark.parametrize(("within", "kept"), [("class", [0]), ("level", [0, 64])])
def test_suppression_within_a_level(within: str, kept: list[int]) -> None:
    """Three boxes of one class overlap by 0.95 and more: two were predicted on the finest level, one on the next."""
    entries = [(0, 0, 0.9, 0.9, [0, 0, 20, 20]), (9, 0, 0.8, 0.9, [0, 0, 20, 19]), (64, 0, 0.7, 0.9, [0, 0, 20, 19.5])]
    assert select(by_hand(entries, levels=2), nms_within=within).location.tolist() == kept


@pytest.mark.parametrize(("threshold", "count"), [(0.49, 1), (0.5, 2), (0.51, 2)])
def test_suppression_needs_more_than_the_threshold(threshold: float, count: int) -> None:
    """An overlap of exactly one half."""
    entries = [(0, 0, 0.9, 0.9, [0, 0, 8, 16]), (1, 0, 0.8, 0.9, [0, 0, 16, 16])]
    assert len(select(by_hand(entries), nms_threshold=threshold)) == count


@pytest.mark.parametrize(("convention", "count"), [("plain", 2), ("plus_one", 1)])
def test_boxes_one_pixel_longer(convention: str, count: int) -> None:
    """4 x 4 and 4 x 8 overlap by 8/40; with a pixel more on each side by 15/55."""
    entries = [(0, 0, 0.9, 0.9, [2, 2, 6, 6]), (8, 0, 0.8, 0.9, [2, 4, 6, 12])]
    plain = 4 * 2 / (16 + 32 - 8)
    longer = 5 * 3 / (25 + 45 - 15)
    threshold = (plain + longer) / 2
    assert plain < threshold < longer
    assert len(select(by_hand(entries), nms_threshold=threshold, nms_convention=convention)) == count


def test_plus_one_is_suppression_of_boxes_one_pixel_longer() -> None:
    """The far corner moved by one, suppressed plainly, and moved back."""
    scene = scene_of("original", counts=(0, 0))
    sizes = [scene.image_size] * 2
    coder, predictions = scene.dense.coder, scene.predictions
    options = {"clip": "before", "clip_margin": 1.0}
    legacy = Selector(nms_convention="plus_one", **options)(predictions, coder, sizes)

    class Longer(LTRBCoder):
        def decode(self, xy: Tensor, stride: Tensor, ltrb: Tensor) -> Tensor:
            return super().decode(xy, stride, ltrb) + xy.new_tensor([0, 0, 1, 1])

    # The window of the clipping moves with the corner.
    plain = Selector(nms_convention="plain", clip="before", clip_margin=0.0)
    longer = plain(predictions, Longer(coder.activation, coder.unit), sizes)
    assert len(legacy) > 20
    assert legacy.location.tolist() == longer.location.tolist()


@pytest.mark.parametrize(("ties", "count"), [("keep", 3), ("cut", 2)])
def test_ties_with_the_last_detection(ties: str, count: int) -> None:
    entries = [
        (0, 0, 0.9, 0.9, [0, 0, 8, 8]),
        (9, 0, 0.8, 0.9, [8, 8, 16, 16]),
        (18, 0, 0.8, 0.9, [16, 16, 24, 24]),
        (27, 0, 0.7, 0.9, [24, 24, 32, 32]),
    ]
    found = select(by_hand(entries), max_detections=2, max_detections_ties=ties)
    assert len(found) == count
    assert found.location[0] == 0
    assert set(found.location.tolist()) <= {0, 9, 18}


@pytest.mark.parametrize(
    ("options", "box"),
    [
        ({"clip": "after"}, [-5, -3, 70, 60]),
        ({"clip": "before"}, [0, 0, 48, 40]),
        ({"clip": "before", "clip_margin": 1.0}, [0, 0, 47, 39]),
    ],
)
def test_clipping(options: dict[str, Any], box: list[float]) -> None:
    """To the image before padding, here 40 high and 48 wide."""
    predictions = by_hand([(9, 0, 0.9, 0.9, [-5, -3, 70, 60])])
    assert select(predictions, (40, 48), **options).boxes.tolist() == [box]


def test_clipping_happens_before_suppression() -> None:
    """Two boxes that only differ outside the image become one."""
    entries = [(9, 0, 0.9, 0.9, [0, 0, 64, 64]), (10, 0, 0.8, 0.9, [0, 0, 200, 64])]
    assert len(select(by_hand(entries), clip="before")) == 1
    assert len(select(by_hand(entries), clip="after")) == 2


@pytest.mark.parametrize(("min_size", "kept"), [(-1.0, [0, 9, 63]), (0.0, [0, 9]), (4.0, [0])])
def test_small_boxes(min_size: float, kept: list[int]) -> None:
    """8 x 8; 4 x 30; and one that lies outside the image and has no width once it is clipped."""
    entries = [(0, 0, 0.9, 0.9, [0, 0, 8, 8]), (9, 0, 0.8, 0.9, [10, 8, 14, 38]), (63, 0, 0.7, 0.9, [58, 50, 62, 62])]
    found = select(by_hand(entries), (64, 56), clip="before", min_size=min_size)
    assert found.location.tolist() == kept


@pytest.mark.parametrize(("drop", "kept"), [(False, [0, 9, 18, 27]), (True, [0, 9, 18])])
def test_inverted_boxes(drop: bool, kept: list[int]) -> None:
    """A box may be inverted by up to a pixel, once it is clipped: the window takes four of the second one's five."""
    raw = LTRBCoder(unit="pixel", inference="raw")
    entries = [
        (0, 0, 0.9, 0.9, [10, 8, 9, 20]), (9, 0, 0.8, 0.9, [20, -5, 40, -1]), (18, 0, 0.7, 0.9, [50, 50, 50, 50]),
        (27, 0, 0.6, 0.9, [30, 40, 28.875, 60]),
    ]  # fmt: skip
    found = Selector(clip="before", drop_inverted=drop)(by_hand(entries), raw, [(64, 64)])
    assert found.location.tolist() == kept
    assert found.boxes[:3].tolist() == [[10, 8, 9, 20], [20, 0, 40, 0], [50, 50, 50, 50]]


def test_a_coder_with_activation_inverts_nothing() -> None:
    scene = scene_of("improved", counts=(0, 0))
    sizes = [scene.image_size] * 2
    one, other = (scene.dense.detect(scene.predictions, sizes, s) for s in (
        scene.dense.selector, Selector(**{**RECIPES["improved"].selector, "drop_inverted": True})))  # fmt: skip
    assert torch.equal(one.boxes, other.boxes) and len(one) > 20


def test_best_first_within_each_image() -> None:
    scene = scene_of("improved", counts=(0, 0, 0))
    found = scene.dense.detect(scene.predictions, [scene.image_size] * 3)
    assert (found.image.diff() >= 0).all()
    for i in range(3):
        scores = found.scores[found.image == i]
        assert len(scores) > 0
        assert (scores.diff() <= 0).all()


# -------------------------------------------------------------------------------- every option, against the paper
def compare(scene: Scene, recipe: Any, image_sizes: list[tuple[int, int]]) -> int:
    """The same boxes in the same order; returns how many there were."""
    with torch.no_grad():
        found = scene.dense.detect(scene.predictions, image_sizes)
    expected = reference.detect(**scene.for_reference, image_sizes=image_sizes, parts=recipe)
    for i, slow in enumerate(expected):
        mine = found[(found.image == i).nonzero().flatten()]
        assert mine.location.tolist() == [c.location for c in slow]
        assert mine.classes.tolist() == [c.label for c in slow]
        assert torch.allclose(
            mine.scores.double(), torch.tensor([c.score for c in slow], dtype=torch.float64), atol=1e-6
        )
        boxes = torch.tensor([c.box for c in slow], dtype=torch.float64).reshape(-1, 4)
        assert torch.allclose(mine.boxes.double(), boxes, rtol=1e-5, atol=1e-3)
    return len(found)


OPTIONS: list[dict[str, Any]] = [
    *({"threshold_on": on, "score_form": form} for on in ("class", "score", "product") for form in ("sqrt", "product")),
    *({"score_threshold": t, "threshold_on": on} for t in (0.0, 0.2, 0.6) for on in ("class", "score")),
    *({"topk": k, "topk_by": by} for k in (1, 7) for by in ("score", "class")),
    *({"nms_threshold": t, "nms_within": "level"} for t in (0.1, 0.6, 1.0)),
    *({"nms_threshold": t, "nms_convention": c} for t in (0.1, 0.9) for c in ("plain", "plus_one")),
    *({"max_detections": m, "max_detections_ties": t} for m in (1, 9) for t in ("cut", "keep")),
    {"clip": "before", "min_size": 6.0},
    {"clip": "before", "clip_margin": 1.0},
    {"clip": "before", "clip_margin": 1.0, "drop_inverted": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_every_option(options: dict[str, Any]) -> None:
    recipe = RECIPES["adelaidet"].derived("trial", "this test", selector=options)
    scene = scene_of(recipe, counts=(0, 0), image_size=(32, 64), num_classes=2)
    assert compare(scene, recipe, [(32, 64), (25, 50)]) > 0


@pytest.mark.parametrize("name", distinct("grid", "coder", "selector"))
def test_every_recipe(name: str) -> None:
    scene = scene_of(name, counts=(0, 0), image_size=(64, 96))
    assert compare(scene, RECIPES[name], [(64, 96), (50, 81)]) > 20


@pytest.mark.parametrize("points", [4, 5])
def test_dense_points(points: int) -> None:
    recipe = RECIPES["fcos_plus"].derived("trial", "this test", grid={"points_per_cell": points})
    assert compare(scene_of(recipe, counts=(0,), image_size=(32, 64)), recipe, [(32, 64)]) > 20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["adelaidet", "detectron2"])
def test_half_precision_maps_lose_no_candidate(name: str, dtype: torch.dtype) -> None:
    """What the rounded maps say in float32 is what is found. The first look at the logits must not be stricter than the
    exact test, though a threshold such as logit(0.04) has no exact half-precision value."""
    scene = scene_of(name, counts=(0, 0), image_size=(64, 96))
    p = scene.predictions
    near = torch.arange(-400, 400) / 100
    with torch.no_grad():
        for values in p.logits:  # around the threshold, and certain of their quality
            values.copy_(near[torch.randint(800, values.shape)] - 3.18)
        for values in p.quality:
            values.fill_(12.0)
    sizes = [scene.image_size] * 2
    half = Predictions(*([v.detach().to(dtype) for v in maps] for maps in maps_of(p)), p.locations)
    full = Predictions(*([v.float() for v in maps] for maps in maps_of(half)), p.locations)
    found, expected = scene.dense.detect(half, sizes), scene.dense.detect(full, sizes)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.location.tolist() == expected.location.tolist()
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.boxes, expected.boxes)


def test_a_half_precision_logit_just_above_the_threshold() -> None:
    """bfloat16 rounds logit(0.04) up to -3.171875, and a class score of 0.0402 at that logit is above 0.04."""
    predictions = by_hand([(9, 1, 0.5, 0.5, NEAR)])
    predictions.logits[0][0, 1, 1, 1] = -3.171875
    predictions.quality[0].fill_(20.0)
    maps = ([v.bfloat16() for v in m] for m in maps_of(predictions))
    found = select(Predictions(*maps, predictions.locations), score_threshold=0.2, threshold_on="score")
    assert found.location.tolist() == [9]


def test_distant_images_and_classes_do_not_meet() -> None:
    """Suppression of a whole batch at once: the shifts that tell images apart must not blur the last one's boxes."""
    one = by_hand([(0, 1, 0.9, 0.9, [0, 0, 20, 20]), (9, 1, 0.8, 0.9, [0, 0, 20, 12.01])])
    many = Predictions(
        *([v.repeat(400, 1, 1, 1) for v in m] for m in (one.logits, one.raw_ltrb, one.quality)), one.locations
    )
    # The overlap is 0.6005; in float32, after a shift by 16,000 pixels, it would be off by up to 0.00005.
    assert len(select(many, nms_threshold=0.60051)) == 800
    assert len(select(many, nms_threshold=0.60049)) == 400


# ------------------------------------------------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"threshold_on": "sum"},
            "Selector.threshold_on is 'sum', but it must be one of: 'class', 'score', 'product'.",
        ),
        ({"score_form": "mean"}, "Selector.score_form is 'mean', but it must be one of: 'sqrt', 'product'."),
        ({"topk_by": "box"}, "Selector.topk_by is 'box', but it must be one of: 'score', 'class'."),
        ({"nms_within": "image"}, "Selector.nms_within is 'image', but it must be one of: 'class', 'level'."),
        ({"nms_convention": "x"}, "Selector.nms_convention is 'x', but it must be one of: 'plain', 'plus_one'."),
        (
            {"max_detections_ties": "drop"},
            "Selector.max_detections_ties is 'drop', but it must be one of: 'cut', 'keep'.",
        ),
        ({"clip": "never"}, "Selector.clip is 'never', but it must be one of: 'before', 'after'."),
        ({"score_threshold": 1.0}, "Selector.score_threshold is 1.0, but it must be in 0..1, 1 excluded."),
        ({"score_threshold": -0.1}, "Selector.score_threshold is -0.1, but it must be in 0..1, 1 excluded."),
        ({"score_threshold": math.nan}, "Selector.score_threshold is nan, but it must be in 0..1, 1 excluded."),
        ({"nms_threshold": -5}, "Selector.nms_threshold is -5, but it must be in 0..1."),
        ({"nms_threshold": 1.01}, "Selector.nms_threshold is 1.01, but it must be in 0..1."),
        ({"nms_threshold": math.nan}, "Selector.nms_threshold is nan, but it must be in 0..1."),
        ({"topk": 0}, "Selector.topk is 0, but it must be a whole number above 0."),
        ({"topk": 2.5}, "Selector.topk is 2.5, but it must be a whole number above 0."),
        ({"max_detections": -1}, "Selector.max_detections is -1, but it must be a whole number above 0."),
        ({"max_detections": 0}, "Selector.max_detections is 0, but it must be a whole number above 0."),
        ({"clip_margin": -1.0}, "Selector.clip_margin is -1.0, but it must be a number of pixels, 0 or more."),
        (
            {"min_size": math.inf},
            "Selector.min_size is inf, but it must be a number of pixels, negative to keep all boxes.",
        ),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Selector(**options)
