"""Several machines, simulated on this one: what docs/scale.md says about torchrun and the environment's rendezvous."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from fcos_d2.data.synthetic import generate
from fcos_d2.weights.read import load

SCRIPT = Path(__file__).resolve().parents[2] / "projects_tools" / "lazyconfig_train_net.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="counts processes that share the CPU"),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Batches of four images, all wide: then the same four make a batch, however many processes share it."""
    folder = tmp_path_factory.mktemp("machines")
    root = generate(folder / "set", {"train": 12, "val": 2}, image_size=((96, 80),)).root
    path = folder / "config.py"
    path.write_text(
        textwrap.dedent(f"""
            from fcos_d2.data import find_dataset, register
            from fcos_d2.zoo import get_config

            names = register(find_dataset({str(root)!r}), "machines")
            _cfg = get_config("fcos_R_18_slim_FPN_small")
            model, dataloader, optimizer, lr_multiplier, train = (
                _cfg[key] for key in ("model", "dataloader", "optimizer", "lr_multiplier", "train")
            )
            model.num_classes = 5
            model.backbone.bottom_up.norm = "FrozenBN"
            dataloader.train.dataset.names, dataloader.test.dataset.names = names.train, names.val
            dataloader.train.total_batch_size = 4
            dataloader.train.num_workers = dataloader.test.num_workers = 0
            dataloader.train.mapper.augmentations[0].short_edge_length = [64]
            train.max_iter, train.log_period, train.device, train.seed = 3, 1, "cpu", 1
        """)
    )
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(config: Path, output: Path, launcher: list[str], *overrides: str, **environment: object) -> subprocess.Popen:
    return subprocess.Popen(
        [*launcher, str(SCRIPT), "--config-file", str(config), f"train.output_dir={output}", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in environment.items()}},
    )


def finish(*started: subprocess.Popen) -> None:
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), outputs[0][-3000:]


def losses(output: Path) -> list[list[float]]:
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert load(output / "model_final.pth")["iteration"] == len(rows) - 1
    return [[value for name, value in sorted(row.items()) if "loss" in name] for row in rows]


@pytest.fixture(scope="module")
def alone(config: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    """The losses of one process."""
    output = tmp_path_factory.mktemp("alone")
    finish(start(config, output, [sys.executable]))
    return losses(output)


def same(found: list[list[float]], expected: list[list[float]]) -> None:
    """Those of the third iteration depend on two steps of the optimizer."""
    assert len(found) == len(expected) == 3
    assert all(a == pytest.approx(b, rel=1e-4) for a, b in zip(found, expected))
    assert expected[2] != pytest.approx(expected[0], rel=1e-2)


def test_two_launches_of_torchrun(config: Path, alone: list[list[float]], tmp_path: Path) -> None:
    rendezvous = ["--rdzv-backend=c10d", "--rdzv-id=job", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    launcher = [*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", *rendezvous]
    finish(*(start(config, tmp_path, launcher) for _ in range(2)))
    same(losses(tmp_path), alone)


def test_rendezvous_by_the_environment_and_accumulation(config: Path, alone: list[list[float]], tmp_path: Path) -> None:
    """Two processes that somebody else has started, each with two parts of one image."""
    common = {"WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}
    common["MASTER_PORT"] = free_port()
    option = "train.grad_accumulation=2"
    finish(*(start(config, tmp_path, [sys.executable], option, RANK=rank, **common) for rank in range(2)))
    same(losses(tmp_path), alone)


def test_torchrun_that_is_told_to_end_leaves_a_checkpoint(config: Path, tmp_path: Path) -> None:
    """As SLURM does before it takes a machine away; --resume goes on."""
    launcher = [*TORCHRUN, "--standalone", "--nproc-per-node=2"]
    long = ("train.max_iter=100000", "train.checkpointer.period=100000")
    process = start(config, tmp_path, launcher, *long)
    metrics, until = tmp_path / "metrics.json", time.monotonic() + 240
    while time.monotonic() < until and process.poll() is None:
        if metrics.is_file() and metrics.read_text().count("\n") >= 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert (tmp_path / "last_checkpoint").is_file(), output[-3000:]
    name = (tmp_path / "last_checkpoint").read_text()
    done = load(tmp_path / name)["iteration"]
    assert name == f"model_{done:07d}.pth"
    again = [*launcher, str(SCRIPT), "--config-file", str(config), "--resume"]
    resumed = subprocess.run(
        [*again, f"train.output_dir={tmp_path}", f"train.max_iter={done + 3}"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert f"Going on from {tmp_path / name}" in resumed.stdout + resumed.stderr
    assert load(tmp_path / "model_final.pth")["iteration"] == done + 2
