"""What a command tells the user to run next works when it is pasted, and no advice names an option that is missing."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
import torch

from fcos_d2.cli import COMMANDS, session
from fcos_d2.data import find_dataset, register
from fcos_d2.errors import FcosError
from fcos_d2.train import job
from fcos_d2.weights.read import load

PACKAGE = Path(session.__file__).resolve().parents[1]
TINY = (
    "--model", "fcos_R_18_slim_FPN_small", "--image-size", 64, "--batch-size", 2, "--workers", 0,
    "train.pictures=false",
)  # fmt: skip


def options_of(command: click.Command) -> set[str]:
    """Those of a command, or of all commands of a group."""
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return {name for p in command.params for name in p.opts}.union(*map(options_of, inner))


OPTIONS = {row.name: options_of(importlib.import_module(f"fcos_d2.cli.{row.module}").command) for row in COMMANDS}


def pasted(text: str) -> list[list[str]]:
    """The commands in a text, as a shell would read them, without the name of the program."""
    return [shlex.split(line)[1:] for line in re.findall(r"^\s*(fcos .+)$", text, re.MULTILINE)]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture
def own(shapes: Path, tmp_path: Path) -> Path:
    """Data in a folder whose name has a space and a quote, with a train part alone."""
    folder = tmp_path / "my o'wn data"
    shutil.copytree(shapes, folder)
    (folder / "val.json").unlink()
    return folder


def test_each_line_that_training_prints_runs(fcos, own, capfd):
    """With a val share, which evaluation needs, too, and folders with spaces; again when training is complete."""
    words = ("train", "--data", own, *TINY, "--val-fraction", 0.3, "-o", "the out put", "--iterations")
    done = fcos(*words, 4)
    assert done.code == 0, done.err
    detect, evaluate = pasted(done.out)
    assert (detect[0], evaluate[0]) == ("detect", "eval")
    assert {"--model"}.isdisjoint(detect) and {"--model"}.isdisjoint(evaluate)
    for line in (detect, evaluate):
        outcome = fcos(*line)
        assert outcome.code == 0, outcome.err
    summary = json.loads(Path("the out put", "summary.json").read_text())
    best = summary["best"]["AP"] > summary["AP"]
    name = "model_best.pth" if best else "model_final.pth"
    assert evaluate[evaluate.index("--weights") + 1] == detect[detect.index("--weights") + 1] == f"the out put/{name}"

    # A finished training: resuming it changes no file, tells so, and prints lines that run.
    before = files(Path("the out put"))
    again = fcos(
        "train", "--data", own, *TINY, "--iterations", 4, "--val-fraction", 0.3, "-o", "the out put", "--resume"
    )
    assert again.code == 0 and files(Path("the out put")) == before
    assert "is complete, so --resume changes nothing" in again.err and pasted(again.out) == [detect, evaluate]
    earlier = {key: value for key, value in summary.items() if key not in ("dataset", "image")}  # of older versions
    Path("the out put", "summary.json").write_text(json.dumps(earlier))
    assert "detect IMAGE" in fcos(*words, 4, "--resume").out
    # It keeps one checkpoint to resume from and the detector alone, and trains longer.
    kept = {path.name: path.stat().st_size for path in Path("the out put").glob("*.pth")}
    assert kept.keys() == {"model_final.pth", "model_best.pth"}
    assert kept["model_best.pth"] < kept["model_final.pth"] / 2
    assert "trainer" in load("the out put/model_final.pth") and "trainer" not in load("the out put/model_best.pth")
    assert Path("the out put", "last_checkpoint").read_text() == "model_final.pth"
    longer = fcos(
        "train", "--data", own, *TINY, "--iterations", 6, "--val-fraction", 0.3, "-o", "the out put", "--resume"
    )
    assert longer.code == 0 and "Trained 6 iterations" in longer.out, longer.err
    assert "training: 6/6" in longer.err and load("the out put/model_final.pth")["iteration"] == 5


def test_the_better_checkpoint_is_named(tmp_path):
    from fcos_d2.cli.views import best_checkpoint

    for best, last, name in ((0.5, 0.4, "best"), (0.4, 0.4, "final"), (None, 0.4, "final"), (0.1, None, "best")):
        found = {"best": {"AP": best}, "AP": last}
        assert best_checkpoint(found, tmp_path) == str(tmp_path / f"model_{name}.pth")


def test_lines_of_a_config_name_it(fcos, shapes, tmp_path):
    """What the config says of its data is needed for evaluation: the config and the overrides are repeated."""
    names = register(find_dataset(shapes), f"following_{tmp_path.name}")
    (tmp_path / "my config.py").write_text(
        "from fcos_d2.zoo import get_config\n_cfg = get_config('fcos_R_18_slim_FPN_small')\n"
        "model, dataloader, optimizer, lr_multiplier, train = (\n"
        "    _cfg[key] for key in ('model', 'dataloader', 'optimizer', 'lr_multiplier', 'train'))\n"
        "train.device = 'cpu'\n"
    )
    overrides = (
        "model.num_classes=3", f"dataloader.train.dataset.names={names.train}",
        f"dataloader.test.dataset.names={names.val}", "dataloader.test.mapper.augmentations[0].short_edge_length=64",
    )  # fmt: skip
    words = ("--config", "my config.py", "--iterations", 1, "--batch-size", 2, "--workers", 0, "-o", "out", *overrides)
    done = fcos("train", *words)
    assert done.code == 0, done.err
    assert len(pasted(done.out)) == 2
    for line in pasted(done.out):
        outcome = fcos(*line)
        assert outcome.code == 0, outcome.err


def test_a_config_without_test_data_trains_and_ends_well(fcos, shapes, tmp_path):
    names = register(find_dataset(shapes), f"untested_{tmp_path.name}")
    for node in ("test", "evaluator"):
        (tmp_path / f"{node}.py").write_text(
            "from fcos_d2.zoo import get_config\n_cfg = get_config('fcos_R_18_slim_FPN_small')\n"
            "model, dataloader, optimizer, lr_multiplier, train = (\n"
            "    _cfg[key] for key in ('model', 'dataloader', 'optimizer', 'lr_multiplier', 'train'))\n"
            f"del dataloader['{node}']\ndataloader.train.dataset.names = '{names.train}'\nmodel.num_classes = 3\n"
        )
        words = ("--config", f"{node}.py", "--iterations", 2, "--batch-size", 2, "--device", "cpu", "-o", node)
        done = fcos("train", *words, "dataloader.train.num_workers=0", "train.eval_period=1")
        assert done.code == 0, done.err
        assert "Nothing was evaluated" in done.out and "no object" not in done.out
        assert json.loads((tmp_path / node / "summary.json").read_text())["AP"] is None
        assert load(tmp_path / node / "model_final.pth")["iteration"] == 1
        outcome = fcos("eval", "--config", f"{node}.py", "--weights", f"{node}/model_final.pth", "--device", "cpu")
        assert outcome.code == 1 and f"no dataloader.{node}" in outcome.err and "Traceback" not in outcome.err


@pytest.mark.slow
def test_lines_of_converted_checkpoints(fcos, tmp_path, shapes):
    """Quoted; with the variants to choose from where nothing decides; runnable but for the word IMAGE."""
    from detectron2.config import instantiate

    from fcos_d2 import zoo
    from fcos_d2.importers import export

    model = instantiate(zoo.get_config("fcos_imprv_R_50_FPN_1x").model)
    tensors = export(model.state_dict(), "fcos_core")
    torch.save({"model": tensors}, tmp_path / "undecided.pth")
    done = fcos("convert", "undecided.pth", "-o", "con verted.pth")
    assert done.code == 0, done.err
    lines = pasted(done.out)
    assert len(lines) > 1 and all(line[:2] == ["detect", "IMAGE"] and "--model" in line for line in lines), done.out
    image = shapes / "images" / "val_000000.jpg"
    outcome = fcos(*(str(image) if word == "IMAGE" else word for word in lines[0]), "--no-pictures")
    assert outcome.code == 0, outcome.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--data", "DATA"], ["train", "--data", "DATA", "--num-gpus", "2"], ["demo"], ["bench"],
        ["eval", "--model", "fcos_resnet50_fpn", "--data", "DATA"],
        ["detect", "DATA", "--model", "fcos_R_18_FPN_small", "--weights", "random"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_device_that_is_not_there_is_one_sentence(fcos, shapes, words, device):
    if ":" in device and "--num-gpus" in words:
        pytest.skip("is refused as it stands")
    done = fcos(*(str(shapes) if word == "DATA" else word for word in words), "--device", device)
    assert done.code == 1 and done.out == "" and done.err.count("\n") == 1, done.err
    assert f"--device is '{device}', but PyTorch finds no" in done.err and "pass --device=cpu" in done.err
    assert list(Path.cwd().iterdir()) == []


def test_one_gpu_is_not_several(fcos, shapes):
    done = fcos("train", "--data", shapes, "--device", "cuda:1", "--num-gpus", 2)
    assert done.code == 2 and "leave the number out" in done.err


def advised() -> set[tuple[str, str]]:
    """(file, option) of each option that a text of the package names, docstrings aside."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                found |= {(path.name, name) for name in re.findall(r"(?<![-\w])--[a-z][-a-z0-9]+", node.value)}
    return found


