"""`fcos paper`: what it makes is what the report and the evaluation show, beside the numbers that the paper prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from console import environment, install
from detectron2.config import instantiate

from fcos_d2.config import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.weights.write import save
from fcos_d2.zoo.paper import PAPER


@pytest.fixture
def words(shapes: Path, weights: Path) -> list[str]:
    return ["--weights", str(weights), "--data", str(shapes), "--workers", "0", "--device", "cpu"]


def rows_of(found: dict) -> dict:
    return {(row["label"], row["of"]): row for row in found["rows"]}


def test_what_there_is(fcos: Callable, words: list[str]) -> None:
    done = fcos("paper")
    assert done.code == 0 and all(name in done.out for name in PAPER) and "labels alone" in done.out
    assert set(json.loads(fcos("paper", "--json").out)["analyses"]) == set(PAPER)
    for name, told in (("table7", "compare trainings on COCO"), ("nothing", "none of table1, table2")):
        done = fcos("paper", name)
        assert done.code == 2 and told in " ".join(done.err.replace("│", " ").split())
    weights, data = words[:2], words[2:4]
    for wrong in (["table1"], ["table1", *weights], ["table5", *data], ["table5", *weights], ["table8", *data]):
        assert fcos("paper", *wrong).code == 2, wrong


def test_tables_of_labels_are_those_of_the_analysis(fcos: Callable, shapes: Path) -> None:
    """All parts, or one; without a detector, which changes nothing."""
    done = fcos("paper", "Table 1", "--data", shapes, "--json")
    expected = json.loads(fcos("analyze", shapes, "--no-suggest", "--json").out)["paper"]["rows"]
    assert done.code == 0, done.err
    found = rows_of(json.loads(done.out))
    for row in expected:
        if row["quantity"] == "best possible recall":
            label = row["levels"] + (", center sampling" if row["center_radius"] else "")
            for part in ("train", "val"):
                assert found[label, part]["best_possible_recall"] == row[part]
    assert found["FCOS with FPN", "published"]["best_possible_recall"] == 0.984
    done = fcos(
        "paper", "table2", "--data", shapes, "--split", "val", "--weights", "none.pth", "--json-file", "of.json"
    )
    assert done.code == 0 and "--weights" in done.err and "0.0714" in done.out and "not confirmed" in done.out
    rows = rows_of(json.loads(Path("of.json").read_text(encoding="utf-8")))
    assert {of for _, of in rows} == {"published", "val"} and not Path("output").exists()
    (ambiguous,) = [row["val"] for row in expected if row["quantity"] == "ambiguous" and row["levels"] == "P4 alone"
                    and not row["center_radius"]]  # fmt: skip
    assert rows["P4 alone", "val"]["ambiguous"] == ambiguous


def test_labels_need_no_pytorch(shapes: Path, tmp_path: Path) -> None:
    command = install(tmp_path / "bin")
    program = Path(command[1]).read_text(encoding="utf-8")
    program = program.replace("import sys\n", "import sys\nsys.modules['torch'] = None\n", 1)
    Path(command[1]).write_text(program, encoding="utf-8")
    words = [sys.executable, command[1], "paper", "table1", "--data", str(shapes)]
    run = subprocess.run(words, cwd=tmp_path, env=environment(), text=True, capture_output=True, encoding="utf-8")
    assert run.returncode == 0 and "0.9840" in run.stdout, run.stderr


def test_a_table_of_a_detector(fcos: Callable, words: list[str]) -> None:
    """As the report has it; the file of somebody else stays."""
    done = fcos("paper", "table5", *words, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    rows = rows_of(found)
    assert fcos("report", *words, "--only", "rankings", "-o", "r.html").code == 0
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))["sections"]["rankings"]
    for label in ("none", "from the regression", "predicted centerness", "oracle"):
        assert rows[label, "val"]["AP75"] == report[label]["AP75"]
    assert set(found["differs"]) == {"data", "boxes", "thresholds", "model", "method"}
    assert "4 images" in found["differs"]["data"][0] and "resnet 18" in found["differs"]["model"][0]
    assert "radius of center sampling (0: the whole box) 0 there, 1.5 here" in found["differs"]["model"][1]
    Path("mine.json").write_text("[1]", encoding="utf-8")
    done = fcos("paper", "table5", *words, "--json-file", "mine.json")
    assert done.code == 1 and "mine.json" in done.err and Path("mine.json").read_text(encoding="utf-8") == "[1]"


def test_a_figure_is_files(fcos: Callable, words: list[str]) -> None:
    """Of its own kind; made again in the same folder, where nothing else is touched."""
    done = fcos("paper", "fig. 5", *words)
    assert done.code == 0 and "0.426" in done.out and "not confirmed" in done.out and "val" in done.out
    (path,) = Path("output/paper/figure5").glob("[!.]*")
    assert path.name == "figure5-precision-recall-75.svg" and path.read_text(encoding="utf-8").startswith("<svg")
    path.with_name("mine.svg").write_text("mine", encoding="utf-8")
    assert fcos("paper", "figure7", *words, "-o", "output/paper/figure5").code == 0
    names = {one.name for one in path.parent.glob("[!.]*")}
    assert names == {path.name, "mine.svg", "figure7-with-centerness.svg", "figure7-without-centerness.svg"}
    Path("other").mkdir()
    Path("other", "figure5-mine.svg").write_text("mine", encoding="utf-8")
    done = fcos("paper", "figure5", *words, "-o", "other")
    assert done.code == 1 and "did not write" in done.err
    assert fcos("paper", "figure3", *words, "--tta", "flip").code == 0 and not Path("output/paper/figure3").exists()


def test_a_table_of_proposals(fcos: Callable, words: list[str], tmp_path: Path) -> None:
    """As `fcos eval --proposals` has it; a detector that proposes nothing is refused in a sentence."""
    done = fcos("paper", "table8", *words)
    assert done.code == 1 and "proposes nothing" in done.err and "Traceback" not in done.err
    cfg = load_config("fcos_rpn_R_18_slim_FPN_small", ["dataloader.test.mapper.augmentations[0].short_edge_length=64"])
    model = {"model": instantiate(cfg.model).state_dict(), "class_names": ["circle", "square", "star"]}
    save(tmp_path / "w.pth", {**model, "config": dump_config(cfg)})
    words = ["--weights", str(tmp_path / "w.pth"), *words[2:]]
    done = fcos("paper", "table8", *words, "--json")
    assert done.code == 0, done.err
    found, evaluated = json.loads(done.out), json.loads(fcos("eval", *words, "--proposals", "--json").out)
    for limit in ("AR@100", "AR@1000"):
        assert rows_of(found)["FCOS", "val"][limit] == pytest.approx(evaluated["proposals"][limit], abs=1e-6)
    assert rows_of(found)["FCOS, 66K samples", "published"]["AR@100"] == 0.528
    assert "suppression from an IoU of 0.7, at most 1000 proposals" in found["differs"]["thresholds"][0]
