"""The scripts in projects_tools, run as users run them: real COCO images, one and two processes, wrong input."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fcos_d2.paths import config_root
from fcos_d2.predict import Predictor

TOOLS = Path(__file__).resolve().parents[2] / "projects_tools"
LAZY = config_root() / "fcos" / "fcos_imprv_R_50_FPN_1x.py"
YAML = config_root() / "yaml" / "fcos" / "fcos_imprv_R_50_FPN_1x.yaml"

# Small images, nothing to download, and detections whatever the weights are.
TRAIN, TEST = "dataloader.train.mapper.augmentations[0]", "dataloader.test.mapper.augmentations[0]"
SMALL = [
    "train.init_checkpoint=", "train.device=cpu", "train.max_iter=3", "train.log_period=1",
    # After three iterations relu may give 0 at every candidate, and empty boxes are dropped; exp never does.
    "model.dense.selector.score_threshold=0.0", "model.dense.coder.activation=exp", "train.seed=1",
    "dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0", "dataloader.test.num_workers=0",
    f"{TRAIN}.short_edge_length=[96]", f"{TRAIN}.max_size=128", f"{TEST}.short_edge_length=96", f"{TEST}.max_size=128",
]  # fmt: skip
SMALL_YAML = [
    "MODEL.WEIGHTS=", "MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "2",
    "DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MAX_SIZE_TRAIN", "128",
    "INPUT.MIN_SIZE_TEST=96", "INPUT.MAX_SIZE_TEST=128", "MODEL.FCOS.INFERENCE_TH_TEST=0.0",
    "MODEL.FCOS.LTRB_ACTIVATION=exp", "SEED", "1",
]  # fmt: skip

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="counts processes that share the CPU")


def call(*words, datasets=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if datasets is not None:
        environment["DETECTRON2_DATASETS"] = str(datasets)
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


def table(done):
    """The AP that a run has printed, as six words."""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Average Precision" in done.stdout and "person" in done.stdout
    return done.stdout.split("copypaste: ")[-1].split()[0].split(",")


@pytest.fixture
def datasets(shared):
    return shared / "data"


@cpu_only
@pytest.mark.slow
@pytest.mark.parametrize("how", ["one", "two", "torchrun"])
def test_lazy_config_on_coco(datasets, tmp_path, how):
    """Three iterations and an evaluation on real images, then --eval-only of the checkpoint."""
    script = TOOLS / "lazyconfig_train_net.py"
    before = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"] if how == "torchrun" else []
    after = ["--num-gpus", "2", "--dist-url", "auto"] if how == "two" else []
    start = [*before, script, "--config-file", LAZY, *after]
    done = call(*start, *SMALL, f"train.output_dir={tmp_path}", datasets=datasets)
    assert len(table(done)) == 6
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    file = tmp_path / "model_final.pth"
    weights = [f"train.init_checkpoint={file}", f"train.output_dir={tmp_path / 'e'}"]
    evaluated = call(*start, "--eval-only", *SMALL, *weights, datasets=datasets)
    assert table(evaluated) == table(done)
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["bbox"].keys() >= {"AP", "AP50", "AP-person"}
    assert Predictor(file, device="cpu").class_names[0] == "person"


@cpu_only
@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_yaml_config_on_coco(datasets, tmp_path, processes):
    script = TOOLS / "train_net.py"
    start = [script, "--config-file", YAML, "--num-gpus", processes, "--dist-url", "auto"]
    done = call(*start, *SMALL_YAML, "OUTPUT_DIR", tmp_path, datasets=datasets)
    assert len(table(done)) == 6
    resumed = call(*start, "--resume", *SMALL_YAML, "SOLVER.MAX_ITER", "4", "OUTPUT_DIR", tmp_path, datasets=datasets)
    assert "Training from iteration 4 to 4" in resumed.stdout + resumed.stderr
    file = tmp_path / "model_final.pth"
    weights = [f"MODEL.WEIGHTS={file}", "OUTPUT_DIR", tmp_path / "e"]
    evaluated = call(*start, "--eval-only", *SMALL_YAML, *weights, datasets=datasets)
    assert table(evaluated) == table(resumed)
    assert Predictor(file, device="cpu").class_names[0] == "person"


@pytest.mark.parametrize(
    ("script", "words", "sentence"),
    [
        ("lazyconfig_train_net", [LAZY, "model.num_clases=3"], "did you mean 'model.num_classes'?"),
        ("lazyconfig_train_net", ["absent.py"], "absent.py does not exist"),
        ("lazyconfig_train_net", [LAZY, "model.num_classes=3", *SMALL[1:]], "80 classes, but the model 3"),
        ("lazyconfig_train_net", [LAZY, *SMALL, "train.init_checkpoint=gone.pth"], "gone.pth do not exist"),
        ("lazyconfig_train_net", [LAZY, *SMALL, "model.dense.coder.unit=mile"], "'mile'"),  # a part's own ValueError
        ("train_net", [YAML, "MODEL.FCOS.NUM_CLASES", "3"], "'MODEL.FCOS.NUM_CLASSES'?"),
        ("train_net", [YAML, *SMALL_YAML, "MODEL.FCOS.NUM_CLASSES=3"], "80 classes, but the model 3"),
        ("train_net", ["--eval-only", YAML, *SMALL_YAML], "no weights to evaluate"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, monkeypatch, capsys, script, words, sentence):
    """In this process, because starting another takes seconds."""
    output = [f"train.output_dir={tmp_path}"] if script.startswith("lazy") else ["OUTPUT_DIR", str(tmp_path)]
    flags = [word for word in words if str(word).startswith("--")]
    config, *opts = [word for word in words if word not in flags]
    monkeypatch.setattr(sys, "argv", [script, *flags, "--config-file", *map(str, (config, *opts)), *output])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / f"{script}.py"), run_name="__main__")
    assert end.value.code == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and sentence in last


@pytest.mark.slow
def test_missing_images_in_a_process_of_their_own(tmp_path):
    words = [*SMALL, f"train.output_dir={tmp_path}"]
    done = call(TOOLS / "lazyconfig_train_net.py", "--config-file", LAZY, *words, datasets="/absent")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "/absent/coco/annotations/instances_train2017.json" in done.stderr.strip().splitlines()[-1]
