"""The examples in docs/datasets.md are data sets, and all say the same."""

from __future__ import annotations

import re

import pytest
from console import ROOT
from label_files import picture, rows, write

from fcos_d2.data import FORMATS, find_dataset, read_parts

PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^`(\w+)`[^\n]*\n\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("format", "files"), EXAMPLES, ids=[f"{at}-{name}" for at, (name, _) in enumerate(EXAMPLES)])
def test_examples(format, files, tmp_path):
    for line in files.splitlines():
        name, _, text = line.partition(" ")
        if name.endswith(".jpg"):
            picture(tmp_path / name, (640, 480))
        else:
            write(tmp_path / name, text.strip().replace("\\n", "\n") + "\n")
    layout = find_dataset(tmp_path)
    assert layout.format == format
    ((_, label, box),) = rows(read_parts(layout, ("train",))["train"])
    assert (label, box) == ("dog", [160, 120, 320, 120])


def test_every_format_has_a_row_and_an_example():
    names = [row.name for row in FORMATS]
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == names
    assert list(dict.fromkeys(name for name, _ in EXAMPLES)) == [name for name in names if name != "voc0"]
