"""Shares of causes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcos_d2.evaluation import ledger
from fcos_d2.evaluation.ledger import FALSE_ALARMS, MISSES, shares


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**9), max_size=12))
def test_shares_make_a_hundred(counts: dict[str, int]) -> None:
    found = shares(counts)
    total = sum(counts.values())
    assert sum(found.values()) == pytest.approx(100.0 if total else 0.0, abs=1e-6)
    for name, share in found.items():
        assert share == pytest.approx(100 * counts[name] / max(total, 1), abs=0.1001)
        assert round(share, 1) == pytest.approx(share, abs=1e-9)


def test_thirds() -> None:
    assert sorted(shares({"a": 1, "b": 1, "c": 1}).values()) == [33.3, 33.3, 33.4]


def test_the_page_has_every_cause_in_the_order_in_which_they_are_told() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "explaining.md").read_text(encoding="utf-8")
    for what, causes in (("missed", MISSES), ("wrong", FALSE_ALARMS)):
        table = re.search(rf"^\| {what} \| .*\n\| ---.*\n((?:\| .*\n)+)", page, re.MULTILINE)
        assert table and re.findall(r"^\| ([^|]+) \|", table[1], re.MULTILINE) == list(causes)


def test_the_module_needs_no_library() -> None:
    """So a report can be made of errors.json where PyTorch is not installed."""
    program = "import sys, runpy; runpy.run_path(sys.argv[1]); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program, ledger.__file__], check=True)