def test_options_in_texts_exist():
    """Each is one of a command; of a script for several machines; or of pip, uv, git, docker and nvidia-smi."""
    known = set().union(*OPTIONS.values()) | {"--json", "--debug", "--help", "--version"}
    others = {"--num-machines", "--machine-rank", "--dist-url", "--no-build-isolation", "--extra", "--no-pictures"}
    others |= {"--force-reinstall", "--no-deps", "--upgrade", "--shm-size", "--query-gpu", "--format"}  # of `doctor`
    # Commands of other tools, which convert what is not read; styles.
    theirs = ("foreign.py", "page.py", "webpage.py", "charts.py", "static.py")
    assert {(file, name) for file, name in advised() if name not in known | others and file not in theirs} == set()


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_advice_about_memory_names_options_of_the_command(row, capsys):
    for error in (torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("bus error"), MemoryError()):
        session.report(error, session.Session(options=tuple(OPTIONS[row.name])))
        text = capsys.readouterr().err
        assert set(re.findall(r"--[a-z-]+", text)) <= OPTIONS[row.name] and "{" not in text


def test_an_interrupted_exchange_advises_what_the_command_has(tmp_path, monkeypatch):
    """A demo cannot be resumed."""
    from fcos_d2.train import workspace

    (tmp_path / "demo" / "data").mkdir(parents=True)
    (tmp_path / "demo" / "training.jsonl").write_text("")
    (tmp_path / "demo" / "data" / "synthetic.json").write_text("{}")

    replace = os.replace

    def full(source: Path, destination: Path) -> None:
        if Path(destination).parent.name == "demo":
            raise OSError(28, "No space left on device")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", full)
    opened = workspace.Workspace.open(tmp_path / "demo", workspace.DEMO, overwrite=True)
    with pytest.raises(FcosError, match="running the command again finishes that"), opened.writing() as folder:
        (folder / "training.jsonl").write_text("new")


def test_the_demos_lines_run(fcos, monkeypatch):
    import dataclasses

    small = dataclasses.replace(job.DemoSettings(), train_images=4, val_images=2, image_size=64, batch_size=2)
    monkeypatch.setattr(job, "DemoSettings", lambda: small)
    done = fcos("demo", "--iterations", 1, "--device", "cpu", "-o", "a demo's folder")
    assert done.code == 0, done.err
    (line,) = pasted(done.out)
    outcome = fcos(*line)
    assert outcome.code == 0, outcome.err
