"""Boxes of data sets of every format and fault: those that training has, and one sentence where there are none."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from data.test_mutated import mutated

from fcos_d2.analysis import Rule, lost, read_objects
from fcos_d2.data import find_dataset
from fcos_d2.data.clean import clean
from fcos_d2.data.coco import read
from fcos_d2.data.convert import write_set
from fcos_d2.data.layout import DatasetLayout, Split
from fcos_d2.data.parts import open_parts
from fcos_d2.data.synthetic import generate
from fcos_d2.errors import FcosError


def test_faulty_files_are_read_as_training_reads_them_or_refused(tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    file = tmp_path / "train.json"
    for number in range(20_000, 20_150):
        file.write_bytes(mutated(random.Random(number)))
        layout = DatasetLayout("coco", tmp_path, {"train": Split(file, tmp_path)})
        try:
            objects = read_objects(layout)["train"]
        except FcosError as error:
            ends["several lines" if "\n" in str(error) else "refused"] += 1
            continue
        found = objects.assign(Rule())
        assert len(lost(objects, found)) == len(objects) - found.recalled.sum()
        try:
            report = clean(read(layout.splits["train"]), file)
        except FcosError:
            ends["not trained"] += 1
            continue
        ends["read"] += 1
        assert report.objects == len(objects)
    assert min(ends[key] for key in ("refused", "read")) > 10 and not ends["several lines"], ends


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_other_formats_say_the_same(tmp_path: Path, format: str) -> None:
    layout = generate(tmp_path / "coco", {"train": 4, "val": 2}, (96, 64), min_size=10)
    write_set(open_parts(layout), tmp_path / format, format, "copy", source=layout.root)
    coco, other = (read_objects(found) for found in (layout, find_dataset(tmp_path / format)))
    for part, one in coco.items():
        mine, theirs = one.assign(Rule()), other[part].assign(Rule())
        assert len(one) == len(other[part]) > 5
        assert (mine.positives.tolist(), mine.across.tolist()) == (theirs.positives.tolist(), theirs.across.tolist())


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    layout = generate(tmp_path / "set", {"train": 2}, (96, 64), min_size=10)
    with pytest.raises(FcosError, match="has no val part"):
        read_objects(layout, ("val",))


def test_a_sample_is_of_whole_pictures(tmp_path: Path) -> None:
    objects = read_objects(generate(tmp_path / "set", {"train": 12}, (96, 64), min_size=10))["train"]
    some = objects.sample(len(objects) // 3)
    assert 0 < len(some) < len(objects) / 2 and objects.sample(10_000) is objects
    whole = {image: (objects.image == image).sum() for image in some.image}
    assert all((some.image == image).sum() == count for image, count in whole.items())
    assert objects.usual_frame().tolist() == [[96, 64]]
