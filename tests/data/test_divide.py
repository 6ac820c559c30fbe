from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcos_d2.data.divide import divide, grouping, place
from fcos_d2.errors import FcosError

NAMES = [f"{number}.jpg" for number in range(400)]


def parts(names: list[str], shares: dict[str, float], **more) -> dict[str, str]:
    return dict(zip(names, divide(names, shares, **more)))


def test_val_is_what_val_fraction_takes_whatever_test_is():
    alone = parts(NAMES, {"val": 0.2})
    both = parts(NAMES, {"val": 0.2, "test": 0.1})
    assert {name for name, part in alone.items() if part == "val"} == {name for name in NAMES if place(name) < 0.2}
    assert [part == "val" for part in alone.values()] == [part == "val" for part in both.values()]
    counts = Counter(both.values())
    assert 50 <= counts["val"] <= 110 and 20 <= counts["test"] <= 60


@given(st.sets(st.text(min_size=1, max_size=8), min_size=5, max_size=30), st.sets(st.text(max_size=8), max_size=10))
def test_images_that_come_later_move_no_other(before, later):
    """Unless a part would be empty without them."""
    whole = parts(sorted(before | later), {"val": 0.3, "test": 0.3})
    some = parts(sorted(before), {"val": 0.3, "test": 0.3})
    by_hash = {name: "val" if place(name) < 0.3 else "test" if place(name) >= 0.7 else "train" for name in before}
    if len(set(by_hash.values())) == 3:
        assert some == by_hash == {name: whole[name] for name in before}
    assert set(some.values()) == set(whole.values()) == {"train", "val", "test"}


@pytest.mark.parametrize("stratify", [False, True])
@given(st.lists(st.sampled_from("abcde"), min_size=12, max_size=40), st.randoms())
def test_groups_stay_together_and_no_part_is_empty(stratify, groups, draw):
    names = [f"{group}_{number}.jpg" for number, group in enumerate(groups)]
    labels = [[draw.choice("xyz") for _ in range(draw.randrange(4))] for _ in names] if stratify else None
    kinds = set(groups)
    if len(kinds) < 3:
        with pytest.raises(FcosError, match=f"^{len(kinds)} groups of images cannot be divided into 3 parts"):
            divide(names, {"val": 0.3, "test": 0.2}, grouping("^(.)_"), labels)
        return
    found = parts(names, {"val": 0.3, "test": 0.2}, group=grouping("^(.)_"), labels=labels)
    assert set(found.values()) == {"train", "val", "test"}
    for _, members in groupby(sorted(found), key=lambda name: name[0]):
        assert len({found[name] for name in members}) == 1


def test_stratified_parts_have_equal_shares_of_a_rare_class():
    """Ten of 400 images have the rare class; by hash, val has as many as chance will."""
    labels = [["rare"] if number % 40 == 0 else ["common"] * 3 for number in range(400)]
    found = divide(NAMES, {"val": 0.2, "test": 0.1}, labels=labels)
    rare = Counter(part for part, there in zip(found, labels) if there == ["rare"])
    images = Counter(found)
    assert rare == {"train": 7, "val": 2, "test": 1}
    assert abs(images["val"] - 80) <= 1 and abs(images["test"] - 40) <= 1


def test_stratified_parts_depend_on_nothing_but_names_and_labels():
    labels = {name: [number % 3] * (number % 4) for number, name in enumerate(NAMES)}
    one = parts(NAMES, {"val": 0.25}, labels=[labels[name] for name in NAMES])
    other = parts(NAMES[::-1], {"val": 0.25}, labels=[labels[name] for name in NAMES[::-1]])
    assert one == other


def test_rules_for_groups():
    assert grouping("folder")("cam1/a/0.png") == "cam1/a" == grouping("folder")("cam1\\a\\1.png")
    assert grouping(r"^patient(\d+)")("patient12_3.png") == "12"
    assert grouping("[ab]+")("xabx.png") == "ab" and grouping("[ab]+")("x.png") == "x.png"
    with pytest.raises(FcosError, match="neither 'folder' nor a regular expression"):
        grouping("(")


@pytest.mark.parametrize("shares", [{}, {"val": 0.0}, {"val": 0.6, "test": 0.4}, {"val": -0.1}])
def test_shares_that_are_none(shares):
    with pytest.raises(FcosError, match="each must be above 0, and their sum below 1"):
        divide(NAMES, shares)
