"""`fcos report`: the page, its numbers, its pictures, and how it looks to a browser."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from webpages import Page

from fcos_d2.cli import webreport
from fcos_d2.cli.session import Session
from fcos_d2.config.stored import dump_config
from fcos_d2.data.synthetic import generate
from fcos_d2.files import plain, sha256_of
from fcos_d2.modeling import FCOS
from fcos_d2.report import SECTIONS, make_report
from fcos_d2.train.job import TrainingJob, train_job
from fcos_d2.train.workspace import TRAINING, Workspace
from fcos_d2.visualize.charts import alone
from fcos_d2.weights.write import save
from fcos_d2.zoo import get_config

NAMES = ("circle", "<b>square</b>", "star & 猫")
PLAIN = {"model": None, "split": "val", "val_fraction": None, "workers": 0, "device": "cpu", "format": None}
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose classes have odd names, a detector of few iterations with boxes as large as the shapes, its report."""
    folder = tmp_path_factory.mktemp("report")
    shapes = ("circle", "square", "star")
    generate(folder / "my data", {"train": 4, "val": 20}, (64, 64), min_size=44, max_size=1.0, max_objects=2,
             classes=shapes)  # fmt: skip
    for name in ("train.json", "val.json"):
        file = folder / "my data" / name
        coco = json.loads(file.read_text(encoding="utf-8"))
        for row in coco["categories"]:
            row["name"] = NAMES[shapes.index(row["name"])]
        file.write_text(json.dumps(coco), encoding="utf-8")
    cfg = get_config("fcos_R_18_slim_FPN_small")
    cfg.model.num_classes = len(NAMES)
    model = instantiate(cfg.model)
    torch.nn.init.constant_(model.dense.head.bbox_pred.bias, 3.3)  # strides to each side
    save(folder / "start.pth", {"model": model.state_dict(), "class_names": list(NAMES)})
    job = TrainingJob(
        model="fcos_R_18_slim_FPN_small", data=folder / "my data", weights=str(folder / "start.pth"), iterations=4,
        image_size=64, batch_size=2, workers=0, device="cpu",
        overrides=["model.dense.selector.score_threshold=0.0", "train.pictures=false"],
    )  # fmt: skip
    train_job(job, Workspace.open(folder / "trained", TRAINING), Session())
    options = {"weights": str(folder / "trained" / "model_final.pth"), "data": folder / "my data"}
    words = ["fcos", "report", *(x for key, value in options.items() for x in (f"--{key}", str(value)))]
    make_report(folder / "mine.html", words, {**options, **PLAIN}, Session())
    return folder


@pytest.fixture
def words(made: Path) -> list[str]:
    weights, data = str(made / "trained" / "model_final.pth"), str(made / "my data")
    return ["--weights", weights, "--data", data, "--workers", "0", "--device", "cpu"]


def found_in(made: Path) -> dict[str, Any]:
    return json.loads((made / "mine.json").read_text(encoding="utf-8"))["sections"]


def test_the_command_knows_the_sections() -> None:
    assert tuple(row.key for row in SECTIONS) == webreport.SECTIONS


def test_a_page_that_is_whole(made: Path) -> None:
    text, found = (made / "mine.html").read_text(encoding="utf-8"), found_in(made)
    page = Page(text)
    assert page.open == [] and page.scripts == 0 and len(set(page.ids)) == len(page.ids)
    assert set(webreport.SECTIONS) <= set(page.ids) and set(found) == set(webreport.SECTIONS)
    assert all(one.startswith(("#", "data:image/")) for one in page.loads)
    assert {one[1:] for one in page.loads if one.startswith("#")} <= set(page.ids)
    assert "http" not in re.sub(r'base64,[^"]*', "", text).replace(html.escape(found["config"]["config"]), "")
    assert "<b>square" not in text and "&lt;b&gt;square&lt;/b&gt;" in text
    for key, section in found.items():
        for name, picture in section["pictures"].items():
            assert name.startswith(f"{key}-") and html.escape(picture["command"]) in text
    assert text.count("<figure>") == sum(len(section["pictures"]) for section in found.values()) > 20
    assert "color-scheme:light dark" in text and "@media print" in text and "prefers-color-scheme:dark" in text


