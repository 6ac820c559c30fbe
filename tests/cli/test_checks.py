"""Wrong paths and names are told before PyTorch is imported, each in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest
from console import environment, install

from fcos_d2.cli import COMMANDS, cli
from fcos_d2.cli import data as data_commands
from fcos_d2.cli.convert import FAMILIES
from fcos_d2.data import exports, transfer
from fcos_d2.data.synthetic import generate
from fcos_d2.weights import families

SCRIPT = """
import importlib.abc, io, json, sys
from contextlib import redirect_stderr, redirect_stdout

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torch":
            raise RuntimeError(f"{name} is imported")

sys.meta_path.insert(0, NoTorch())
sys.path[:0] = json.loads(sys.argv[1])
from fcos_d2_console import main

found = []
for words in json.loads(sys.argv[2]):
    sys.argv = ["fcos", *words]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            found.append([end.code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""

# Words on the command line, and what the sentence says.
WRONG = (
    ("train --data nowhere", "The data set folder nowhere does not exist."),
    ("train --data file.txt", "file.txt is a file"),
    ("train --data empty", "is empty"),
    ("train --data notes", "No data set found in notes"),
    ("train --data only_train", "--val-fraction"),
    ("train --data set --model fcos_R_18_FPM_small", "Did you mean fcos_R_18_FPN_small"),
    ("train --data set --model gone.yaml", "The config file gone.yaml does not exist."),
    ("train --data set --weights gone.pth", "gone.pth does not exist."),
    ("train --data set --weights empty", "is a folder"),
    ("train --data set --output file.txt", "is a file: choose another --output"),
    ("train --data set --output file.txt/out", "cannot be written"),
    ("train --data set --output other", "other holds summary.json"),
    ("train --data set --device gpu", "--device is 'gpu'"),
    ("train --config gone.py", "The config file gone.py does not exist."),
    ("eval --weights gone.pth --data set", "gone.pth does not exist."),
    ("eval --model fcos_R_18_FPN_small --data nowhere", "nowhere does not exist"),
    ("eval --model fcos_R_18_FPN_small --data set --split test", "no test part"),
    ("eval --model fcos_resnet50_fpn --data set -o file.txt", "is a file"),
    ("detect gone.jpg --weights file.txt", "The image gone.jpg does not exist."),
    ("detect file.txt --weights gone.pth", "gone.pth does not exist."),
    ("detect file.txt --model no_such --weights file.txt", "There is no variant 'no_such'."),
    ("detect file.txt --weights file.txt -o file.txt", "is a file"),
    ("detect file.txt --weights file.txt --device CUDA", "--device is 'CUDA'"),
    ("demo -o file.txt", "is a file"),
    ("demo --device cuda:x", "--device is 'cuda:x'"),
    ("bench --weights gone.pth", "gone.pth does not exist."),
    ("bench --model no_such", "There is no variant 'no_such'."),
    ("convert gone.pth -o x.pth", "gone.pth does not exist."),
    ("convert file.txt -o empty --overwrite", "empty is a folder"),
    ("convert file.txt -o file.txt/x.pth", "file.txt is a file"),
    ("convert file.txt -o x.pth --variant no_such", "There is no variant 'no_such'."),
    ("convert file.txt -o x.pth --family yolo", "There is no family 'yolo' of checkpoints"),
    ("convert file.txt -o x.pth --to yolo", "There is no family 'yolo' of checkpoints"),
    ("convert file.txt -o x.pth --genotype gone.log", "There is no genotype file gone.log"),
    ("data convert nowhere new --to yolo", "The data set folder nowhere does not exist."),
    ("data convert set set/new --to yolo", "set/new lies in set, which is read: choose a folder beside it."),
    ("data convert set other --to voc", "other holds files that this command did not make"),
    ("data convert set new --to yolo --format rdf", "There is no format 'rdf'"),
    ("data split set new --val 0.2", "has a val part already: --pool"),
    ("data show set -o sheet.png", "sheet.png does not end in .jpg"),
    ("data show set -o sheet.jpg --class cow", "There is no class 'cow'; there are"),
    ("data show only_train -o sheet.jpg --split val", "only_train has no val part; it has train."),
    ("check nowhere", "nowhere does not exist"),
    ("check notes", "No data set found in notes"),
    ("check set --fix other", "other is there already and not an empty folder"),
    ("check set --fix set/mended", "lies in the data set set, which stays as it is"),
    ("check set --html file.txt", "file.txt is there already and not a page of `fcos check`"),
    ("analyze nowhere", "The data set folder nowhere does not exist."),
    ("analyze set --model no_such", "There is no variant 'no_such'."),
    ("analyze set --split test", "no test part"),
    ("analyze set -o file.txt", "is a file: choose another --output"),
    ("zoo no_such", "There is no variant 'no_such'."),
)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, str]]:
    """What all commands of `WRONG` say, in one process that refuses to import PyTorch."""
    home = tmp_path_factory.mktemp("home")
    for name in ("empty", "notes", "other"):
        (home / name).mkdir()
    (home / "file.txt").write_text("text")
    (home / "notes" / "notes.txt").write_text("text")
    (home / "other" / "summary.json").write_text("{}")
    generate(home / "set", {"train": 2, "val": 1}, (64, 64), min_size=10)
    generate(home / "only_train", {"train": 2}, (64, 64), min_size=10)
    folder = Path(tempfile.mkdtemp(prefix="fcos-"))
    install(folder)
    paths = [str(folder), str(Path(__file__).resolve().parents[2])]
    commands = [words.split() for words, _ in WRONG]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(paths), json.dumps(commands)],
        cwd=home, env=environment(), text=True, capture_output=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[words for words, _ in WRONG])
