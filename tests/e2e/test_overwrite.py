"""`fcos train --overwrite` in processes that are killed, interrupted, or run out of disk: nothing is lost."""

from __future__ import annotations

import json
import re
import resource
import shlex
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from console import environment, install

from fcos_d2.data.synthetic import generate
from fcos_d2.weights.read import load

FCOS = install(Path(tempfile.mkdtemp(prefix="fcos-")))
TINY = ("--model", "fcos_R_18_slim_FPN_small", "--image-size", "64", "--batch-size", "2", "--workers", "0")
TRAIN = ("train", "--data", "my shapes", *TINY, "-o", "größe 1")
ENDLESS = ("--iterations", "100000", "train.eval_period=0", "train.checkpointer.period=2")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fcos(*words: object, cwd: Path, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FCOS, *map(str, words)], cwd=cwd, env=environment(), text=True, capture_output=True, **more
    )  # fmt: skip


def stop(*words: str, cwd: Path, after: Path, by: signal.Signals) -> tuple[int, str]:
    """Run a command until a file is there, then send a signal; returns the exit code and what was said."""
    process = subprocess.Popen(
        [*FCOS, *words], cwd=cwd, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        while not after.is_file() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(by)
        said = process.communicate()[1]
    finally:
        process.kill()
    return process.returncode, said


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a data set, and a finished training among files of the user's."""
    home = tmp_path_factory.mktemp("home")
    generate(home / "my shapes", {"train": 6, "val": 2}, (96, 64), min_size=10)
    done = fcos(*TRAIN, "--iterations", 1, cwd=home)
    assert done.returncode == 0, done.stderr
    (home / "größe 1" / "notes.txt").write_text("mine")
    return home


@pytest.mark.slow
def test_killed_interrupted_and_out_of_disk(home):
    keep, fresh = home / "größe 1", home / "größe 1.new"
    before = snapshot(keep)

    code, _ = stop(*TRAIN, "--overwrite", *ENDLESS, cwd=home, after=fresh / "last_checkpoint", by=signal.SIGKILL)
    assert code == -signal.SIGKILL and snapshot(keep) == before

    again = fcos(*TRAIN, cwd=home)
    assert again.returncode == 1 and "größe 1.new an interrupted one that was to replace it" in again.stderr
    assert snapshot(keep) == before

    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
    interrupted = snapshot(fresh)
    full = fcos(*TRAIN, "--overwrite", "--iterations", 1, cwd=home, preexec_fn=limit)
    assert full.returncode == 1 and "File too large" in full.stderr and "Traceback" not in full.stderr, full.stderr
    assert snapshot(keep) == before and snapshot(fresh) == interrupted

    code, said = stop(*TRAIN, "--resume", *ENDLESS, cwd=home, after=fresh / "model_0000009.pth", by=signal.SIGINT)
    assert code == 130 and snapshot(keep) == before, said
    done = int(re.search(r"after iteration (\d+)", said)[1]) - 1
    command = shlex.split(re.search(r"Go on with: (.+)", said)[1])
    assert command[0] == "fcos" and command[-1] == "--resume" and "--overwrite" not in command

    end = fcos(*command[1:], f"train.max_iter={done + 3}", "--json", cwd=home)
    assert end.returncode == 0, end.stderr
    assert not fresh.exists() and json.loads(end.stdout)["checkpoint"] == "größe 1/model_final.pth"
    assert load(keep / "model_final.pth")["iteration"] == done + 2
    assert (keep / "notes.txt").read_text() == "mine"
    log = (keep / "log.txt").read_text()
    assert f"Going on from größe 1/model_{done:07d}.pth" in log and "größe 1.new" not in log