def test_its_numbers_are_those_of_the_evaluation(fcos: Callable, words: list[str], made: Path) -> None:
    expected, found = json.loads(fcos("eval", *words, "--json", "-o", "evaluated").out), found_in(made)
    for key in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"):
        value = found["summary"][key]
        assert value == (expected[key] and pytest.approx(expected[key], abs=1e-6)), key
        rank = found["rankings"]["predicted centerness"][key]
        assert rank == value and found["overlap"]["all"].get(key, value) == value
    assert found["summary"]["AP50"] > 0
    per_class = {name: row["AP"] for name, row in found["kinds"]["by_class"].items()}
    assert per_class == pytest.approx(expected["per_class"], abs=1e-6) and list(per_class) == list(NAMES)
    assert found["one-class"]["ap"]["mean of the classes"]["AP50"] == found["summary"]["AP50"]
    assert found["curves"]["iterations"] == 4 and "left_out" not in found["curves"]
    errors, summary = found["errors"], found["summary"]
    assert errors["found"] + sum(errors["misses"].values()) == errors["objects"] == summary["objects"]
    assert errors["right"] + errors["in_crowds"] + sum(errors["false_alarms"].values()) == errors["detections"]
    assert errors["detections"] >= summary["kept"] and sum(errors["misses_percent"].values()) == pytest.approx(100)
    counts = [sum(row) for row in found["confusion"]["matrix"][:-1]]
    assert counts == list(found["data"]["by_class"].values()) and sum(counts) == summary["objects"]
    learnable, levels = found["learnable"], found["learnable"]["levels"]
    missing = sum(learnable["unlearnable"].values())
    assert learnable["boxes"] == summary["objects"] and missing == len(learnable["unlearnable_objects"])
    assert learnable["best_possible_recall"] == pytest.approx(1 - missing / learnable["boxes"])
    assert sum(one["positives"] for one in levels) == learnable["positives"] > learnable["boxes"]
    assert all(0 <= row["here"] <= 1 for row in learnable["paper"])
    assert set(found["environment"]["versions"]) >= {"torch", "fcos_d2", "detectron2"}


