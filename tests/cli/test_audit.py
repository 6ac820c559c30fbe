"""`fcos check`: what it prints, its exit codes, JSON and page; it needs no PyTorch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from console import ROOT, environment, install
from made_set import WIDTH, Data, balance
from PIL import Image
from webpages import Page

from fcos_d2.data.audit import KINDS

SHARED = Path(os.environ.get("FCOS_D2_SHARED", ROOT.parent / "shared")) / "data"


def test_right_and_wrong_data(fcos, tmp_path: Path) -> None:
    data = Data(tmp_path / "my data")
    done = fcos("check", data.folder)
    assert done.code == 0 and "Nothing to mend." in done.out, done.err
    data.box(3)["bbox"] = [5, 5, 0, 9]
    data.save()
    done = fcos("check", data.folder)
    assert done.code == 3 and "Boxes of zero width or height in train: 1 of 60" in done.out
    assert "annotation 4" in done.out and "image 0.png" in done.out and "bbox [5, 5, 0, 9]" in done.out
    line = re.search(r"^ +(fcos check .* --fix .*)$", done.out, re.MULTILINE)
    assert line and line[1] == f"fcos check '{data.folder}' --fix 'my data_mended'"
    done = fcos("check", data.folder, "--fix", "my data_mended")
    assert done.code == 3 and "train: 59 of 60 annotations" in done.out and "1 degenerate" in done.out
    assert fcos("check", "my data_mended").code == 0
    assert json.loads(Path("my data_mended", "mended.json").read_text())["parts"]["train"]["dropped"] == {
        "degenerate": 1
    }


def test_json_and_a_file_that_is_none(fcos, tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    data.box(3)["bbox"] = [WIDTH - 9, 5, 40, 30]
    data.save()
    done = fcos("check", data.folder, "--json", "--no-pictures")
    found = json.loads(done.out)
    assert done.code == 3 and found["clean"] is False and not done.err
    assert {one["kind"] for one in found["findings"]} >= {"beyond"} and set(found["labels"]) == {"train", "val"}
    assert all(balance(counts) == 0 for counts in found["labels"].values())
    assert all(one["level"] == KINDS[one["kind"]].level for one in found["findings"])
    (data.folder / "train.json").write_text("{")
    done = fcos("check", data.folder)
    assert done.code == 1 and done.err.count("\n") == 1 and "is not valid JSON" in done.err
    assert fcos("check", data.folder, "--no-pictures", "--fix", "x").code == 2
    assert fcos("check", data.folder, "--copy").code == 2


def test_the_size_of_the_input_is_that_of_the_model_and_said(fcos, tmp_path: Path) -> None:
    """Boxes of 3 pixels: at 800 px, each has a location in it; at 128 px, all lie between locations."""
    data = Data(tmp_path / "data")
    for place in range(60):
        data.box(place)["bbox"] = [5 + place % 4 * 30, 10, 3, 3]
    data.save()

    def counts(*words: str) -> tuple[int, str | None, int]:
        found = json.loads(fcos("check", data.folder, "--no-pictures", "--json", *words).out)
        return found["image_size"], found["image_size_from"], found["labels"]["train"]["unassignable"]

    assert counts()[:2] == (320, None)
    assert counts("--model", "fcos_R_50_FPN_1x") == (800, "fcos_R_50_FPN_1x", 0)
    assert counts("--model", "fcos_R_50_FPN_1x", "--image-size", "128") == (128, "--image-size", 60)
    said = fcos("check", data.folder, "--no-pictures", "--html", "sizes.html")
    assert "Input: 320 px for the shorter side (assumed: --model or --image-size says what yours is)." in " ".join(
        said.out.split()
    )
    assert "Input size: 320 px for the shorter side (assumed" in Path("sizes.html").read_text(encoding="utf-8")
    said = fcos("check", data.folder, "--no-pictures", "--model", "fcos_R_50_FPN_1x")
    assert "800 px for the shorter side, 1333 px at most for the longer one (as fcos_R_50_FPN_1x says)" in " ".join(
        said.out.split()
    )
    wrong = fcos("check", data.folder, "--model", "fcos_R_5O_FPN_1x")
    assert wrong.code == 1 and wrong.err.count("\n") == 1 and "fcos_R_50_FPN_1x" in wrong.err


def test_the_page_loads_nothing_and_escapes_names(fcos, tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    name = "<script>alert('x')</script> & \".png"
    if os.name == "nt":
        name = "& '.png"
    name = name.replace("/", "")
    Image.open(data.image("0.png")).save(data.image("x.png"))
    data.image("x.png").rename(data.image(name))
    data.train["images"][0]["file_name"] = name
    for part in (data.train, data.val):
        part["categories"][1]["name"] = "<b>dog</b>"
    data.box(0)["bbox"] = [5, 5, 0, 9]
    data.box(1)["bbox"] = [100, 30, 70, 30]
    data.save()
    assert fcos("check", data.folder, "--html", "page.html").code == 3
    text = Path("page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.scripts == 0 and page.loads
    assert all(one.startswith("data:image/jpeg;base64,") for one in page.loads)
    assert "<script" not in text and "<b>dog" not in text and "&lt;b&gt;dog&lt;/b&gt;" in text
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert fcos("check", data.folder, "--html", "page.html").code == 3  # its own page is replaced
    Path("mine.html").write_text("mine")
    done = fcos("check", data.folder, "--html", "mine.html")
    assert done.code == 1 and Path("mine.html").read_text() == "mine"


def test_it_needs_no_pytorch(tmp_path: Path) -> None:
    data = Data(tmp_path / "data")
    command = install(tmp_path / "bin")
    program = Path(command[1]).read_text().replace("import sys\n", "import sys\nsys.modules['torch'] = None\n", 1)
    Path(command[1]).write_text(program)
    run = subprocess.run(
        [sys.executable, command[1], "check", str(data.folder), "--fix", str(tmp_path / "out"), "--html", "p.html"],
        cwd=tmp_path, env=environment(), text=True, capture_output=True,
    )  # fmt: skip
    assert run.returncode == 0 and "Nothing to mend." in run.stdout, run.stderr


@pytest.mark.skipif(not (SHARED / "bccd" / "train.json").is_file(), reason="needs the BCCD images in ../shared")
def test_blood_cells(fcos) -> None:
    """Its two degenerate boxes are named, and of its format nothing is said."""
    done = fcos("check", SHARED / "bccd", "--json")
    found = json.loads(done.out)
    told = {(one["kind"], one["part"]): one for one in found["findings"]}
    assert done.code == 3
    assert [told["zero size", part]["count"] for part in ("train", "val")] == [1, 1]
    for part in ("train", "val"):
        (one,) = told["zero size", part]["examples"]
        assert 0 in one["bbox"][2:] and one["image"].startswith("BloodImage_")
    assert found["labels"]["train"]["dropped"]["degenerate"] == found["labels"]["val"]["dropped"]["degenerate"] == 1
    kinds = {kind for kind, _ in told}
    assert kinds.isdisjoint({"box format", "shifted classes", "shifted val", "in train and val"})
    (pair,) = told["near in train and val", "val"]["examples"]  # one scene, taken twice: looked at
    assert (pair["image"], pair["other"]) == ("BloodImage_00038.jpg", "BloodImage_00037.jpg")
    assert all(balance(counts) == 0 for counts in found["labels"].values())


@pytest.mark.skipif(not (SHARED / "coco").is_dir(), reason="needs the COCO images in ../shared")
def test_coco_itself_has_no_error(fcos) -> None:
    found = json.loads(fcos("check", SHARED / "coco", "--json").out)
    assert [one["kind"] for one in found["findings"] if one["level"] == "error"] == []
