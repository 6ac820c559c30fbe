"""docs/example_project: own backbone, own loss, own assigner, from training to detection to YAML."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import warm
from console import ROOT, environment, install

from fcos_d2.data.synthetic import generate

FCOS = install(Path(tempfile.mkdtemp(prefix="fcos-example-")))


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return warm.run(words, cwd=cwd, env=environment())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with data of three classes."""
    folder = tmp_path_factory.mktemp("example") / "project"
    shutil.copytree(ROOT / "docs" / "example_project", folder, ignore=shutil.ignore_patterns("__pycache__"))
    generate(folder / "shapes", {"train": 8, "val": 2}, (96, 64), min_size=10, classes=("circle", "square", "star"))
    return folder


@pytest.fixture(scope="module")
def image(project: Path) -> Path:
    return next(path for path in sorted((project / "shapes").rglob("*")) if path.suffix in (".jpg", ".png"))


@pytest.fixture(scope="module")
def printed(project: Path) -> str:
    """The line that training prints for detecting."""
    words = (
        "train --data shapes --model my_config.py --plugin my_parts -o out --image-size 64 --batch-size 2 --workers 0"
    )
    done = run(*FCOS, *words.split(), "--iterations", 3, cwd=project)
    assert done.returncode == 0, done.stderr
    return re.search(r"fcos detect .*", done.stdout)[0].strip()


def test_the_printed_line_works_as_it_stands(project, printed):
    assert re.fullmatch(r"fcos detect \S+ --weights out/model_\w+\.pth --plugin my_parts", printed)
    done = run(*FCOS, *shlex.split(printed)[1:], "--threshold", 0, "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["classes"] == ["circle", "square", "star"] and found["images"][0]["detections"]


@pytest.mark.slow
def test_a_config_file_has_the_classes_of_its_weights(project, image, printed):
    words = "--model my_config.py --weights out/model_final.pth --plugin my_parts --no-pictures"
    done = run(*FCOS, "detect", image, *words.split(), cwd=project)
    assert done.returncode == 0, done.stderr
    done = run(*FCOS, "detect", image, *words.split(), "--no-py", cwd=project)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "my_config.py is Python" in done.stderr


SCRIPT = """
import sys
import fcos_d2
import torch
from detectron2.config import get_cfg
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from fcos_d2 import Predictor, add_fcos_config

image, weights = sys.argv[1], "out/model_best.pth"  # the averaged weights, which are all that Detectron2 reads
try:
    Predictor(weights, device="cpu")
except ValueError as error:
    print(error)
assert "my_parts" not in sys.modules

every = ["model.dense.selector.score_threshold=0.0"]  # it has hardly learnt anything
predictor = Predictor(weights, device="cpu", overrides=every, plugins=["my_parts"])
found = predictor(image)["instances"]
print(predictor)
stored = Predictor("out/config.yaml", weights=weights, device="cpu", overrides=every, plugins=["my_parts"])
assert torch.equal(stored(image)["instances"].pred_boxes.tensor, found.pred_boxes.tensor)

cfg = get_cfg()
add_fcos_config(cfg)
assert "SMOOTH_WEIGHT" in cfg.MODEL.FCOS  # a key of the project's own loss
cfg.merge_from_file("my_config.yaml")
cfg.merge_from_list(["MODEL.WEIGHTS", weights, "MODEL.DEVICE", "cpu", "MODEL.FCOS.NUM_CLASSES", 3])
cfg.MODEL.FCOS.INFERENCE_TH_TEST = 0.0
cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 107
yaml = DefaultPredictor(cfg)
parts = yaml.model.dense
assert (type(parts.loss).__name__, type(parts.assigner).__name__) == ("SmoothLoss", "CentreAssigner")
theirs = yaml(read_image(image, "BGR"))["instances"]
assert len(found) and torch.equal(theirs.pred_boxes.tensor, found.pred_boxes.tensor)
"""


def test_in_python_and_in_detectron2s_yaml(project, image, printed):
    done = run(sys.executable, "-c", SCRIPT, image, cwd=project)
    assert done.returncode == 0, done.stderr
    refused, shown = done.stdout.splitlines()
    assert "'my_parts.TinyNet' at model.backbone.bottom_up" in refused and "add --plugin my_parts" in refused
    assert shown == "Predictor(FCOS on cpu, 3 classes: circle, square, star)"
