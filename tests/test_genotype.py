"""Genotypes: what is read is what was written; all else is refused in a sentence, and nothing of it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcos_d2.errors import FcosError
from fcos_d2.genotype import GENOTYPES, OPERATIONS, Genotype, inlined, pair_of, parse, read_genotype

# As msight-tech/research-fad prints them in its README.
BOX = (
    "Genotype(normal=[[('sinSep_conv_3x3_x3', 0), ('std_conv_3x3_x3', 1)], [('std_conv_3x3', 2), "
    "('sinSep_conv_3x3+dil_conv_3x3', 1)], [('sinSep_conv_3x3_x2', 2), ('std_conv_3x3_x2', 3)]], "
    "normal_concat=range(2, 5))"
)
CLASSES = (
    "Genotype(normal=[[('sinSep_conv_3x3_x2+dil_conv_3x3', 1), ('std_conv_3x3_x3', 0)], "
    "[('sinSep_conv_3x3_x2+dil_conv_3x3', 0), ('sinSep_conv_3x3', 2)], [('sinSep_conv_3x3_x2', 2), "
    "('std_conv_3x3', 3)]], normal_concat=range(2, 5))"
)
edges = st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 1))
genotypes = st.lists(st.lists(edges, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4).map(
    lambda nodes: Genotype(tuple(nodes))
)


def test_the_published_lines() -> None:
    assert (parse(BOX), parse(CLASSES)) == GENOTYPES["paper"]
    assert tuple(map(str, GENOTYPES["paper"])) == (BOX, CLASSES)
    assert {name for pair in GENOTYPES.values() for g in pair for node in g.nodes for name, _ in node} == {*OPERATIONS}


def test_receptive_fields() -> None:
    """A 3x3 layer adds 2 pixels, one of dilation 2 adds 4: 3, 7, 5, 9 and 7 of both kinds."""
    fields = [1 + sum(4 if layer == "dil" else 2 for layer in layers) for layers in OPERATIONS.values()]
    assert fields == [3, 7, 5, 9, 7] * 2


@given(genotypes)
def test_what_is_printed_is_read(genotype: Genotype) -> None:
    line = str(genotype)
    assert parse(line) == genotype
    assert parse(line.replace(" ", "").replace("'", '"')) == parse(f"  {line.replace(',', ' , ')}\n") == genotype


@given(st.data())
def test_a_changed_line_is_refused_or_read(data: st.DataObject) -> None:
    at, end = sorted(data.draw(st.lists(st.integers(0, len(BOX)), min_size=2, max_size=2)))
    line = BOX[:at] + data.draw(st.text("Genotype()[]', 0123;_+=\n", max_size=3)) + BOX[end:]
    try:
        found = parse(line)
    except FcosError:
        return
    assert parse(str(found)) == found


FORM = "is not of the form Genotype"
DEEP = "[" * 3000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", FORM),
        ("__import__('os').system('touch ran')", FORM),
        (BOX.replace("('std_conv_3x3', 2)", "(__import__('os').system('touch ran'), 2)"), FORM),
        (BOX.replace("2)", "open('ran', 'w'))", 1), FORM),
        (BOX + " or open('ran', 'w')", FORM),
        (BOX.replace("range(2, 5)", "range(2, 5, open('ran', 'w'))"), FORM),
        (BOX.replace("], [", "] + [", 1), FORM),
        (BOX.replace("), (", ") (", 1), FORM),
        (BOX.replace("range(2, 5)", "[2, 3, 4]"), FORM),
        (f"Genotype(normal={DEEP}, normal_concat=range(2, 5))", FORM),
        (BOX * 20, FORM),
        (BOX.replace("std_conv_3x3'", "max_pool_3x3'"), "no operation 'max_pool_3x3'; there are std_conv_3x3, "),
        (BOX.replace("x3', 0)", "x3', 2)", 1), "State 2 of a genotype reads state 2, which is not before it"),
        (BOX.replace("2, 5", "2, 6"), r"joins the states 2 to 6, but a cell of 3 nodes gives all of them: range\(2, 5"),
        ("Genotype(normal=[], normal_concat=range(2, 2))", "needs a node"),
        ("Genotype(normal=[[]], normal_concat=range(2, 3))", "every node an edge"),
    ],
)
def test_refused(line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FcosError, match=f"^Here.*{message}"):
        parse(line, "Here")
    assert not Path("ran").exists()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "genotype.log"
    path.write_text(f"{BOX}\r\n{CLASSES}\nwhatever follows\n")
    assert read_genotype(path) == inlined(str(path)) == f"{BOX}\n{CLASSES}"
    assert pair_of(inlined(str(path))) == GENOTYPES["paper"]
    for value in (*GENOTYPES, f"{BOX}\n{CLASSES}"):
        assert inlined(value) == value
    with pytest.raises(FcosError, match=r"no genotype file gone\.log; without a file, .* paper and other"):
        inlined("gone.log")
    with pytest.raises(FcosError, match="There is no genotype file"):
        read_genotype(tmp_path)
    for text, message in (
        (b"", "has 0 lines, but it needs two"),
        (BOX.encode(), "has 1 lines, but it needs two"),
        (f"{BOX}\nGenotype(secret)".encode(), r"Line 2 of the genotype file .*genotype\.log is not of the form"),
        (b"\xff\xfe\x00", r"genotype\.log cannot be read"),
        (b"x" * 100_000, "is too long"),
    ):
        path.write_bytes(text)
        with pytest.raises(FcosError, match=message) as error:
            read_genotype(path)
        assert "secret" not in str(error.value)


def test_a_value_that_is_neither_name_nor_text() -> None:
    with pytest.raises(FcosError, match=r"is 'papr', but it must be one of 'paper', 'other', or the two lines"):
        pair_of("papr")
