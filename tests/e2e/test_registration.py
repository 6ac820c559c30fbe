"""Importing the package registers its parts in every process but the console script's, which says itself what it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import warm
from console import ROOT, declared, environment, install

# Looks at all of this in one process, since importing takes seconds.
REGISTERED = """
import json, sys
sys.path.insert(1, {root!r})
import torch

def settings():
    return torch.get_num_threads(), torch.get_num_interop_threads(), float(torch.tensor(1e-40) * 1.0)

before = settings()
import fcos_d2
after = settings()
from detectron2.modeling import META_ARCH_REGISTRY, PROPOSAL_GENERATOR_REGISTRY
from detectron2.data import DatasetCatalog, transforms as T
from fcos_d2.data import find_dataset, register, synthetic
from fcos_d2.data.mapper import FastMapper
synthetic.generate("shapes", {{"train": 2, "val": 1}}, (96, 64), min_size=10)
names = register(find_dataset("shapes"), "shapes")
mapper = FastMapper(is_train=True, augmentations=[T.ResizeShortestEdge(64), T.RandomFlip(1.0)], image_format="BGR")
print(json.dumps({{
    "registered": "FCOS" in META_ARCH_REGISTRY and "FCOSProposals" in PROPOSAL_GENERATOR_REGISTRY,
    "predictor": fcos_d2.Predictor.__module__,
    "settings": [before, after],
    "shape": list(mapper(DatasetCatalog.get(names.train)[0])["image"].shape),
    "cv2": "cv2" in sys.modules,
}}))
"""

SPAWNING = """
import multiprocessing
import sys

def look(queue):
    import fcos_d2
    queue.put("FCOS" in vars(fcos_d2))

def main():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    worker = context.Process(target=look, args=(queue,))
    worker.start()
    worker.join()
    print("registered" if queue.get() else "nothing")
    sys.exit()
"""


def run(*words: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment(**more), text=True, capture_output=True, timeout=300
    )


def found_by_a_script(folder: Path, name: str) -> dict[str, Any]:
    """What a user's script of that name finds, on a machine without OpenCV's libraries for windows."""
    (folder / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")')
    script = folder / name
    script.write_text(f"#!{sys.executable}\n{REGISTERED.format(root=str(ROOT))}")
    script.chmod(0o755)
    done = run(script, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return found_by_a_script(tmp_path_factory.mktemp("script"), "fcos")


def test_a_users_script_of_that_name_gets_everything(found):
    assert found["registered"] and found["predictor"].startswith("fcos_d2.predict")


@pytest.mark.slow
def test_a_users_file_of_that_name_gets_everything(tmp_path):
    test_a_users_script_of_that_name_gets_everything(found_by_a_script(tmp_path, "fcos.py"))


@pytest.mark.slow
def test_workers_that_the_command_spawns_get_everything(tmp_path):
    """They run the script anew, as `__mp_main__`, and unpickle functions of the package."""
    words = install(tmp_path / "bin")
    (tmp_path / "bin" / "spawning.py").write_text(SPAWNING)
    script, call = Path(words[-1]), "sys.exit(main())"
    assert call in script.read_text()
    started = "import fcos_d2_console, spawning; fcos_d2_console.started = True; spawning.main()"
    script.write_text(script.read_text().replace(call, started))
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "registered", done.stderr


def test_python_m_is_the_same_command(tmp_path):
    done = warm.run([sys.executable, "-m", "fcos_d2.cli", "--version"], cwd=tmp_path, env=environment())
    assert done.returncode == 0 and done.stdout.startswith("fcos_d2 ")


def test_importing_changes_no_setting_of_the_process(found):
    before, after = found["settings"]
    assert before == after and before[2] > 0


def test_a_server_without_a_screen(found):
    """Where OpenCV's libraries for windows are missing, nothing of this package asks for OpenCV.

    It is a dependency for Detectron2's rotations and demo, under the name that Detectron2's users have: the headless
    twin overwrites the same files.
    """
    opencv = [text for text in declared()["project"]["dependencies"] if text.startswith("opencv")]
    assert [re.split(r"[<>=]", text)[0] for text in opencv] == ["opencv-python"]
    assert found["shape"] == [3, 64, 96] and not found["cv2"]
