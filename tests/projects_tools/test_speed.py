"""The benchmark: equal work for all, ratios only for equal answers, numbers that mean what they say."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import warm
from click.testing import CliRunner

from fcos_d2.errors import FcosError
from projects_tools.bench import peers, report, speed, workload
from projects_tools.bench.__main__ import command
from projects_tools.bench.agreement import Agreement, compare
from projects_tools.bench.peers import Detectron2, Job, Ours, get_peer
from projects_tools.bench.speed import Case, Growth, Report, Row
from projects_tools.bench.timing import Times, alternate, peak_memory
from projects_tools.bench.workload import SCORE_THRESHOLD, Setting

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"height": 128, "width": 160}


def answer(peer, setting: Setting):
    job = getattr(peer, setting.suite)(setting)
    job.before()
    return job.answer(job.run())


# ----------------------------------------------------------------------------------------------------------- workload
@pytest.mark.parametrize("scores", ["heavy", "trained", "sparse"])
def test_scores_have_the_statistics_of_their_name(scores: str) -> None:
    maps = workload.detection_maps(Setting("decode", 2, 256, 320, scores=scores))
    score = [(x.sigmoid() * q.sigmoid()).sqrt().flatten(1) for x, q in zip(maps.logits, maps.quality)]
    score = torch.cat(score, dim=1)
    wanted = {"heavy": score.shape[1] // 20, "trained": 1000, "sparse": 100}[scores]
    assert (score > SCORE_THRESHOLD).sum(dim=1).tolist() == pytest.approx([wanted] * 2, abs=2)


def test_everybody_gets_the_same_inputs() -> None:
    setting = Setting("loss", 2, boxes=5, **SMALL)
    for one, other in zip(workload.truths(setting), workload.truths(setting)):
        assert torch.equal(one.boxes, other.boxes)
        assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
        assert (one.boxes >= 0).all() and (one.boxes[:, 2] <= 160).all() and (one.boxes[:, 3] <= 128).all()
    one, other = workload.training_maps(setting), workload.training_maps(replace(setting, mode="channels_last"))
    assert all(torch.equal(a, b) for a, b in zip(one.logits, other.logits))
    assert other.logits[0].is_contiguous(memory_format=torch.channels_last)


def test_a_setting_survives_being_sent_to_another_process() -> None:
    setting = Setting("decode", 8, scores="heavy", mode="channels_last")
    assert Setting.from_dict(json.loads(json.dumps(setting.as_dict()))) == setting


# -------------------------------------------------------------------------------------------------- peers and answers
@pytest.mark.parametrize("name", ["detectron2", "torchvision"])
@pytest.mark.parametrize(
    "setting",
    [
        Setting("assign", 2, boxes=20, **SMALL),
        Setting("loss", 2, boxes=5, **SMALL),
        Setting("loss", 2, boxes=5, mode="channels_last", **SMALL),
        Setting("decode", 2, scores="heavy", **SMALL),
        Setting("decode", 2, scores="trained", mode="channels_last", **SMALL),
        Setting("forward", 1, 64, 96),
        Setting("train", 1, 64, 96, 3),
    ],
    ids=lambda setting: f"{setting.suite}-{setting.mode}",
)
def test_peers_agree_with_us(name: str, setting: Setting) -> None:
    peer = get_peer(name)
    found = compare(setting, answer(Ours(peer.recipe), setting), answer(peer, setting))
    assert found.agrees, found.text


def test_a_job_gives_the_same_again() -> None:
    """Detectron2 keeps a moving average, and overwrites what it decodes: neither may reach the next run."""
    for setting in (Setting("loss", 1, boxes=5, **SMALL), Setting("decode", 1, scores="heavy", **SMALL)):
        for peer in (Detectron2(), Ours("detectron2")):
            job = getattr(peer, setting.suite)(setting)
            runs = []
            for _ in range(3):
                job.before()
                runs.append(job.answer(job.run()))
            assert compare(setting, runs[0], runs[2]).agrees


def test_wrong_answers_get_no_ratio() -> None:
    assign, loss, decode = (
        Setting("assign", 1, boxes=20, **SMALL),
        Setting("loss", 1, boxes=5, **SMALL),
        Setting("decode", 1, scores="heavy", **SMALL),
    )
    index = answer(Ours(), assign)
    assert compare(assign, index, index.clone()).agrees
    assert not compare(assign, index, torch.where(index == 0, -1, index)).agrees
    assert not compare(assign, index, index[:, 1:]).agrees
    losses, grads = answer(Ours(), loss)
    assert not compare(loss, (losses, grads), ({**losses, "box": losses["box"] * 1.001}, grads)).agrees
    assert not compare(loss, (losses, grads), (losses, [*grads[:-1], grads[-1] + 1])).agrees
    ((boxes, scores, classes),) = answer(Ours(), decode)
    assert compare(decode, [(boxes, scores, classes)], [(boxes.flip(0), scores.flip(0), classes.flip(0))]).agrees
    assert not compare(decode, [(boxes, scores, classes)], [(boxes[1:], scores[1:], classes[1:])]).agrees
    assert not compare(decode, [(boxes, scores, classes)], [(boxes + 0.01, scores, classes)]).agrees
    assert not compare(decode, [(boxes, scores, classes)], [(boxes, scores, classes + 1)]).agrees


class Careless(Detectron2):
    """A peer from elsewhere that leaves out its last box."""

    def assign(self, setting: Setting) -> Job:
        job = super().assign(setting)
        return Job(job.run, lambda rows: (lambda x: torch.where(x == x.max(), -1, x))(job.answer(rows)))


def test_a_peer_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "Careless", Careless, raising=False)
    found = speed.run(
        ["assign"], ["mine=projects_tools.bench.peers:Careless"], threads=torch.get_num_threads(), quick=True
    )
    assert {row.peer for row in found.rows} == {"mine"}
    assert all(row.ratio is None and row.memory_ratio is None for row in found.rows)
    assert "not equal" in report.markdown(found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mmdet", "NAME=module:Class"),
        ("a=b", "NAME=module:Class"),
        ("a=no_such_module:Peer", "cannot be imported"),
        ("a=json:no_such_class", "cannot be imported"),
        ("a=json:JSONEncoder", "none of the methods"),
    ],
)
def test_a_peer_that_is_none(name: str, message: str) -> None:
    with pytest.raises(FcosError, match=message):
        get_peer(name)


# ------------------------------------------------------------------------------------------------------------ numbers
def test_ratio_of_neighbouring_runs() -> None:
    """A machine that is ten times slower for a round changes no ratio."""
    assert Times((3.0, 30.0, 3.3)).ratio(Times((1.0, 10.0, 1.0))) == pytest.approx(3.0)


def test_jobs_run_in_turns() -> None:
    ran = []
    jobs = [Job(lambda i=i: ran.append(i), lambda x: x, lambda i=i: ran.append(-i)) for i in (1, 2)]
    found = alternate(jobs, budget=1e-3, most=4)
    assert len(found[0].seconds) == len(found[1].seconds) >= 2
    assert ran[:4] == [-1, 1, -2, 2]
    assert ran.count(1) == ran.count(-1)


def test_exponents() -> None:
    assert Growth("assign", "boxes", "x", (10.0, 100.0, 1000.0), (0.3, 3.0, 30.0)).exponent == pytest.approx(1.0)
    assert Growth("assign", "boxes", "x", (4.0, 16.0), (2.0, 4.0)).exponent == pytest.approx(0.5)
    assert Growth("assign", "area", "x", (1.0, 10.0), (2.0, 2.0)).exponent == pytest.approx(0.0)


def test_bytes_that_must_move() -> None:
    """One image of 128x160: 16*20 + 8*10 + 4*5 + 2*3 + 1*2 locations."""
    places = 428
    assert speed.least_bytes(Setting("decode", 1, scores="heavy", **SMALL)) == places * 80 * 4
    assert speed.least_bytes(Setting("loss", 3, boxes=1, **SMALL)) == 3 * places * 4 * (80 + 85)
    assert speed.least_bytes(Setting("forward", 1, **SMALL)) is None


class Hungry(Detectron2):
    """Needs 64 MiB that others do not."""

    def assign(self, setting: Setting) -> Job:
        job = super().assign(setting)
        return Job(lambda: (torch.ones(1 << 24).sum(), job.run())[1], job.answer)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not reset its peak of memory")
def test_memory_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (here, here.parent, ROOT))))
    setting = Setting("assign", 1, boxes=3, **SMALL)
    found = peak_memory("hungry=test_speed:Hungry", setting, 1)
    assert 63 <= found / 2**20 < 80
    assert peak_memory("fcos_d2:detectron2", setting, 1) / 2**20 < 8


# ------------------------------------------------------------------------------------------------------------ reports
def some_report() -> Report:
    case = Case(Setting("assign", 8, boxes=50), growth=("boxes",))
    fine = Row(
        case, "detectron2", Times((0.001, 0.002)), Times((0.1, 0.2)), Agreement(True, "equal"), 2**20, 2**30, 1e-4
    )
    wrong = replace(fine, peer="other", agreement=Agreement(False, "17 differ"))
    more = replace(fine, case=Case(Setting("assign", 8, boxes=500), growth=("boxes",)))
    return Report({"processor": "a machine"}, [fine, wrong, more], ["data: no data set was given"])


def test_tables() -> None:
    text = report.markdown(some_report(), "fcos bench --suite assign")
    rows = [line for line in text.splitlines() if line.startswith("| 800x1216, batch 8, 50 boxes")]
    assert "**100x**" in rows[0] and "1,024x" in rows[0] and "1,024 |" in rows[0]
    assert "**not equal**" in rows[1] and "17 differ" in rows[1] and "1,024x" not in rows[1]
    assert "fcos bench --suite assign" in text and "a machine" in text and "no data set" in text
    assert "| assign | boxes | detectron2 | 50, 500 | 0.00 |" in text


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "performance.md"
    report.write_markdown(path, some_report())
    assert path.read_text().startswith("- processor")
    path.write_text(f"# Title\n\nbefore\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):  # and again
        report.write_markdown(path, some_report())
    text = path.read_text()
    assert text.startswith("# Title\n\nbefore\n") and text.endswith("\nafter\n")
    assert "old" not in text and text.count("### Assignment") == 1


def test_json_and_chart(tmp_path: Path) -> None:
    report.write_json(tmp_path / "x.json", some_report(), "the command")
    data = json.loads((tmp_path / "x.json").read_text())
    assert data["command"] == "the command"
    assert [row["ratio"] for row in data["rows"]] == [pytest.approx(100), None, pytest.approx(100)]
    assert data["rows"][0]["ours_all_ms"] == pytest.approx([1, 2])
    assert data["growth"][0]["exponent"] == pytest.approx(0)
    report.draw_chart(tmp_path / "x.png", some_report())
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # the command below measures one suite
def test_a_quick_run() -> None:
    told = []
    found = speed.run(
        ["assign", "loss", "decode", "data"], threads=torch.get_num_threads(), quick=True,
        tell=lambda done, total, note: told.append((done, total)),
    )  # fmt: skip
    assert [row.case.setting.suite for row in found.rows] == ["assign"] * 4 + ["loss"] * 2 + ["decode"] * 2
    assert all(row.agreement.agrees and row.ratio > 0 for row in found.rows)
    assert told[-1] == (8, 8)
    assert found.skipped == ["data: no data set was given (--data DIR)"]
    assert {g.who for g in found.growth} >= {"detectron2", "torchvision"}
    json.dumps(found.as_dict())


def test_an_unknown_suite() -> None:
    with pytest.raises(FcosError, match="no suite 'nms'"):
        speed.cases("nms")


def test_every_suite_has_settings() -> None:
    for suite in peers.SUITES:
        for quick in (False, True):
            assert {case.setting.suite for case in speed.cases(suite, quick, "folder")} == {suite}


# -------------------------------------------------------------------------------------------------------- the command
def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    outputs = {name: tmp_path / f"found.{name}" for name in ("md", "json", "png")}
    options = ["--markdown", outputs["md"], "--json-file", outputs["json"], "--chart", outputs["png"]]
    found = CliRunner().invoke(
        command, ["--suite", "assign", "--peer", "detectron2", "--quick", "--threads", "1", *map(str, options)]
    )
    assert found.exit_code == 0, found.output
    assert "detectron2" in found.stdout
    rows = json.loads(outputs["json"].read_text())
    assert {row["suite"] for row in rows["rows"]} == {"assign"} and all(row["agrees"] for row in rows["rows"])
    assert rows["command"].startswith("python -m projects_tools.bench")
    assert "| assign | boxes | detectron2 |" in outputs["md"].read_text() and outputs["png"].stat().st_size > 1000


def test_the_command_in_a_process_of_its_own() -> None:
    """The package is run as README and docs say; a wrong peer is one sentence and no traceback."""
    line = [sys.executable, "-m", "projects_tools.bench", "--quick", "--peer", "mmdet"]
    done = warm.run(line, cwd=ROOT)
    assert done.returncode == 1 and "NAME=module:Class" in done.stderr and "Traceback" not in done.stderr


def test_what_is_wrong_is_told_before_anything_is_measured(tmp_path):
    told = []
    with pytest.raises(FcosError, match="nowhere does not exist"):
        speed.run(["assign", "data"], data=str(tmp_path / "nowhere"), tell=lambda *progress: told.append(progress))
    (tmp_path / "file").touch()
    words = ["--suite", "assign", "--quick", "--json-file", str(tmp_path / "file" / "bench.json")]
    done = CliRunner().invoke(command, words)
    assert isinstance(done.exception, FcosError) and "file" in str(done.exception)
    assert not told and not done.output
