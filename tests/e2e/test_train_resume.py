"""A training that is resumed ends with the same weights, bit by bit, as one that was never interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase

from fcos_d2.data import find_dataset, register
from fcos_d2.data.synthetic import generate
from fcos_d2.train import LazyTrainer
from fcos_d2.weights.read import load

SIZES = ((96, 80), (80, 96))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("resume") / "set", {"train": 13, "val": 3}, image_size=SIZES).root


@pytest.fixture
def config(folder, small):
    names = register(find_dataset(folder), "resume_tests")
    fixed = (
        f"dataloader.train.dataset.names={names.train}",
        f"dataloader.test.dataset.names={names.val}",
        "train.eval_period=2",
        "train.checkpointer.period=3",
        "train.ema.enabled=true",
    )
    return lambda output, *overrides: small(output, *fixed, *overrides)


class Crash(HookBase):
    """Ends a training like a power cut: nothing is saved."""

    class Cut(Exception):
        pass

    def __init__(self, iteration):
        self.iteration = iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            raise self.Cut


def same(one, other, path=""):
    """Whether two trees of a checkpoint are equal to the bit; returns the path of the first difference."""
    if isinstance(one, torch.Tensor):
        return "" if torch.equal(one, other) else path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        return next(filter(None, (same(one[key], other[key], f"{path}/{key}") for key in one)), "")
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        return next(filter(None, (same(a, b, f"{path}/{i}") for i, (a, b) in enumerate(zip(one, other)))), "")
    return "" if one == other else path


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_three_and_three_are_six(config, tmp_path, workers):
    options = ["train.seed=1", f"dataloader.train.num_workers={workers}", "train.eval_period=3"]
    LazyTrainer(config("whole", *options), console=False).train()

    first = LazyTrainer(config("parts", *options), console=False)
    first.register_hooks([Crash(4)])  # one iteration after the checkpoint is lost
    with pytest.raises(Crash.Cut):
        first.train()
    assert (tmp_path / "parts" / "last_checkpoint").read_text() == "model_0000002.pth"
    torch.manual_seed(99)
    second = LazyTrainer(config("parts", "train.seed=7", *options[1:]), resume=True, console=False)
    assert second.start_iter == 3
    second.train()

    whole, parts = (load(tmp_path / name / "model_final.pth") for name in ("whole", "parts"))
    for key in ("model", "ema", "iteration", "trainer"):
        assert same(whole[key], parts[key], key) == ""
    third = LazyTrainer(config("parts", *options), resume=True, console=False)
    assert third.start_iter == 6
    assert third.train()["bbox"].keys() >= {"AP"}  # complete: evaluates only


@pytest.mark.slow
def test_accumulated_clipped_bfloat16_adam(config, tmp_path):
    options = [
        "train.seed=1",
        "dataloader.train.num_workers=0",
        "train.eval_period=0",
        "model.dense.head.num_class_convs=1",
        "model.dense.head.num_box_convs=1",
        "train.grad_accumulation=2",
        "train.clip_grad=1.0",
        "train.amp.enabled=true",
        "train.channels_last=true",
        "train.gradient_checkpointing=all",
        "train.max_iter=4",
        "optimizer._target_=torch.optim.AdamW",
        "optimizer.lr=0.0001",
    ]

    def make(name):
        cfg = config(name, *options)
        del cfg.optimizer.momentum
        return cfg

    LazyTrainer(make("whole"), console=False).train()
    first = LazyTrainer(make("parts"), console=False)
    first.register_hooks([Crash(3)])
    with pytest.raises(Crash.Cut):
        first.train()
    LazyTrainer(make("parts"), resume=True, console=False).train()
    whole, parts = (load(tmp_path / name / "model_final.pth") for name in ("whole", "parts"))
    assert same(whole["model"], parts["model"]) == "" == same(whole["trainer"], parts["trainer"])


def test_options_of_the_optimizer_are_the_configs(config, tmp_path):
    options = ["train.seed=1", "dataloader.train.num_workers=0", "train.ema.enabled=false"]
    LazyTrainer(config("out", *options, "train.max_iter=2"), console=False).train()
    trainer = LazyTrainer(
        config("out", *options, "optimizer.lr=0.5", "optimizer.weight_decay=0.25"), resume=True, console=False
    )
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert {group["initial_lr"] for group in groups} <= {0.5, 1.0} and groups[0]["weight_decay"] != 0.0001


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_and_resume_as_users_do(folder, tmp_path, processes):
    """The script is interrupted; a checkpoint, one line and exit code 130 are what is left, and --resume goes on."""
    if torch.cuda.is_available():
        pytest.skip("counts processes that share the CPU")
    (tmp_path / "config.py").write_text(
        textwrap.dedent(f"""
            from fcos_d2.data import find_dataset, register
            from fcos_d2.zoo import get_config

            names = register(find_dataset({str(folder)!r}), "resume_script")
            _cfg = get_config("fcos_R_18_slim_FPN_small")
            model, dataloader, optimizer, lr_multiplier, train = (
                _cfg[key] for key in ("model", "dataloader", "optimizer", "lr_multiplier", "train")
            )
            model.num_classes = 5
            dataloader.train.dataset.names, dataloader.test.dataset.names = names.train, names.val
            dataloader.train.total_batch_size = 2
            dataloader.train.num_workers = dataloader.test.num_workers = 1
            dataloader.train.mapper.augmentations[0].short_edge_length = [48, 64]
            train.max_iter, train.log_period, train.device = 100_000, 1, "cpu"
            train.output_dir = {str(tmp_path / "out")!r}
        """)
    )
    script = Path(__file__).resolve().parents[2] / "projects_tools" / "lazyconfig_train_net.py"
    command = [sys.executable, str(script), "--config-file", str(tmp_path / "config.py"), "--num-gpus", str(processes)]
    command += ["--dist-url", "auto"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as process:
        metrics = tmp_path / "out" / "metrics.json"
        until = time.monotonic() + 240
        while time.monotonic() < until and process.poll() is None:
            if metrics.is_file() and metrics.read_text().count("\n") >= 3:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "--resume" in errors.strip().splitlines()[-1]
    name = (tmp_path / "out" / "last_checkpoint").read_text()
    done = load(tmp_path / "out" / name)["iteration"]
    assert name == f"model_{done:07d}.pth"
    finished = subprocess.run(
        [*command, "--resume", f"train.max_iter={done + 3}"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    assert load(tmp_path / "out" / "model_final.pth")["iteration"] == done + 2
