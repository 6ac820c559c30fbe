"""Figures and pictures of the README and docs/performance.md: ratios are written one way, and are the same in both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
README, PERFORMANCE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/performance.md"))
NUMBER = r"\d[\d,]*(?:\.\d+)?"


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("text", [README, PERFORMANCE], ids=["README", "performance"])
def test_ratios_are_written_one_way(text: str) -> None:
    """As 1.6x: the peer's over ours, of time as of memory; not as 1/12, "12 times faster" or "a factor of 12"."""
    fraction, words = rf"\b1/{NUMBER}(?! of)(?=[ ,|])", "(?:times|-fold) (?:faster|slower|smaller|less|more)"
    other = rf"{fraction}|{NUMBER} ?{words}|factor of|×|{NUMBER} x\b"
    assert re.findall(other, without_code(text)) == []


def test_ratios_of_the_readme_are_those_of_the_tables() -> None:
    """The README is to be written anew when the tables are."""
    table = re.search(r"^## Fast$.*?^\| --- .*?\n(.*?)\n\n", README, re.MULTILINE | re.DOTALL)
    assert table is not None
    cells = [cell.strip() for row in table[1].splitlines() for cell in row.strip("|").split("|")[1:]]
    found = set()
    for line in PERFORMANCE.splitlines():
        ratios = re.findall(rf"\| (?:\*\*)?({NUMBER}x)(?:\*\*)? (?=\|)", line)
        found |= {(ratios[0], ratios[1] if len(ratios) > 1 else ""), (ratios[0], "")} if ratios else set()
    assert len(cells) == 16
    for cell in cells:
        match = re.fullmatch(rf"({NUMBER}x)(?:, memory ({NUMBER}x))?", cell)
        assert match and (match[1], match[2] or "") in found, f"{cell!r} is not in docs/performance.md"


def test_pictures_are_there_and_small() -> None:
    for folder, text in ((ROOT, README), (ROOT / "docs", PERFORMANCE)):
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
        assert pictures
        for name in pictures:
            with Image.open(folder / name) as image:
                assert min(image.size) > 300 and (folder / name).stat().st_size < 300_000
