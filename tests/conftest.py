"""What every test may ask for, and what every test gets without asking: fixed seeds and at most two threads."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

import fcos_d2  # noqa: F401  # isort: skip  # before detectron2, whose 0.6 needs mending

from detectron2.config import CfgNode, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig

from fcos_d2.config import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.data import DatasetNames, register
from fcos_d2.data.synthetic import generate
from fcos_d2.paths import config_root
from fcos_d2.weights.write import save

gc.disable()  # while tests are collected: all that is made then stays
os.fsync = lambda descriptor: None  # no test cuts the power, and each written file would wait for the disk twice
ROOT = Path(__file__).resolve().parent.parent
COMMON_DATA = "engine_tests"  # start of the names of the data set that all files of tests share

# Training and first calls of a compiled function take seconds: hypothesis must not call that a failure.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run beside each other, so everything they start gets one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes that tests start need not compile the package anew
THREADS = int(os.environ.get("OMP_NUM_THREADS") or 2)
torch.set_num_threads(THREADS)


if os.environ.get("FCOS_D2_DEVICE", "cpu") != "cpu":  # the same numbers each time there, too, and all of their digits
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False


@pytest.hookimpl(tryfirst=True)  # also in the process that hands tests to others, which collects none
def pytest_runtestloop() -> None:
    """Modules and tests stay until the end: from here on the garbage collector need not walk through them each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _alike() -> None:
    """The same random numbers and threads in each test, whichever tests ran before: benchmarks set their own."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # Detectron2's augmentations draw from the global generator
    torch.manual_seed(0)
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)


@pytest.fixture(scope="module", autouse=True)
def _no_data_of_other_files() -> Iterator[None]:
    """Data sets that the tests of one file enter into the catalog are gone in the next; that of all files stays."""
    yield
    for name in [name for name in DatasetCatalog.list() if hasattr(MetadataCatalog.get(name), "fcos_report")]:
        if not name.startswith(COMMON_DATA):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and reference files; a test that asks for it is skipped where there is none.

    It is the environment variable `FCOS_D2_SHARED`, else `shared` beside the repository.
    """
    folder = Path(os.environ.get("FCOS_D2_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set FCOS_D2_SHARED to the folder that holds data/coco and data/bccd")
    return folder


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where tests train: the environment variable `FCOS_D2_DEVICE`, else the CPU; skipped on a machine without it."""
    device = torch.device(os.environ.get("FCOS_D2_DEVICE") or "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"FCOS_D2_DEVICE is {device}, but PyTorch finds no CUDA device here")
    return device


@pytest.fixture(scope="session")
def gpu(device: torch.device) -> torch.device:
    """A real GPU; a test that asks for it is skipped unless `FCOS_D2_DEVICE` names one."""
    if device.type != "cuda":
        pytest.skip("needs a GPU: set FCOS_D2_DEVICE=cuda")
    return device


@pytest.fixture
def tmp_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory while the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# A small synthetic data set and the smallest variant, set up to train on it in a second.

IMAGE_SIZES = ((96, 80), (80, 96))  # wide and tall, so that grouping by aspect ratio has something to do


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetNames:
    layout = generate(tmp_path_factory.mktemp("engine") / "set", {"train": 12, "val": 4}, image_size=IMAGE_SIZES)
    return register(layout, COMMON_DATA)


@pytest.fixture
def small(data: DatasetNames, tmp_path: Path, device: torch.device) -> Callable[..., DictConfig]:
    """`small(output, *overrides)`: a config that trains for six iterations of two images."""

    def config(output: str = "out", *overrides: str) -> DictConfig:
        fixed = (
            "model.num_classes=5",
            f"dataloader.train.dataset.names={data.train}",
            f"dataloader.test.dataset.names={data.val}",
            "dataloader.train.total_batch_size=2",
            "dataloader.train.num_workers=0",
            "dataloader.test.num_workers=0",
            "dataloader.train.mapper.augmentations[0].short_edge_length=[48,64]",
            "dataloader.test.mapper.augmentations[0].short_edge_length=64",
            "train.max_iter=6",
            "train.log_period=1",
            f"train.device={device}",
            "train.seed=1",
            f"train.output_dir={tmp_path / output}",
        )
        return load_config("fcos_R_18_slim_FPN_small", [*fixed, *overrides])

    return config


@pytest.fixture
def yaml(data: DatasetNames, tmp_path: Path, device: torch.device) -> Callable[..., CfgNode]:
    """`yaml(output, *overrides)`: the twin of `small`, with Detectron2's yacs keys."""

    def config(output: str = "out", *overrides: str) -> CfgNode:
        fixed = (
            "MODEL.FCOS.NUM_CLASSES=5",
            f"DATASETS.TRAIN=('{data.train}',)",
            f"DATASETS.TEST=('{data.val}',)",
            "SOLVER.IMS_PER_BATCH=2",
            "DATALOADER.NUM_WORKERS=0",
            "INPUT.MIN_SIZE_TRAIN=(48,64)",
            "INPUT.MIN_SIZE_TEST=64",
            "SOLVER.MAX_ITER=6",
            "SOLVER.STEPS=()",
            "TRAIN.LOG_PERIOD=1",
            f"MODEL.DEVICE={device}",
            "SEED=1",
            f"OUTPUT_DIR={tmp_path / output}",
        )
        return load_config(config_root() / "yaml" / "small" / "fcos_R_18_slim_FPN_small.yaml", [*fixed, *overrides])

    return config


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose boxes are those of a model that was never trained, but always the same."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.manual_seed(0)
    cfg = load_config(
        "fcos_R_18_slim_FPN_small",
        [
            "model.num_classes=3",
            "dataloader.test.mapper.augmentations[0].short_edge_length=64",
            "train.device=cpu",
            "model.dense.selector.max_detections=4",
        ],
    )
    model = instantiate(cfg.model).state_dict()
    model["dense.head.cls_logits.bias"] = torch.tensor([0.0, 0.1, 0.2])
    save(path, {"model": model, "class_names": ["circle", "square", "star"], "config": dump_config(cfg)})
    return path
