"""The commands and programs in README.md and docs: run as they stand, without a GPU and without network.

Each command line has a row in `NOT_RUN` if it is not run, with the reason and what of it is checked. What takes long is
shortened by options that the pages name.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import films
import pytest
import torch
import yaml
from console import ROOT
from detectron2.data.detection_utils import read_image
from detectron2.engine import default_argument_parser
from PIL import Image

from fcos_d2 import Predictor
from fcos_d2._compat import DETECTRON2_FLAVOUR
from fcos_d2.cli import cli
from fcos_d2.config import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.data.synthetic import generate
from fcos_d2.train import configure
from fcos_d2.train.job import TrainingJob
from fcos_d2.train.workspace import default_folder
from fcos_d2.weights.read import read

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHORT = ("--iterations", "3", "--image-size", "64", "--batch-size", "2", "--workers", "0")
SHORTLY = "iterations=3, image_size=64, batch_size=2, workers=0"
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text[: m.start()].count("\n") + 1, m[1], m[2]) for m in found]


ALL = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "python", "yaml", "toml")]


def lines(block: Block) -> list[list[str]]:
    """The command lines of a block, as a shell splits them; those that set variables or are comments left out."""
    joined = block.text.replace("\\\n", " ")
    split = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words for words in split if words]


def commands() -> list[tuple[Block, list[str]]]:
    return [(block, words) for block in ALL if block.language == "sh" for words in lines(block)]


def called(pattern: str) -> Iterator[tuple[Block, list[str]]]:
    return ((block, words) for block, words in commands() if re.search(pattern, " ".join(words)))


def block(page: str, word: str) -> Block:
    (found,) = [b for b in ALL if b.page == page and word in b.text and b.language == "python"]
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: a folder `my_data`, and photographs."""
    home = tmp_path_factory.mktemp("home")
    generate(home / "my_data", {"train": 8, "val": 4}, (96, 64), min_size=10, classes=("circle", "square", "star"))
    pictures = sorted((home / "my_data" / "images").glob("val*"))
    (home / "new_images").mkdir()
    shutil.copy(pictures[0], home / "photo.jpg")
    shutil.copy(pictures[1], home / "new_images" / "1.jpg")
    films.make(home / "clip.mp4", 6)
    Image.open(pictures[0]).resize((1200, 800)).save(home / "aerial.tif")
    return home


