"""`fcos doctor` where everything is there, and where little is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from console import environment, install

WITH = ("click", "rich", "pygments", "markdown_it", "mdurl")  # what the command line itself needs


def test_of_this_machine(fcos):
    done = fcos("doctor", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["ok"] and told["cores"] >= 1 and {"torch", "pillow", "numpy"} <= told["versions"].keys()
    assert all({"severity", "what", "mend"} == finding.keys() for finding in told["findings"])
    text = fcos("doctor").out
    for piece in (
        "Installed",
        "Optional",
        "This machine",
        "CPU cores",
        "memory",
        "/dev/shm",
        told["versions"]["torch"],
    ):
        assert piece in text


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with the packages that the command line needs and no others."""
    for name in WITH:
        package = Path(find_spec(name).origin).parent
        (tmp_path / "site" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "site" / name).symlink_to(package)
    return tmp_path


def test_without_pytorch_and_detectron2(bare):
    """In a Python that has neither, nor Pillow, matplotlib or numpy: one line mends each."""
    script = install(bare / "bin")[-1]
    code = f"import runpy, sys; sys.path.insert(0, {str(bare / 'site')!r}); sys.argv[:1] = [{script!r}, 'doctor']"
    run = [sys.executable, "-S", "-c", f"{code}; runpy.run_path({script!r}, run_name='__main__')"]
    settings = {**environment(FCOS_D2_CACHE=str(bare / "cache")), "PYTHONPATH": ""}
    done = subprocess.run([*run, "--json"], env=settings, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    said = {finding["what"]: finding["mend"] for finding in told["findings"] if finding["severity"] == "error"}
    assert said["PyTorch is not installed."] == "pip install torch torchvision"
    assert "uv sync" in said["Detectron2 is not installed."] and not told["ok"]
    text = subprocess.run(run, env=settings, capture_output=True, text=True)
    assert text.returncode == 1 and "Traceback" not in text.stderr and "pip install torch torchvision" in text.stdout


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(fcos, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "locked"))
    assert "cannot be written" in fcos("doctor").out
