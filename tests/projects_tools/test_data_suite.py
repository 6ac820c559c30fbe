"""The suite that reads images: both modes beside Detectron2's mapper, and the tolerance of each."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fcos_d2.data.mapper import PIXEL_TOLERANCE, CloseMapper, FastMapper
from fcos_d2.data.synthetic import generate
from projects_tools.bench import report, speed
from projects_tools.bench.agreement import compare
from projects_tools.bench.peers import Detectron2, Ours
from projects_tools.bench.workload import Setting


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(generate(tmp_path_factory.mktemp("reading") / "set", {"val": 3}, image_size=((120, 161),)).root)


def test_both_modes_beside_detectron2(folder, tmp_path):
    found = speed.run(["data"], threads=torch.get_num_threads(), quick=True, data=folder, budget=0.1)
    exact, close = found.rows
    assert (exact.peer, close.peer) == ("detectron2", "detectron2") and not found.skipped
    assert exact.agreement.agrees and "within 0 of 255" in exact.agreement.text
    assert close.agreement.agrees and close.case.setting.label.endswith(", close")
    for row in found.rows:
        ours, theirs = row.images_per_second
        assert ours == 2 / row.ours.median and theirs == 2 / row.theirs.median
    report.write_json(tmp_path / "x.json", found)
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert all(row["ours_images_per_s"] > 0 and row["peer_images_per_s"] > 0 for row in rows)
    assert "fcos_d2 images/s" in report.markdown(found)


def test_our_mapper_is_that_of_the_configs(folder):
    setting = Setting("data", 2, data=folder)
    for mode, cls in (("eager", FastMapper), ("close", CloseMapper)):
        job = Ours("detectron2").data(replace(setting, mode=mode))
        assert type(job.run.__closure__[0].cell_contents) is cls
        images = job.answer(job.run())
        theirs = Detectron2().data(setting)
        expected = theirs.answer(theirs.run())
        assert [x.shape for x in images] == [x.shape for x in expected] and max(images[0].shape) <= 1333
        assert compare(replace(setting, mode=mode), images, expected).agrees


def test_tolerance():
    setting = Setting("data", 1)
    one, other = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4, dtype=torch.uint8)
    other[0, 0, 0] = 1
    assert not compare(setting, [one], [other]).agrees  # not even one, unless the mode says so
    close = replace(setting, mode="close")
    assert compare(close, [one], [other]).agrees
    other[0, 0, 0] = PIXEL_TOLERANCE + 1
    assert not compare(close, [other], [one]).agrees
    assert not compare(close, [one], [one[:, :3]]).agrees
