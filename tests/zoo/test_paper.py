"""The paper's tables: their form, and that what is shown beside them is there."""

from __future__ import annotations

import pytest

from fcos_d2.analysis.paper import Comparison
from fcos_d2.analysis.tables import PAPER as QUANTITIES
from fcos_d2.report import SECTIONS
from fcos_d2.zoo.paper import DETECTOR, NEEDS, PAPER


@pytest.mark.parametrize("name", PAPER)
def test_a_table_is_sound(name: str) -> None:
    one = PAPER[name]
    assert one.needs in NEEDS and bool(one.section) == (one.needs == DETECTOR)
    assert one.section in ("", *(row.key for row in SECTIONS))
    for row in one.rows.values():
        assert len(row) == len(one.columns) and all(number is None or 0 < number < 1 for number in row)
    assert set(one.same.values()) <= set(one.rows)
    assert bool(one.columns) == bool(one.rows) and one.method


def test_numbers_of_the_papers_text() -> None:
    """Some that the documentation names, too, and those that the analysis of labels shows."""
    assert PAPER["table8"].rows["FCOS, 66K samples"] == (0.528, 0.603)
    assert PAPER["table9"].rows["FCOS"] == (0.405, 0.647, 0.426, 0.131)
    assert [PAPER[f"figure{nth}"].rows["FCOS"][0] for nth in (4, 5, 6)] == [0.647, 0.426, 0.131]
    assert PAPER["table5"].rows["predicted by the branch"][0] == 0.366
    found = {(one.name, one.levels): one.published for one in QUANTITIES if not one.rule.center_radius}
    assert found["best possible recall", "P3 to P7"] == 0.984 and found["best possible recall", "P4 alone"] == 0.9555
    assert found["ambiguous", "P3 to P7"] == 0.0714 and found["ambiguous", "P4 alone"] == 0.2316
    assert found["ambiguous across classes", "P3 to P7"] == 0.0375


def test_each_row_stands_below_what_it_is_compared_with() -> None:
    """What is not confirmed is null, what is not there as well, and what the paper does not have comes last."""
    here = {"val": {"oracle": {"AP": 0.5}, "none": {"AP": 0.2, "AP50": 0.3, "more": 1}, "odd": {"AP": 0.1}}}
    found = Comparison("table5", PAPER["table5"], here, {"data": ["No COCO."]})
    lines = [(one.label, one.whose) for one in found.lines()]
    at = lines.index(("none", "published"))
    assert lines[at + 1] == ("none", "val") and lines[-1] == ("odd", "val")
    assert lines[lines.index(("oracle", "val")) - 1] == ("the truth in its place", "published")
    rows = {(row["label"], row["of"]): row for row in found.plain()["rows"]}
    assert len(rows) == len(lines) == len(PAPER["table5"].rows) + 3
    assert rows["none", "val"]["AP50"] == 0.3 and rows["none", "val"]["AP75"] is None
    assert rows["none", "published"]["AP"] == 0.338 and rows["the truth in its place", "published"]["AP"] is None
