"""What `fcos doctor` finds wrong, for machines described by hand, and for this one."""

from __future__ import annotations

import dataclasses

import pytest

from fcos_d2.health import Inventory, examine, take_inventory
from fcos_d2.health.inventory import Gpu

GPU = Gpu("A100", 80 << 30)
WHOLE = Inventory(
    versions={"torch": "2.14.1", "torchvision": "0.29.1", "opencv-python": "5.0", "triton": "3.8", "setuptools": "80"},
    pairs=["==2.14.1"], detectron2="main", cuda="13.0", driver="580.1", driver_gpus=[GPU], torch_gpus=[GPU],
    shared_memory=8 << 30, cache="/c", cache_free=50 << 30, fonts={"Korean": True},
)  # fmt: skip
CPU = {"driver": None, "driver_gpus": [], "torch_gpus": []}


def machine(**changes):
    versions = {**WHOLE.versions, **changes.pop("versions", {})}
    return dataclasses.replace(WHOLE, versions=versions, **changes)


def test_a_whole_installation_has_nothing_to_mend():
    assert examine(WHOLE) == [] and examine(machine(**CPU)) == []
    assert examine(machine(versions={"torch": "2.14.1+cpu", "triton": None}, cuda=None, **CPU)) == []


@pytest.mark.parametrize(
    ("changes", "severity", "what", "mend"),
    [
        ({"versions": {"torch": None}}, "error", "PyTorch is not installed", "pip install torch torchvision"),
        ({"versions": {"torchvision": None}}, "error", "torchvision is not", "pip install torchvision torch==2.14.1"),
        ({"versions": {"torch": "2.9.0+cu128"}}, "error", "for PyTorch 2.14.1, but 2.9.0+cu128", "torch==2.14.1"),
        ({"detectron2": None}, "error", "Detectron2 is not installed", "uv sync --extra detectron2"),
        ({"has_pkg_resources": False, "versions": {"setuptools": "82"}}, "error", "setuptools 82", "'setuptools<81'"),
        ({"broken": {"cv2": "libGL.so.1: cannot open shared object file"}}, "error", "cv2", "apt-get install libgl1"),
        ({"broken": {"torch": "libcudart.so.13: no"}}, "error", "torch is installed but", "torch==2.14.1"),
        ({"broken": {"detectron2": "undefined symbol"}}, "error", "detectron2 is installed but", "facebookresearch"),
        ({"unmet": ["hotcoco<2,>=1.3"]}, "note", "makes evaluation faster", "pip install 'hotcoco<2,>=1.3'"),
        ({"unmet": ["fvcore>=0.1"]}, "error", "fvcore>=0.1 is required, but it is not", "pip install 'fvcore>=0.1'"),
        ({"unmet": ["numpy>=3"], "versions": {"numpy": "2.0"}}, "warning", "numpy>=3 is required, but 2.0", "numpy>=3"),
        ({"versions": {"pillow": None}}, "error", "pillow is required, but it is not", "pip install 'pillow'"),
        (
            {"versions": {"opencv-python-headless": "5.0"}}, "warning", "overwrite each other",
            "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python",
        ),
        ({"cuda": None, "torch_gpus": []}, "warning", "(A100), but PyTorch 2.14.1 is built for the CPU alone", "torch"),
        (
            {"torch_gpus": [], "torch_says": "The driver is too old."}, "warning",
            "cannot use the GPU (A100, driver 580.1) (The driver is too old).", "update the NVIDIA driver",
        ),
        ({"torch_gpus": [], "hidden": True}, "warning", "hides all GPUs", "unset CUDA_VISIBLE_DEVICES"),
        ({"unsupported": ["B200"]}, "warning", "no code for B200", "pip install --upgrade torch"),
        ({"versions": {"triton": None}}, "note", "Triton", "pip install triton"),
        ({"shared_memory": 64 << 20}, "warning", "/dev/shm has 64 MiB", "--workers 0"),
        ({"cache_is_writable": False}, "warning", "/c cannot be written", "FCOS_D2_CACHE="),
        ({"cache_free": 100 << 20}, "warning", "/c has 100 MiB left", "FCOS_D2_CACHE="),
        ({"fonts": {"Korean": False, "Arabic": True}}, "note", "letters of Korean:", "fonts-noto-cjk"),
    ],
)  # fmt: skip
def test_each_fault_is_one_finding_with_its_remedy(changes, severity, what, mend):
    (found,) = examine(machine(**changes))
    assert found.severity == severity and what in found.what and mend in found.mend
    assert "\n" not in found.what + found.mend and found.what.endswith(".")


def test_errors_come_first_and_are_said_once():
    found = examine(Inventory(versions={"torch": None}, unmet=["torch>=2.4", "torchvision>=0.19"], fonts={"x": False}))
    assert [f.severity for f in found] == ["error", "error", "note"]


def test_this_machine():
    """The tests run here, so there is no error; facts are those of the libraries themselves."""
    import torch
    from PIL import Image

    here = take_inventory()
    assert [f for f in examine(here) if f.severity == "error"] == []
    assert here.versions["torch"] == torch.__version__.partition("+")[0] and here.cuda == torch.version.cuda
    assert len(here.torch_gpus) == torch.cuda.device_count() and not here.broken
    assert here.versions["pillow"] == Image.__version__
    assert here.cores >= 1 and here.memory > 1 << 28
