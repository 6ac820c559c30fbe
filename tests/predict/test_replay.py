"""A record on disk: what is read is what was written, and what is no record is refused in a sentence."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch
from planted import Plant

from fcos_d2.errors import FcosError
from fcos_d2.modeling.record import recording
from fcos_d2.predict.replay import Replay, read_record, require_own, write_record


@pytest.fixture(scope="module")
def replay() -> Replay:
    random = np.random.default_rng(0)
    plants = [
        Plant(int(random.integers(2)), float(random.uniform(0.05, 0.95)), [*low, *(low + random.uniform(20, 60, 2))])
        for low in random.uniform(0, 60, (30, 2))
    ]
    model = planted.detector([plants])
    with torch.no_grad(), recording(model) as records:
        model([{**planted.image_input(0), "height": 200, "width": 300}])
    return Replay(records[0], ("cat", "dog"), (0.3, 0.4), "street.jpg")


@pytest.fixture
def file(replay: Replay, tmp_path: Path) -> Path:
    write_record(tmp_path / "r.npz", replay)
    return tmp_path / "r.npz"


def test_what_is_read_is_what_was_written(replay: Replay, file: Path) -> None:
    again = read_record(file)
    assert again.outcome == "exact" and len(again.record.found) > 5
    assert (again.class_names, again.least, again.image) == (replay.class_names, replay.least, replay.image)
    ours, theirs = replay.record, again.record
    assert (theirs.selector, theirs.coder, theirs.image_sizes) == (ours.selector, ours.coder, ours.image_sizes)
    assert theirs.output_sizes == ((200, 300),)
    assert theirs.predictions.locations.levels == ours.predictions.locations.levels
    for field in dataclasses.fields(ours.fates):
        if field.name != "candidates":
            assert torch.equal(getattr(ours.fates, field.name), getattr(theirs.fates, field.name)), field.name


def test_it_holds_maps_and_no_weights_and_no_pixels(replay: Replay, file: Path) -> None:
    levels = range(len(replay.record.predictions.locations.levels))
    maps = {f"{name}.{i}" for name in ("logits", "raw_ltrb", "quality") for i in levels}
    found = {f"found.{name}" for name in ("image", "boxes", "scores", "classes", "location")}
    assert set(np.load(file).files) == {"about", "xy", "stride"} | maps | found


def test_a_record_that_was_changed_replays_otherwise(file: Path) -> None:
    again = read_record(file)
    again.record.found.boxes[0] += 1e-5
    assert Replay(again.record, again.class_names, again.least, "").outcome == "rounding"
    again.record.found.boxes[0] += 1
    assert Replay(again.record, again.class_names, again.least, "").outcome == "different"


def changed(edit: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    """Write the file anew with other contents."""

    def write(path: Path) -> None:
        with np.load(path) as file:
            arrays = dict(file)
        about = json.loads(bytes(arrays["about"]))
        edit(about, arrays)
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(path, **arrays)

    return write


def packed(path: Path) -> None:
    with np.load(path) as file:
        np.savez_compressed(path, **dict(file))


def pickled(path: Path) -> None:
    np.savez(path, about=np.array([{}], dtype=object))


HARMFUL = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-3000]),
    "text": lambda path: path.write_text("a picture", encoding="utf-8"),
    "another zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "one array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
    "objects": pickled,
    "compressed": packed,
    "version": changed(lambda about, arrays: about.update(version=9)),
    "another option": changed(lambda about, arrays: about["selector"].update(evil=1)),
    "a wrong option": changed(lambda about, arrays: about["selector"].update(nms_threshold=7)),
    "no levels": changed(lambda about, arrays: about.update(levels=[])),
    "a larger level": changed(lambda about, arrays: about["levels"][0].update(height=10**6)),
    "levels elsewhere": changed(lambda about, arrays: about["levels"][1].update(start=3)),
    "more classes": changed(lambda about, arrays: about.update(class_names=["a", "b", "c"])),
    "sizes": changed(lambda about, arrays: about.update(output_sizes=[[0, 5]])),
    "an array too few": changed(lambda about, arrays: arrays.pop("logits.0")),
    "another shape": changed(lambda about, arrays: arrays.update({"raw_ltrb.0": arrays["raw_ltrb.0"][:, :3]})),
    "another type": changed(lambda about, arrays: arrays.update(xy=arrays["xy"].astype("U8"))),
    "boxes for none": changed(lambda about, arrays: arrays.update({"found.boxes": arrays["found.boxes"][:1]})),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HARMFUL))
def test_what_is_no_record_is_refused(file: Path, name: str) -> None:
    HARMFUL[name](file)
    with pytest.raises(FcosError, match=r"r\.npz is no record of `fcos explain --record`, or a damaged one \(.+\)\.$"):
        read_record(file)
    with pytest.raises(FcosError, match="exists and is no record"):
        require_own(file)


def test_a_record_may_be_replaced_and_nothing_else(file: Path, tmp_path: Path) -> None:
    require_own(file)
    require_own(tmp_path / "new.npz")
    with pytest.raises(FcosError, match=r"end in \.npz"):
        require_own(tmp_path / "new.json")
    with pytest.raises(FcosError, match="does not exist"):
        read_record(tmp_path / "none.npz")