def test_the_detector_runs_once(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Over each image, whatever the sections need; what they say is then the same."""
    seen: list[int] = []
    forward = FCOS.forward

    def counted(self: FCOS, batched_inputs: list, whole: Any = None) -> Any:
        seen.extend(one["image_id"] for one in batched_inputs)
        return forward(self, batched_inputs, whole)

    monkeypatch.setattr(FCOS, "forward", counted)
    options = {"weights": str(made / "trained" / "model_final.pth"), "data": made / "my data", **PLAIN}
    found = make_report(tmp_path / "r.html", ["fcos"], options, Session(), ["errors", "rankings", "config"])
    assert len(seen) == len(set(seen)) == 20
    for key in ("errors", "rankings"):
        now, before = json.loads(json.dumps(plain(found["sections"][key]))), found_in(made)[key]
        assert {**now, "pictures": None} == {**before, "pictures": None}
    assert found["sections"]["config"]["sha256"] == sha256_of(made / "trained" / "model_final.pth")


@pytest.mark.slow
def test_a_model_that_is_not_fcos_has_the_sections_of_detections(made: Path, tmp_path: Path) -> None:
    cfg = get_config("faster_rcnn_fcos_R_18_slim_FPN_small")
    cfg.model.roi_heads.num_classes = len(NAMES)
    cfg.dataloader.test.mapper.augmentations[0].short_edge_length = 64
    held = {"class_names": list(NAMES), "config": dump_config(cfg)}
    save(tmp_path / "two.pth", {"model": instantiate(cfg.model).state_dict(), **held})
    options = {"weights": str(tmp_path / "two.pth"), "data": made / "my data", **PLAIN}
    found = make_report(tmp_path / "r.html", ["fcos"], options, Session())["sections"]
    left_out = {key: " ".join(section["left_out"]) for key, section in found.items() if "left_out" in section}
    for key in ("centerness", "score-iou", "rankings"):
        assert "no centerness or IoU branch" in left_out.pop(key)
    assert "told of FCOS alone" in left_out.pop("errors")
    assert set(left_out) <= {"curves", "data", "calibration"} and found["summary"]["objects"] > 0


@pytest.mark.parametrize("section", ["kinds", pytest.param("centerness", marks=pytest.mark.slow)])
def test_each_picture_has_the_command_that_makes_it(fcos: Callable, made: Path, section: str) -> None:
    text, pictures = (made / "mine.html").read_text(encoding="utf-8"), found_in(made)[section]["pictures"]
    (line,) = {picture["command"] for picture in pictures.values()}
    done = fcos(*shlex.split(line)[1:], "-o", "again.html", "--workers", "0")
    assert done.code == 0, done.err
    assert pictures and {path.name for path in Path("pictures").iterdir()} == set(pictures)
    for name in pictures:
        data = Path("pictures", name).read_bytes()
        if name.endswith(".svg"):
            assert any(alone(svg).encode() == data for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL))
        else:
            assert base64.b64encode(data).decode() in text
    assert set(json.loads(Path("again.json").read_text(encoding="utf-8"))["sections"]) == {section}


@pytest.mark.slow
def test_several_looks_at_each_image(fcos: Callable, words: list[str]) -> None:
    """Test-time augmentation counts as in `fcos eval`; what is of one look says so, and how to have it."""
    sections = ("summary", "centerness", "score-iou", "rankings", "errors")
    done = fcos("report", *words, "--tta", "flip", *(x for key in sections for x in ("--only", key)), "-o", "two.html")
    assert done.code == 0 and "2 views of each image" in Path("two.html").read_text(encoding="utf-8")
    found = json.loads(Path("two.json").read_text(encoding="utf-8"))
    expected = json.loads(fcos("eval", *words, "--tta", "flip", "--json", "-o", "evaluated").out)
    assert found["tta"]["flip"] and "--tta flip" in found["command"]
    assert found["sections"]["summary"]["AP"] == pytest.approx(expected["AP"], abs=1e-6)
    for key in sections[1:]:
        assert "--tta none" in found["sections"][key]["left_out"][0], key


def test_nothing_of_somebody_else_is_replaced(fcos: Callable, words: list[str], made: Path) -> None:
    short = ("report", *words, "--only", "data")
    shutil.copy(made / "mine.html", "mine.html")  # an earlier report
    shutil.copy(made / "mine.json", "mine.json")
    assert fcos(*short, "-o", "mine.html").code == 0
    before = Path("mine.html").read_bytes()
    for name, text in (("other.html", "mine"), ("page.json", '{"a": 1}'), ("odd.json", "[")):
        Path(name).write_text(text, encoding="utf-8")
        done = fcos(*short, "-o", Path(name).with_suffix(".html"))
        assert done.code == 1 and done.err.count("\n") == 1 and name in done.err
        assert Path(name).read_text(encoding="utf-8") == text
    Path("pictures").mkdir()
    Path("pictures", "mine.svg").write_text("mine", encoding="utf-8")
    done = fcos(*short, "-o", "mine.html", "--pictures", "pictures")
    assert done.code == 1 and "--pictures" in done.err and Path("mine.html").read_bytes() == before
    assert fcos(*short, "-o", "report.txt").code == 2 and not Path("report.txt").exists()
    assert fcos("report", "--data", "x").code == 2


def test_a_log_that_is_absent_or_damaged_leaves_its_curves_out(fcos: Callable, words: list[str], made: Path) -> None:
    Path("moved").mkdir()
    weights = shutil.copy(made / "trained" / "model_final.pth", "moved/w.pth")
    words = ["--weights", str(weights), *words[2:]]
    done = fcos("report", *words, "-o", "mine.html", "--only", "curves", "--only", "summary")
    assert (
        done.code == 0
        and re.search(r"AP 0\.\d+ .*on 20 images", done.out)
        and "no training.jsonl or metrics.json lies beside" in " ".join(done.out.split())
    )
    assert "no training.jsonl" in Path("mine.html").read_text(encoding="utf-8")
    Path("moved", "metrics.json").write_bytes(b"\xff\xfe not json")
    done = fcos("report", *words, "-o", "mine.html", "--only", "curves", "--only", "summary", "--json")
    assert done.code == 0 and set(json.loads(done.out)["sections"]) == {"curves", "summary"}


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 390])
def test_a_browser_shows_it_whole(made: Path, width: int, tmp_path: Path) -> None:
    """No picture is broken, and nothing is wider than the window."""
    shutil.copy(made / "mine.html", tmp_path / "mine.html")
    around = f"""<!doctype html><iframe id="page" src="mine.html" width="{width}" height="900"></iframe><script>
    onload = () => {{ const at = page.contentDocument, root = at.documentElement;
    document.body.textContent = JSON.stringify({{width: root.clientWidth, scroll: root.scrollWidth,
    pictures: at.images.length, broken: [...at.images].filter(x => !x.naturalWidth).length,
    charts: [...at.querySelectorAll("figure svg")].map(x => x.getBoundingClientRect().height)}}); }}</script>"""
    (tmp_path / "around.html").write_text(around, encoding="utf-8")
    run = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=5000",
         "--dump-dom", (tmp_path / "around.html").as_uri()],
        capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    told = re.search(r"\{.*\}", html.unescape(run.stdout))
    assert told, run.stderr[-2000:]
    found = json.loads(told[0])
    assert width - 20 <= found["width"] == found["scroll"] <= width
    assert found["broken"] == 0 < found["pictures"] and len(found["charts"]) > 8 and min(found["charts"]) > 100
