"""Devices by name: what this machine lacks is one sentence, wherever the name is from."""

from __future__ import annotations

import pytest
import torch

from fcos_d2.devices import find_device
from fcos_d2.errors import FcosError
from fcos_d2.predict import Predictor
from fcos_d2.zoo import config_file

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


def test_what_every_machine_has() -> None:
    assert find_device("cpu", "device") == torch.device("cpu")
    assert find_device(None, "device").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:x", "", "cuda:-1", "0"])
def test_no_device(name: str) -> None:
    with pytest.raises(FcosError, match=r"^train\.device is .*, which is no device: use cuda or cpu\.$"):
        find_device(name, "train.device")


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "xpu", "meta"])
def test_none_that_is_here(name: str) -> None:
    with pytest.raises(FcosError, match=f"^device is '{name}', but PyTorch finds no .* here: pass device=cpu.$"):
        find_device(name, "device")


def test_a_number_that_is_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1", "device") == torch.device("cuda:1")
    with pytest.raises(FcosError, match="is 'cuda:7', but the last CUDA device here is cuda:1"):
        find_device("cuda:7", "device")


@without_gpu
def test_the_predictor_decides_the_device_of_a_yaml_config() -> None:
    """Whose MODEL.DEVICE is cuda unless it says otherwise."""
    source = config_file("fcos_R_18_slim_FPN_small", yaml=True)
    predictor = Predictor(source, weights="random", overrides=["MODEL.DEVICE=cuda"])
    assert predictor.device.type == "cpu" == next(predictor.model.parameters()).device.type
    with pytest.raises(FcosError, match="device is 'cuda', but PyTorch finds no CUDA device here"):
        Predictor(source, weights="random", device="cuda")
