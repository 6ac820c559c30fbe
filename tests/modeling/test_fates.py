"""What becomes of candidates: by hand, and against the selection itself for all published versions."""

from __future__ import annotations

import planted
import pytest
import torch
from planted import Plant
from scenes import distinct, scene_of
from torchvision.ops import box_iou

from fcos_d2.modeling.fates import FATES, KEPT, LIMIT, SMALL, SUPPRESSED, TOPK, fates_of
from fcos_d2.modeling.record import recording
from fcos_d2.zoo.recipes import RECIPES

FIELDS = ("image", "boxes", "scores", "classes", "location")


@pytest.mark.parametrize("recipe", distinct("selector", "coder", "grid"))
def test_what_is_kept_is_what_the_selector_keeps(recipe: str) -> None:
    """To the bit, for each combination of options that was published; and tighter, so that each step takes some."""
    torch.manual_seed(0)
    scene = scene_of(recipe)
    sizes = [scene.image_size] * 3
    tight = {"topk": 20, "max_detections": 15}
    for options in ({}, tight, {**tight, "nms_within": "level"}):
        selector = type(scene.dense.selector)(**{**RECIPES[recipe].selector, **options})
        found = selector(scene.predictions, scene.dense.coder, sizes)
        fates = fates_of(selector, scene.predictions, scene.dense.coder, sizes)
        kept = fates.candidates[fates.kept]
        for name in FIELDS:
            assert torch.equal(getattr(kept, name), getattr(found, name)), name
        assert torch.equal((fates.fate == KEPT).nonzero().squeeze(1), fates.kept.sort().values)
        laws(fates, selector, scene.predictions, options)


def laws(fates, selector, predictions, options) -> None:
    found = fates.candidates
    tested = selector._tested(fates.class_score, fates.class_score * fates.quality)
    assert bool((tested > selector.score_threshold * (1 - 1e-6)).all())
    # All that pass are there, once.
    where = predictions.locations
    keys = (found.image * len(where) + found.location) * predictions.num_classes + found.classes
    assert len(keys.unique()) == len(keys)
    total = 0
    for logits, quality in zip(predictions.logits, predictions.quality):
        points = where.points_per_cell
        c = logits.unflatten(1, (points, -1)).sigmoid()
        q = quality.unflatten(1, (points, 1)).sigmoid()
        total += int((selector._tested(c, c * q) > selector.score_threshold).sum())
    assert abs(total - len(fates)) <= 2  # in the last digit
    # Each step has its room.
    levels = len(where.levels)
    passed = fates.fate != TOPK
    for image in range(predictions.num_images):
        for level in range(levels):
            here = (found.image == image) & (fates.level == level)
            assert int((here & passed).sum()) == min(int(here.sum()), selector.topk)
            assert sorted(fates.rank[here].tolist()) == list(range(1, int(here.sum()) + 1))
            assert fates.of[here].tolist() == [int(here.sum())] * int(here.sum())
            if int((here & ~passed).sum()):
                assert fates.rank[here & passed].max() < fates.rank[here & ~passed].min()
    # What was suppressed overlaps a better one of its class that was not, and no other one was before that.
    boxes = selector._measured(found.boxes)
    for row in (fates.fate == SUPPRESSED).nonzero().squeeze(1).tolist():
        by = int(fates.by[row])
        assert fates.fate[by] in (KEPT, LIMIT) and found.scores[by] >= found.scores[row]
        assert (found.classes[by], found.image[by]) == (found.classes[row], found.image[row])
        assert selector.nms_within == "class" or fates.level[by] == fates.level[row]
        assert box_iou(boxes[row : row + 1], boxes[by : by + 1]).item() > selector.nms_threshold
    assert bool((fates.by[fates.fate != SUPPRESSED] == -1).all())
    if options:
        assert {FATES[code] for code in (KEPT, TOPK, LIMIT)} <= {FATES[code] for code in fates.fate.tolist()}


def test_each_step_by_hand() -> None:
    plants = [
        Plant(0, 0.9, [16, 16, 56, 56]), Plant(0, 0.8, [24, 16, 64, 56]), Plant(1, 0.7, [24, 16, 64, 56]),
        Plant(0, 0.6, [80, 80, 120, 120]), Plant(0, 0.5, [80, 16, 85, 56], 1), Plant(0, 0.4, [16, 80, 48, 112], 1),
        Plant(0, 0.3, [16, 16, 56, 58], 1),
    ]  # fmt: skip
    model = planted.detector([plants], topk=3, clip="before", min_size=8.0, max_detections=2)
    with torch.no_grad(), recording(model) as records:
        model([planted.image_input(0)])
    fates = records[0].fates
    told = {round(score, 2): (FATES[fate], by) for score, fate, by in zip(
        fates.candidates.scores.tolist(), fates.fate.tolist(), fates.by.tolist())}  # fmt: skip
    assert {score: fate for score, (fate, _) in told.items()} == {
        0.9: FATES[KEPT], 0.8: FATES[SUPPRESSED], 0.7: FATES[KEPT], 0.6: FATES[TOPK], 0.5: FATES[SMALL],
        0.4: FATES[LIMIT], 0.3: FATES[SUPPRESSED],
    }  # fmt: skip
    best = fates.candidates.scores.argmax()
    assert told[0.8][1] == told[0.3][1] == best  # from another level, too


def test_nothing_passes() -> None:
    model = planted.detector([[]])
    with torch.no_grad(), recording(model) as records:
        model([planted.image_input(0)])
    fates = records[0].fates
    assert len(fates) == 0 and fates.kept.dtype == fates.by.dtype == torch.int64
