"""How a part declares its options."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields

import pytest
from omegaconf import OmegaConf

from fcos_d2.options import as_tuple, keyed_fields, one_of, option


@dataclass
class Part:
    needed: int = option()
    plain: float = option(1.5)
    named: str = option("a", key="NAMED")
    also: bool = option(True, key="ALSO")


def test_options_are_fields_with_defaults() -> None:
    assert [f.default for f in fields(Part)] == [MISSING, 1.5, "a", True]
    assert Part(3) == Part(needed=3, plain=1.5, named="a", also=True)
    with pytest.raises(TypeError, match="needed"):
        Part()


def test_fields_by_key() -> None:
    assert {key: f.name for key, f in keyed_fields(Part).items()} == {"NAMED": "named", "ALSO": "also"}


def test_one_of() -> None:
    one_of("Part.named", "b", ("a", "b"))
    with pytest.raises(ValueError, match=r"^Part\.named is 'c', but it must be one of: 'a', 'b'\.$"):
        one_of("Part.named", "c", ("a", "b"))


def test_as_tuple() -> None:
    assert as_tuple([1, [2, (3, [4])]]) == (1, (2, (3, (4,))))
    assert as_tuple(OmegaConf.create([[1, 2], [3, 4]])) == ((1, 2), (3, 4))
    assert as_tuple("ab") == "ab"
    assert as_tuple(b"ab") == b"ab"
    assert as_tuple(5) == 5
    assert as_tuple(None) is None