def test_a_wrong_path_or_name_is_told_without_pytorch(said, number) -> None:
    code, out, err = said[number]
    assert code == 1 and out == "", err
    assert err.startswith("error: ") and err.count("\n") == 1 and WRONG[number][1] in err


def test_families_of_checkpoints_are_those_that_can_be_read() -> None:
    assert set(FAMILIES) == {*families.FAMILIES, *families._ALIASES, families.OURS.name}


def test_every_command_that_reads_weights_can_be_kept_from_the_network() -> None:
    context = click.Context(cli)
    taken = {row.name: {name for one in cli.get_command(context, row.name).params for name in (one.name, *one.opts)}
             for row in COMMANDS}  # fmt: skip
    takes = {name for name, names in taken.items() if names & {"weights", "checkpoint"}}
    assert {"train", "eval", "detect", "bench", "convert"} <= takes
    assert all("--offline" in taken[name] for name in takes)


def test_formats_that_are_written_and_ways_of_images_are_those_of_the_tables() -> None:
    assert tuple(exports.WRITERS) == data_commands.FORMATS and tuple(transfer.WAYS) == data_commands.WAYS


@pytest.mark.skipif(os.name != "posix", reason="terminals of a chosen width")
@pytest.mark.parametrize("width", [40, 80, 200])
def test_zoo_never_cuts_a_name(width: int, tmp_path: Path) -> None:
    """On a terminal each name and the command of one are whole; a pipe gets a line for each variant."""
    import fcntl
    import pty
    import struct
    import termios

    from fcos_d2 import zoo

    command = install(tmp_path)
    own = {key: value for key, value in environment(TERM="xterm").items() if key not in ("COLUMNS", "NO_COLOR")}
    longest = max(zoo.names(), key=len)

    def shown(*words: str) -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        with subprocess.Popen([*command, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=own) as process:
            os.close(theirs)
            found = b""
            while True:
                try:
                    part = os.read(ours, 1 << 16)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                found += part
        os.close(ours)
        assert process.returncode == 0
        return found.decode()

    text = shown("zoo")
    assert all(name in text for name in zoo.names()) and "…" not in text
    details = shown("zoo", longest)
    assert f"fcos train --data DIR --model {longest}" in details
    assert str(zoo.config_file(longest)) in details
    if width > 40:
        return
    run = subprocess.run([*command, "zoo"], env={**own, "COLUMNS": str(width)}, text=True, capture_output=True)
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    listed = [*zoo.names(), *(row.name for row in zoo.PROPOSALS)]
    assert [row[0] for row in rows] == listed and {len(row) for row in rows} == {8}
    assert dict(zip(zoo.names(), rows))["fcos_imprv_R_50_FPN_1x"][1:4] == ["fcos", "38.7", "-"]
