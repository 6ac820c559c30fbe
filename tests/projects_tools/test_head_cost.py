"""Heads side by side: a line for each, and ratios to the first."""

from __future__ import annotations

import re

from click.testing import CliRunner

from projects_tools.head_cost import command


def test_a_line_for_each_head() -> None:
    line = ["improved", "fad", "--backbone", "R_18_slim_FPN", "--size", "64x96", "--seconds", "0.1"]
    done = CliRunner().invoke(command, line, catch_exceptions=False)
    one, other = done.output.splitlines()
    assert one.startswith("improved: ") and one.endswith("; 1.00x, 1.00x, 1.00x of improved")
    found = re.fullmatch(r"fad: inference .* s, training .* s, kept (\d+) MiB; .*, ([\d.]+)x of improved", other)
    assert found and float(found[2]) > 1
