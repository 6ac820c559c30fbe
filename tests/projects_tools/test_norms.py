"""The table of errors of norms in channels_last."""

from __future__ import annotations

from projects_tools.bench.norms import SHAPES, measure, table


def test_a_row_of_each_norm() -> None:
    rows = [measure(norm, (1, 64, 48, 64), 10.0, seconds=0.01) for norm in SHAPES]
    for row in rows:
        assert max(row.before) > 3 * max(row.contiguous) >= max(row.ours)
        assert row.time > 0
    head, line, *body = table(iter(rows))
    assert all(text.count("|") == 8 for text in (head, line, *body))
    assert [text.split()[1] for text in body] == list(SHAPES)
