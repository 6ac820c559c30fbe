"""Faulty files of every kind: no traceback, and every annotation stands in one place, that which reading says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from data.test_mutated import mutated
from made_set import balance
from PIL import Image

from fcos_d2.data.audit import audit
from fcos_d2.data.clean import clean
from fcos_d2.data.coco import read
from fcos_d2.data.layout import DatasetLayout, Split
from fcos_d2.errors import FcosError


@pytest.mark.parametrize("sets", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_no_annotation_is_lost(sets: int, tmp_path: Path) -> None:
    for n in range(1, 4):
        Image.new("RGB", (32, 24), (n * 60, 0, 0)).save(tmp_path / f"{n}.png")
    ends = {"read": 0, "refused": 0, "no file": 0}
    file = tmp_path / "train.json"
    for number in range(10_000, 10_000 + sets):
        file.write_bytes(mutated(random.Random(number)))
        try:
            found = audit(DatasetLayout("coco", tmp_path, {"train": Split(file, tmp_path)}), read, pictures=False)
        except FcosError:
            ends["no file"] += 1
            continue
        counts, kinds = found.ledger["train"], [one.kind for one in found.findings]
        assert balance(counts) == 0 and counts["in"] == len(read(Split(file, tmp_path))["annotations"])
        try:
            report = clean(read(Split(file, tmp_path)), file)
        except FcosError:
            report = None
        ends["read" if report else "refused"] += 1
        assert report is not None or not found.clean
        if report is not None:
            assert {**report.left_out, "crowd": report.crowds} == counts["dropped"], (number, kinds)
            assert report.objects == counts["used"] + counts["clipped"] + counts["unassignable"]
    assert min(ends.values()) > sets / 50, ends