@pytest.fixture
def run(home: Path, fcos: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command of `fcos` or a program in `home`, from which no network is reached."""
    monkeypatch.chdir(home)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the page claims to need no network")

    monkeypatch.setattr(socket, "create_connection", refuse)

    def go(what: list[str] | str, **names: Any) -> Any:
        if isinstance(what, list):
            done = fcos(*what[1:])
            assert done.code == 0, done.err
            return done
        exec(compile(what, "page", "exec"), names)
        return names

    return go


def test_readme_from_training_to_detection(run: Callable, home: Path) -> None:
    """The shell's way and Python's: training has the same config, and what is trained is found by both."""
    train, detect = next(lines(b) for b in blocks("README.md") if b.text.startswith("fcos train"))
    run([*train, *SHORT])
    by_command = (home / "output" / "mine" / "config.yaml").read_text()
    run(detect)
    text = block("README.md", "LazyTrainer(cfg)").text
    assert 'output="output/mine")' in text
    names = run(text.replace('output="output/mine")', f'output="output/mine", {SHORTLY})'))
    assert (home / "output" / "mine" / "config.yaml").read_text() == by_command
    assert names["predict"].class_names == ["circle", "square", "star"]
    assert names["instances"].image_size == (64, 96)


def test_readme_in_another_detectron2_project(run: Callable, home: Path) -> None:
    """Detectron2's predictor finds what ours finds, with the same sizes and threshold."""
    checkpoint = home / "output" / "mine" / "model_best.pth"
    if not checkpoint.is_file() or torch.cuda.is_available():  # where training chooses a larger model
        model = ("--model", "fcos_R_18_slim_FPN_small", "--overwrite")
        run(["fcos", "train", "--data", "my_data", "--output", "output/mine", *SHORT, *model])
    text = block("README.md", "DefaultPredictor(cfg)").text
    names = run(text.replace("INFERENCE_TH_TEST = 0.5", "INFERENCE_TH_TEST = 0.0"))  # three iterations find nothing
    size = "dataloader.test.mapper.augmentations[0]"
    ours = Predictor(
        checkpoint, device=names["cfg"].MODEL.DEVICE, overrides=[
            f"{size}.short_edge_length=320", f"{size}.max_size=640", "model.dense.selector.score_threshold=0.0"
        ],
    )  # fmt: skip
    expected = ours(read_image("photo.jpg", "BGR"))["instances"]
    assert len(expected) > 0
    assert torch.equal(names["instances"].pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(names["instances"].scores, expected.scores)
    bias = "dense.head.cls_logits.bias"
    assert torch.equal(names["predict"].model.state_dict()[bias].cpu(), read(checkpoint).tensors[bias])


def test_a_config_and_its_keys(run: Callable) -> None:
    names = run(block("README.md", "load_config").text)
    assert names["cfg"].model.num_classes == 3 and names["cfg"].train.max_iter == 5000
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [\w ()]+ \| `(\w+\.[\w.]+)` \| `([A-Z.0-9_]+)` \|$", text, re.MULTILINE)
    assert len(rows) == 5
    values = {"device": "cpu", "score_threshold": "0.25", "nms_threshold": "0.25"}
    for lazy, key in rows:
        value = values.get(lazy.rpartition(".")[2], "7")
        load_config("fcos_imprv_R_50_FPN_1x", [f"{lazy}={value}"])
        yacs = load_config(ROOT / "configs" / "yaml" / "fcos" / "fcos_imprv_R_50_FPN_1x.yaml", [f"{key}={value}"])
        assert f": {value}" in yaml.safe_dump(yaml.safe_load(yacs.dump()))


def test_python_configures_as_the_command_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option by its name; the example in the text of README, too."""
    monkeypatch.chdir(home)
    (text,) = re.findall(r"`(configure\(.*?\))`", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    cases = [
        ({}, "configure('my_data')"),
        (
            {
                "model": "fcos_imprv_R_50_FPN_1x",
                "epochs": 12.0,
                "image_size": 640,
                "overrides": ["train.ema.enabled=true"],
            },
            text.replace("\n", " "),
        ),
        ({"weights": "none", "workers": 7}, "configure('my_data', weights='none', workers=7)"),
    ]
    for options, program in cases:
        command = TrainingJob(data=Path("my_data"), **options)
        by_command, _ = command.config(default_folder(command.data, command.model))
        by_python = eval(program, {"configure": configure})
        assert dump_config(by_python) == dump_config(by_command)
        assert by_python.train.output_dir == "output/my_data"
    assert by_python.dataloader.train.num_workers == by_python.dataloader.test.num_workers == 7


@pytest.mark.parametrize(
    "page",
    [
        "docs/detecting.md",
        "docs/inference.md",
        "docs/train-your-own-data.md",
        "docs/rewriting.md",
        "docs/proposals.md",
        "docs/paper.md",
        "docs/bridges.md",
        "docs/fad.md",
    ],
)
def test_programs_in_the_docs(page: str, run: Callable, home: Path) -> None:
    if not (home / "output" / "mine" / "model_best.pth").is_file():
        run(["fcos", "train", "--data", "my_data", "--output", "output/mine", *SHORT])
    names = {"model": Predictor("output/mine/model_best.pth").model}
    names |= {name: torch.rand(3, 64, 96) * 255 for name in ("image", "other_image")}
    for found in blocks(page):
        if "detectron2.export" in found.text and DETECTRON2_FLAVOUR != "main":
            continue  # the page says that only an official build has it; tests/e2e/test_trace.py goes around Caffe2
        if found.language == "python":
            text = found.text.replace('output="output/mine")', f'output="output/mine", {SHORTLY})')
            run(text, **names)
    for found, words in called(r"^fcos (detect|bench|paper)"):
        if found.page == page and "--engine-cluster" not in words:  # which tests/predict/cluster runs
            short = ("--size", "64x64", "--seconds", "0.1") if words[1] == "bench" else ()
            run(
                [*("8GB" if word == "1.4GB" else word for word in words), *short]
            )  # this process has more than the page's


def test_errors_are_explained(run: Callable, home: Path) -> None:
    """Each line of the page, one after the other, and its program."""
    if not (home / "output" / "mine" / "model_best.pth").is_file():
        run(["fcos", "train", "--data", "my_data", "--output", "output/mine", *SHORT])
    name = next((home / "my_data" / "images").glob("val*")).name
    lines = [words for found, words in called("^fcos (explain|eval)") if found.page == "docs/explaining.md"]
    assert len(lines) == 6
    for words in lines:
        more = ["--workers", "0"] if words[1] == "eval" else []
        run([*(name if word == "street.jpg" else word for word in words), *more])
    run(block("docs/explaining.md", "read_record").text)


def test_data_sets_are_converted_divided_and_shown(run: Callable, home: Path) -> None:
    """Each line of the page, one after the other."""
    shown = [words for found, words in called("^fcos data") if found.page == "docs/datasets.md"]
    assert {words[2] for words in shown} == {"convert", "split", "show"}
    for words in shown:
        run(words)
    assert (home / "sheet.jpg").is_file()


def test_an_analysis_in_python(run: Callable, capfd: pytest.CaptureFixture) -> None:
    run(block("docs/analyzing.md", "read_objects").text)
    assert "best possible recall P3 to P7 0.0 0.984 1.0" in capfd.readouterr().out


# What cannot be run here, and what of it is checked.

NOT_RUN = {
    r"^make \w": "sets up an environment: the target must be there",
    r"^fcos train --data bccd": "trains for 17 minutes: its options must exist",
    r"lazyconfig_train_net\.py": "needs COCO and eight GPUs: script, config and options must exist",
    r"^python -m (projects_tools\.\w+|fcos_d2)": "measures for minutes: the module must exist",
    r"^(git clone|uvx|uv|pip) ": "needs network: nothing is checked",
    r"^(curl|docker) ": "needs a server, or Docker: the files of this repository must exist",
    r"^fcos [a-z]": "run above or long: its options must exist",
    r"^(export|first=|srun|pytest|\S*python)": "several machines, or a measurement: nothing is checked",
    r"^(trtexec|ovc|benchmark_app) ": "a tool of TensorRT or OpenVINO: nothing is checked",
    r"^(--|bash|torchrun)": "the rest of such a line: nothing is checked",
}


@pytest.mark.parametrize(("found", "words"), commands(), ids=[f"{b.page}:{b.line}" for b, _ in commands()])
def test_every_command_line_is_one(found: Block, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options exist, and so do the files of this repository that it names."""
    monkeypatch.chdir(ROOT)
    while words and re.fullmatch(r"[A-Z0-9_]+=\S*", words[0]):
        words = words[1:]
    line = " ".join(words)
    assert not words or any(re.search(pattern, line) for pattern in NOT_RUN), f"{found.page}: say how {line} is checked"
    if words[:1] == ["make"]:
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    if words[:1] == ["fcos"]:
        with click.Context(cli) as context:
            command, rest = cli.get_command(context, words[1]), words[2:]
            if isinstance(command, click.Group):
                command, rest = command.get_command(context, words[2]), words[3:]
            assert command is not None
            command.make_context(command.name, rest, parent=context).close()
    for word in words:
        if re.fullmatch(r"(configs|projects_tools|docs|tests)/[\w./-]+", word):
            assert (ROOT / word).exists(), word
        if re.fullmatch(r"configs/\S+\.(py|yaml)", word):
            load_config(ROOT / word)
    if "lazyconfig_train_net.py" in line:
        at = next(i for i, word in enumerate(words) if word.endswith("lazyconfig_train_net.py"))
        arguments = default_argument_parser().parse_args(words[at + 1 :])
        load_config(ROOT / arguments.config_file, arguments.opts)
    if words[:2] == ["python", "-m"]:
        module = ROOT / words[2].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()


def test_tables_in_the_docs_are_toml() -> None:
    for found in ALL:
        if found.language == "toml":
            assert tomllib.loads(found.text)
