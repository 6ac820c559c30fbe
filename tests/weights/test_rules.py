"""Templates and rules, in both directions."""

from __future__ import annotations

import pytest
import torch

from fcos_d2.errors import FcosError
from fcos_d2.importers import FAMILIES
from fcos_d2.weights.rules import Rule, difference, fields_of, fill, to_ours, to_theirs


@pytest.mark.parametrize(
    ("template", "name", "fields"),
    [
        ("layer{k}.{i}.bn{j}.{A}", "layer3.22.bn1.weight", {"k": 3, "i": 22, "j": 1, "A": "weight"}),
        ("res{k+1}.{*}", "res5.0.conv1.weight", {"k": 4, "rest": "0.conv1.weight"}),
        ("tower.{3n+1}.{A}", "tower.10.bias", {"n": 3, "A": "bias"}),
        ("tower.{3n+1}.{A}", "tower.9.bias", None),
        ("adapt{l+2}.{A}", "adapt1.weight", None),  # l would be negative
        ("s{k}.OSA{k}_{b+1}/{A}", "s4.OSA4_2/conv", {"k": 4, "b": 1, "A": "conv"}),
        ("s{k}.OSA{k}_{b+1}/{A}", "s4.OSA5_2/conv", None),  # one field, two numbers
        ("conv.{A}", "conv.0.weight", None),  # a component has no dot
        ("a.b", "a_b", None),  # dots are dots
    ],
)
def test_fields(template: str, name: str, fields: dict | None) -> None:
    assert fields_of(template, name) == fields
    if fields is not None:
        assert fill(template, fields) == name


def numbered(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(float(i)) for i, name in enumerate(names)}


def test_rules_are_ordered_and_legacy_names_are_only_read() -> None:
    rules = (
        Rule("fpn.{l}.0.{A}", "out{l+3}.{A}"),
        Rule("fpn.{l}.{A}", "out{l+3}.{A}", legacy=True),
        Rule("{*}", "other.{*}"),
    )
    new, old = to_ours(numbered("fpn.0.0.weight", "x"), rules), to_ours(numbered("fpn.0.weight", "x"), rules)

    assert list(new.tensors) == list(old.tensors) == ["out3.weight", "other.x"]
    assert list(to_theirs(new.tensors, rules).tensors) == ["fpn.0.0.weight", "x"]


def test_what_no_rule_fits_is_left_over() -> None:
    renamed = to_ours(numbered("a.weight", "b.weight"), (Rule("a.{A}", "x.{A}"),))

    assert renamed.left_over == ["b.weight"]
    assert list(renamed.tensors) == ["x.weight"]


def test_two_names_for_one_weight_are_an_error() -> None:
    rules = (Rule("new.{A}", "x.{A}"), Rule("old.{A}", "x.{A}", legacy=True))

    with pytest.raises(FcosError, match=r"'new\.bias' and 'old\.bias' both become 'x\.bias'"):
        to_ours(numbered("new.bias", "old.bias"), rules)


def test_neighbours_decide_what_a_name_means() -> None:
    rules = (
        Rule("{A}.kernel.{B}", "{A}.{B}", beside="{A}.offset.weight"),
        Rule("{A}.offset.{B}", "{A}.offset.{B}"),
        Rule("conv{n}.{A}", "stem.{n}.{A}", given="conv2.weight"),
        Rule("conv{n}.{A}", "only.{n}.{A}"),
        Rule("{A}.{B}", "{A}.{B}"),
    )
    ours = numbered("a.weight", "b.weight", "b.offset.weight")

    assert list(to_theirs(ours, rules).tensors) == ["a.weight", "b.kernel.weight", "b.offset.weight"]
    assert list(to_ours(numbered("conv1.weight"), rules).tensors) == ["only.1.weight"]
    assert list(to_ours(numbered("conv1.weight", "conv2.weight"), rules).tensors) == ["stem.1.weight", "stem.2.weight"]


@pytest.mark.parametrize("shape", [(), (1,)])
def test_scales_are_stacked_by_level(shape: tuple[int, ...]) -> None:
    rules = (Rule("scales.{n}.scale", "scales", stacked=shape),)
    # "10" sorts before "2" as text, and files need not be in order.
    theirs = {f"scales.{n}.scale": torch.full(shape, 1.0 + n) for n in (10, 2, 0, 1, 3, 9, 4, 8, 5, 7, 6)}

    ours = to_ours(theirs, rules).tensors

    assert torch.equal(ours["scales"], torch.arange(1.0, 12.0))
    back = to_theirs(ours, rules).tensors
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) and back[name].shape == shape for name in theirs)


def test_a_missing_scale_is_an_error() -> None:
    with pytest.raises(FcosError, match=r"levels \[0, 2\]"):
        to_ours(numbered("s.0", "s.2"), (Rule("s.{n}", "scales", stacked=()),))


def test_difference() -> None:
    found = difference({"a": torch.zeros(2), "c": torch.zeros(3)}, {"a": (4,), "b": (1,)})

    assert (found.missing, found.left_over, found.shapes) == (("b",), ("c",), {"a": ((2,), (4,))})
    assert len(found) == 3
    assert str(found) == "1 missing (b), 1 left over (c), 1 of another shape (a: [2] in the file, [4] wanted)"
    assert not difference({"a": torch.zeros(2)}, {"a": (2,)})


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
def test_templates_of_a_rule_have_the_same_fields(family) -> None:
    for rule in family.rules:
        theirs, ours = (_fields(template) for template in (rule.theirs, rule.ours))
        assert theirs - ({"n"} if rule.stacked is not None else set()) == ours, rule
        for neighbour in (rule.given, rule.beside):
            assert neighbour is None or _fields(neighbour) <= theirs, rule


def _fields(template: str) -> set[str]:
    from fcos_d2.weights.rules import _FIELD

    return {match["number"] or match["word"] or "*" for match in _FIELD.finditer(template)}
