"""Presets of test-time augmentation, and what a setting may be."""

from __future__ import annotations

from typing import Any

import pytest

from fcos_d2.errors import FcosError
from fcos_d2.zoo.tta import PRESETS, TTA, View


def test_views_come_in_the_published_order() -> None:
    """fcos_core/engine/bbox_aug.py: the plain size, its mirror image, then each size and its mirror image."""
    views = list(PRESETS["original"].tta.views())
    assert views[:2] == [View(), View(flip=True)] and len(views) == 18
    assert [view.size for view in views[2::2]] == [400, 500, 600, 700, 900, 1000, 1100, 1200]
    assert [view.flip for view in views] == [False, True] * 9 and {view.max_size for view in views[2:]} == {2000}


def test_numbers_of_views() -> None:
    count = {name: len(list(preset.tta.views())) for name, preset in PRESETS.items()}
    assert count == {"flip": 2, "multiscale": 18, "original": 18, "atss": 26, "detectron2": 18}
    assert all(preset.source for preset in PRESETS.values())
    scaled = [scale * 800 for scale in PRESETS["multiscale"].tta.scales]
    assert scaled == list(PRESETS["original"].tta.sizes)


def test_each_size_of_atss_has_its_limits() -> None:
    """TEST.BBOX_AUG of its config, and 1333 pixels for sizes below 800."""
    views = [view for view in PRESETS["atss"].tta.views() if view.size and not view.flip]
    assert [(view.size, view.max_size) for view in views if view.size and view.size < 800] == [
        (400, 1333), (500, 1333), (600, 1333), (640, 1333), (700, 1333)
    ]  # fmt: skip
    assert {view.max_size for view in views if view.size and view.size > 800} == {3000}
    assert {view.size: view.sides for view in views}[1800] == (0, 96) and views[0].sides == (96, 10000)


def test_the_identity_alone_is_the_default() -> None:
    assert TTA().is_identity and list(TTA().views()) == [View()]
    for more in ({"flip": True}, {"scales": (1.5,)}, {"sizes": (400,)}, {"sizes": (400,), "identity": False}):
        assert not TTA(**more).is_identity


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"identity": False}, "no view"),
        ({"identity": 1}, "tta.identity is 1"),
        ({"flip": "yes"}, "tta.flip is 'yes'"),
        ({"sizes": 400}, "tta.sizes is 400"),
        ({"sizes": [0]}, "tta.sizes is (0,)"),
        ({"sizes": [400.5]}, "400.5"),
        ({"sizes": [True]}, "True"),
        ({"sizes": [10**9]}, "16384"),
        ({"sizes": list(range(1, 70))}, "69 sizes"),
        ({"scales": [0.0]}, "tta.scales"),
        ({"scales": [17]}, "at most 16"),
        ({"scales": ["2"]}, "tta.scales"),
        ({"max_size": 0}, "tta.max_size is 0"),
        ({"sizes": [400, 500], "max_sizes": [900]}, "one for each size and scale (2)"),
        ({"sizes": [400], "ranges": [[0, 10], [0, 10]]}, "tta.ranges"),
        ({"sizes": [400], "ranges": [[10, 10]]}, "tta.ranges"),
        ({"sizes": [400], "ranges": [10]}, "tta.ranges"),
        ({"merge": "mean"}, "one of: nms, vote, soft-vote"),
        ({"vote_threshold": 0}, "tta.vote_threshold is 0"),
        ({"vote_threshold": float("nan")}, "tta.vote_threshold is nan"),
        ({"soft_threshold": 1.5}, "tta.soft_threshold"),
        ({"batch_size": 0}, "tta.batch_size is 0"),
    ],
)
def test_what_is_wrong_is_one_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(FcosError) as error:
        TTA(**fields)
    assert words in str(error.value) and "\n" not in str(error.value)
